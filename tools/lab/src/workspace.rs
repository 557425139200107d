//! The checkout: where things are in it, and how its programs are built for the hosts.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::architecture::Architecture;
use crate::bundle::{self, Bundle, Cache, Unpacked};
use crate::error::{Context, Error, Result};
use crate::image::Ghest;
use crate::process;

/// The checkout that the lab works for.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Taken instead of a `ghest` that is built here.
    ghest_instead: Option<PathBuf>,
    /// Whether `ghest` is built to be fast.
    optimised: bool,
}

impl Workspace {
    /// The checkout around the current directory.
    pub(crate) fn find(ghest_instead: Option<PathBuf>, optimised: bool) -> Result<Self> {
        let here = env::current_dir().context("no current directory")?;
        let root = here.ancestors().find(|directory| directory.join("tests/scenarios").is_dir());
        let root = root.context("not in a checkout: there is no tests/scenarios here or above")?.to_owned();
        Ok(Self { root, ghest_instead, optimised })
    }

    pub(crate) fn scenarios(&self) -> PathBuf {
        self.root.join("tests/scenarios")
    }

    /// What the lab keeps, all of it.
    pub(crate) fn lab(&self) -> PathBuf {
        self.root.join("target/lab")
    }

    /// Fetched packages, which several checkouts may share.
    pub(crate) fn cache(&self) -> PathBuf {
        env::var_os("LAB_CACHE").map_or_else(|| self.lab().join("cache"), PathBuf::from)
    }

    /// Cargo, the one that the lab was started with.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// What building `ghest` for hosts of an architecture takes from Debian.
    pub(crate) fn needs(&self, architecture: Architecture) -> Option<Bundle> {
        (architecture == Architecture::Aarch64 && self.ghest_instead.is_none()).then(bundle::rust)
    }

    /// Builds `ghest` for hosts of an architecture.
    pub(crate) fn ghest(&self, architecture: Architecture, cache: &Cache) -> Result<Ghest> {
        if let Some(program) = &self.ghest_instead {
            let libraries = shared_libraries(program).unwrap_or_default();
            return Ok(Ghest { program: program.clone(), libraries });
        }
        let mut cargo = self.cargo();
        cargo.args(["build", "--quiet", "--package", "ghest", "--message-format", "json-render-diagnostics"]);
        cargo.args(self.optimised.then_some("--release"));
        match self.needs(architecture) {
            None => {
                let program = executable(&mut cargo)?;
                let libraries = shared_libraries(&program)?;
                Ok(Ghest { program, libraries })
            }
            Some(rust) => {
                cargo
                    .args(["--target", "aarch64-unknown-linux-gnu", "--target-dir"])
                    .arg(self.lab().join("cross"));
                cargo.env("RUSTC", self.compiler(&cache.get(&rust)?)?);
                cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
                cargo
                    .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
                Ok(Ghest { program: executable(&mut cargo)?, libraries: Vec::new() })
            }
        }
    }

    /// Puts the compiler for aarch64 where the workspace's own tests look for it.
    pub(crate) fn prepare_compiler(&self, cache: &Cache) -> Result<()> {
        self.compiler(&cache.get(&bundle::rust())?).map(drop)
    }

    /// A compiler that runs from where it was unpacked, with the libraries that were unpacked with it.
    fn compiler(&self, rust: &Unpacked) -> Result<PathBuf> {
        let root = rust.root.canonicalize().context("cannot find the unpacked compiler")?;
        let root = root.display();
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{root}/usr/lib/x86_64-linux-gnu' \
             exec '{root}/usr/bin/rustc' --sysroot '{root}/usr' \"$@\"\n"
        );
        fs::create_dir_all(self.lab()).context("cannot make the lab's directory")?;
        let path = self.lab().join("rustc");
        // Cargo takes a compiler that is newer than its last build for another one.
        if fs::read_to_string(&path).ok().as_deref() != Some(script.as_str()) {
            fs::write(&path, script).context("cannot write the compiler's wrapper")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .context("cannot make it executable")?;
        }
        Ok(path)
    }
}

/// Builds, and gives the path of the executable that was built.
fn executable(cargo: &mut Command) -> Result<PathBuf> {
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        return Err(Error::new("ghest does not build"));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message.pointer("/target/name").is_some_and(|name| name == "ghest"))
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .context("cargo built no executable ghest")
}

/// The libraries that the dynamic linker would load, itself included.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    Ok(libraries_in(&process::text(Command::new("ldd").arg(program))?))
}

/// `name => /path (address)`, or `/path (address)` for the linker.
fn libraries_in(listing: &str) -> Vec<PathBuf> {
    listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let listing = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries_in(listing), expected);
        assert!(libraries_in("\tstatically linked\n").is_empty());
    }
}
