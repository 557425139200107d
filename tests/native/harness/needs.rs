//! Requirements of tests.

use std::fs::File;
use std::process::Command;

/// A test's result: passed, or not run on this machine. A failure is a panic.
pub(crate) type Checked = Result<(), Missing>;

/// A requirement that this machine does not meet.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this machine lacks {}", self.0)
    }
}

/// A /dev/kvm that this user can open.
pub(crate) fn kvm() -> Checked {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(Missing(format!("a /dev/kvm that opens ({error})"))),
    }
}

/// Root.
pub(crate) fn root() -> Checked {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Missing("the rights of root".into())) }
}

/// A mount namespace.
pub(crate) fn mounts() -> Checked {
    root()?;
    works("a mount namespace (unshare --mount)", Command::new("unshare").args(["--mount", "true"]))
}

/// A program: `version` is a command that succeeds if it is installed.
pub(crate) fn works(what: &str, version: &mut Command) -> Checked {
    match version.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Missing(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => Err(Missing(format!("{what}: {error}"))),
    }
}
