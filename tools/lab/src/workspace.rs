//! The checkout: its directories, and the build of its programs for the hosts.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::architecture::Architecture;
use crate::bundle::{self, Bundle, Cache, Unpacked};
use crate::error::{Context, Error, Result};
use crate::image::{Ghest, Tools};
use crate::process;

/// The checkout that the lab is run in.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// A `ghest` to use instead of building one.
    given_ghest: Option<PathBuf>,
    /// Whether `ghest` is built in release mode.
    optimised: bool,
}

/// Package, test and name on the host of the tests that need a host with memory failure handling, and of one whose subject is
/// written in assembly for each architecture.
const HOST_TESTS: &[(&str, &str, &str)] = &[
    ("ghest-guest-memory", "poisoned_pages", "guest-memory-access-test"),
    ("ghest-guest-memory", "hardware_poison", "guest-memory-test"),
    ("ghest-devices", "poisoned_pages", "devices-test"),
    ("ghest-devices", "vhost_net", "vhost-net-test"),
];

impl Workspace {
    /// The checkout that contains the current directory.
    pub(crate) fn find(given_ghest: Option<PathBuf>, optimised: bool) -> Result<Self> {
        let here = env::current_dir().context("no current directory")?;
        let root = here.ancestors().find(|directory| directory.join("tests/scenarios").is_dir());
        let root =
            root.context("not in a checkout: no tests/scenarios in this directory or above it")?.to_owned();
        Ok(Self { root, given_ghest, optimised })
    }

    pub(crate) fn scenarios(&self) -> PathBuf {
        self.root.join("tests/scenarios")
    }

    /// The directory of builds.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The lab's directory.
    pub(crate) fn lab(&self) -> PathBuf {
        self.root.join("target/lab")
    }

    /// The directory of fetched packages, which several checkouts may share (`LAB_CACHE`).
    pub(crate) fn cache(&self) -> PathBuf {
        env::var_os("LAB_CACHE").map_or_else(|| self.lab().join("cache"), PathBuf::from)
    }

    /// The Cargo that has started the lab.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// The packages that a build for an architecture needs.
    pub(crate) fn needs(&self, architecture: Architecture) -> Option<Bundle> {
        (architecture == Architecture::Aarch64).then(bundle::rust)
    }

    /// Builds `ghest` for hosts of an architecture.
    pub(crate) fn ghest(&self, architecture: Architecture, cache: &Cache) -> Result<Ghest> {
        if let Some(program) = &self.given_ghest {
            let libraries = shared_libraries(program).unwrap_or_default();
            return Ok(Ghest { program: program.clone(), libraries });
        }
        let mut cargo = self.build("ghest");
        cargo.args(self.optimised.then_some("--release"));
        match architecture {
            Architecture::X86_64 => {
                let program = executable(&mut executables(&mut cargo, "ghest")?, "ghest")?;
                let libraries = shared_libraries(&program)?;
                Ok(Ghest { program, libraries })
            }
            Architecture::Aarch64 => {
                self.link_statically(&mut cargo, architecture, cache)?;
                let program = executable(&mut executables(&mut cargo, "ghest")?, "ghest")?;
                Ok(Ghest { program, libraries: Vec::new() })
            }
        }
    }

    /// Builds `victim` and `poison` for hosts and guests of an architecture: the initramfs of each guest contains one.
    pub(crate) fn tools(&self, architecture: Architecture, cache: &Cache) -> Result<Tools> {
        let mut cargo = self.build("victim");
        cargo.arg("--bins");
        self.link_statically(&mut cargo, architecture, cache)?;
        let mut built = executables(&mut cargo, "victim")?;
        let mut built = |name| executable(&mut built, name);
        Ok(Tools { victim: built("victim")?, poison: built("poison")? })
    }

    /// Builds the tests that need a host with memory failure handling, as `ghest` is built. Returns their names on the host, too.
    pub(crate) fn host_tests(
        &self,
        architecture: Architecture,
        cache: &Cache,
    ) -> Result<Vec<(&'static str, PathBuf)>> {
        let build = |(package, test, name): &(&str, &str, &'static str)| {
            let mut cargo = self.build(package);
            cargo.args(["--test", test]);
            if architecture == Architecture::Aarch64 {
                self.link_statically(&mut cargo, architecture, cache)?;
            }
            Ok((*name, executable(&mut executables(&mut cargo, package)?, test)?))
        };
        HOST_TESTS.iter().map(build).collect()
    }

    /// Builds the fuzz targets of these names, or all, with these flags of the compiler. Returns them by name.
    pub(crate) fn fuzz_targets(&self, names: &[String], flags: &str) -> Result<BTreeMap<String, PathBuf>> {
        // With a target, the flags are not those of build scripts and macros.
        let host = process::text(Command::new("rustc").args(["--print", "host-tuple"]))?;
        let mut cargo = self.build("fuzz");
        cargo.args(["--features", "libfuzzer", "--profile", "fuzz", "--target", host.trim()]);
        cargo.args(names.is_empty().then_some("--bins")).args(names.iter().flat_map(|name| ["--bin", name]));
        executables(cargo.env("RUSTFLAGS", flags), "fuzz")
    }

    /// The build of a package, for [`executables`].
    fn build(&self, package: &str) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["build", "--quiet", "--package", package]);
        cargo.args(["--message-format", "json-render-diagnostics"]);
        cargo
    }

    /// Sets up a static build for an architecture.
    fn link_statically(&self, cargo: &mut Command, architecture: Architecture, cache: &Cache) -> Result<()> {
        const FLAGS: &str = "-C target-feature=+crt-static";
        // A target directory for each: compiler and flags differ.
        let (target, directory) = match architecture {
            Architecture::X86_64 => ("x86_64-unknown-linux-gnu", "static"),
            Architecture::Aarch64 => ("aarch64-unknown-linux-gnu", "cross"),
        };
        cargo.args(["--target", target, "--target-dir"]).arg(self.lab().join(directory));
        let variable =
            |what: &str| format!("CARGO_TARGET_{}_{what}", target.replace('-', "_").to_uppercase());
        cargo.env(variable("RUSTFLAGS"), FLAGS);
        // Small programs load faster into emulated machines; a panic's location needs no symbols.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "none").env("CARGO_PROFILE_DEV_STRIP", "symbols");
        if let Some(rust) = self.needs(architecture) {
            cargo.env("RUSTC", self.compiler(&cache.get(&rust)?)?);
            cargo.env(variable("LINKER"), "aarch64-linux-gnu-gcc");
        }
        Ok(())
    }

    /// Makes the compiler for aarch64 available to the workspace's tests.
    pub(crate) fn prepare_compiler(&self, cache: &Cache) -> Result<()> {
        self.compiler(&cache.get(&bundle::rust())?).map(drop)
    }

    /// A script that runs the unpacked compiler with its unpacked libraries.
    fn compiler(&self, rust: &Unpacked) -> Result<PathBuf> {
        let root = rust.root.canonicalize().context("cannot find the unpacked compiler")?;
        let root = root.display();
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{root}/usr/lib/x86_64-linux-gnu' \
             exec '{root}/usr/bin/rustc' --sysroot '{root}/usr' \"$@\"\n"
        );
        self.install_script("rustc", &script)
    }

    /// Writes an executable script to a path in the lab's directory.
    pub(crate) fn install_script(&self, path: &str, script: &str) -> Result<PathBuf> {
        let path = self.lab().join(path);
        // A newer compiler is a different one to Cargo, so that an unchanged script is not written again.
        if fs::read_to_string(&path).ok().as_deref() == Some(script) {
            return Ok(path);
        }
        let directory = path.parent().context("a script without a directory")?;
        fs::create_dir_all(directory).context(format_args!("cannot create {}", directory.display()))?;
        fs::write(&path, script).context(format_args!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context(format_args!("cannot make {} executable", path.display()))?;
        Ok(path)
    }
}

/// Builds a package, and returns its executables by name.
fn executables(cargo: &mut Command, package: &str) -> Result<BTreeMap<String, PathBuf>> {
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        return Err(Error::new(format!("{package} does not build")));
    }
    let built = |message: serde_json::Value| {
        let name = message.pointer("/target/name")?.as_str()?.to_owned();
        Some((name, PathBuf::from(message.get("executable")?.as_str()?)))
    };
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(built).collect())
}

/// Takes the executable with a name.
fn executable(built: &mut BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    built.remove(name).context(format_args!("cargo built no executable {name}"))
}

/// The libraries that the dynamic linker loads, and the linker itself.
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
    fn libraries_without_a_path_are_ignored() {
        let listing = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries_in(listing), expected);
        assert!(libraries_in("\tstatically linked\n").is_empty());
    }
}
