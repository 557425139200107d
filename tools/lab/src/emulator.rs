//! The emulators of hosts: this machine's own if the lab is known to work with their version, otherwise Debian's, unpacked into the
//! cache, or built there with a patch. Nothing of them is installed on the machine.

mod patched;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Release;
use crate::architecture::Architecture;
use crate::bundle::{self, Cache, Unpacked};
use crate::error::{Context, Error, Result};
use crate::host::Host;
use crate::process;
use crate::workspace::Workspace;

/// Versions of QEMU that the scenarios and the tests are known to pass with.
const KNOWN_VERSIONS: &[&str] = &["7.2."];

/// An emulator that can be started.
pub(crate) struct Emulator {
    /// What it emulates.
    pub(crate) host: &'static Host,
    /// A script in the checkout's `target/lab/bin`, where the workspace's own tests look for it too.
    pub(crate) program: PathBuf,
    /// The version of QEMU.
    pub(crate) version: String,
}

impl Emulator {
    /// The emulator of a host.
    ///
    /// # Errors
    ///
    /// Returns an error if this machine has no emulator of a known version and the packages cannot be fetched, or if the emulator
    /// does not start.
    pub(crate) fn get(workspace: &Workspace, cache: &Cache, host: &'static Host) -> Result<Self> {
        let name = host.emulator;
        let is_default = host.release == Release::Bookworm && host.patch.is_none();
        let own = match host.patch {
            Some(patch) => Some(patched::emulator(cache, host, patch)?),
            None => installed(name).filter(|_| is_default),
        };
        let script = match own {
            Some(path) => format!("#!/bin/sh\nexec '{}' \"$@\"\n", path.display()),
            None => script(name, &cache.get(&bundle::emulators(host.release))?)?,
        };
        let suffix = match host.patch {
            Some(_) => "-patched".to_owned(),
            None if is_default => String::new(),
            None => format!("-{}", host.release.name()),
        };
        let program = workspace.install_script(&format!("bin/{name}{suffix}"), &script)?;
        let version = version(&program).context(format_args!("{} does not start", program.display()))?;
        Ok(Self { host, program, version })
    }
}

/// Makes both emulators available to the workspace's tests.
pub(crate) fn prepare(workspace: &Workspace, cache: &Cache) -> Result<()> {
    for architecture in [Architecture::X86_64, Architecture::Aarch64] {
        Emulator::get(workspace, cache, Host::of(architecture))?;
    }
    Ok(())
}

/// Whether an emulator has to come from the cache.
pub(crate) fn is_unpacked() -> bool {
    [Architecture::X86_64, Architecture::Aarch64]
        .into_iter()
        .any(|architecture| installed(Host::of(architecture).emulator).is_none())
}

/// This machine's own emulator, if it is of a known version.
fn installed(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH")?;
    let path = std::env::split_paths(&directories)
        .map(|directory| directory.join(name))
        .find(|path| path.is_absolute() && path.is_file())?;
    is_known(&version(&path).ok()?).then_some(path)
}

fn is_known(version: &str) -> bool {
    KNOWN_VERSIONS.iter().any(|known| version.starts_with(known))
}

fn version(program: &Path) -> Result<String> {
    let text = process::text(Command::new(program).arg("--version"))?;
    parse_version(&text).ok_or_else(|| Error::new(format!("no version of QEMU: {text}")))
}

/// `QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)`
fn parse_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("QEMU emulator version ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// Starts an unpacked emulator with the dynamic linker, libraries, firmware and modules of its own release of Debian: some releases have
/// `/lib` beside `/usr/lib`.
fn script(name: &str, unpacked: &Unpacked) -> Result<String> {
    let root = unpacked.root.canonicalize().context("cannot find the unpacked emulators")?;
    Ok(format!(
        "#!/bin/sh\n\
         root='{}'\n\
         export QEMU_MODULE_DIR=\"$root/usr/lib/x86_64-linux-gnu/qemu\"\n\
         linker=lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n\
         [ -e \"$root/$linker\" ] || linker=usr/$linker\n\
         exec \"$root/$linker\" \
         --library-path \"$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu\" \
         \"$root/usr/bin/{name}\" \
         -L \"$root/usr/share/qemu\" -L \"$root/usr/share/seabios\" -L \"$root/usr/lib/ipxe/qemu\" \
         -L \"$root/usr/share/qemu-efi-aarch64\" \"$@\"\n",
        root.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_and_compared() {
        let version =
            parse_version("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c)\n");
        assert_eq!(version.as_deref(), Some("7.2.19"));
        assert!(is_known("7.2.19") && !is_known("7.20.1") && !is_known("10.0.2"));
        assert_eq!(parse_version("qemu: no such option"), None);
    }
}
