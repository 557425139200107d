//! What a test needs of the machine that it runs on.

use std::fs::File;
use std::process::Command;

/// A test's result: it has passed, or cannot be run here. A failure is a panic.
pub(crate) type Checked = Result<(), Missing>;

/// What this machine lacks.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this machine lacks {}", self.0)
    }
}

/// A KVM that this user may open.
pub(crate) fn kvm() -> Checked {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(Missing(format!("a /dev/kvm that opens ({error})"))),
    }
}

/// The rights of root.
pub(crate) fn root() -> Checked {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Missing("the rights of root".into())) }
}

/// A mount namespace of one's own.
pub(crate) fn mounts() -> Checked {
    root()?;
    works("a mount namespace (unshare --mount)", Command::new("unshare").args(["--mount", "true"]))
}

/// A program: `version` is a command that succeeds where it is installed.
pub(crate) fn works(what: &str, version: &mut Command) -> Checked {
    match version.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Missing(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => Err(Missing(format!("{what}: {error}"))),
    }
}
