//! The initramfs of hosts and guests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::bundle::Unpacked;
use crate::cpio::Archive;
use crate::error::{Context, Result};
use crate::kernel::{KernelFiles, Module};
use crate::program::Program;
use crate::scenario::{self, Scenario};
use crate::system::{System, SystemFiles};

/// The contents of a host's initramfs.
pub(crate) struct HostImage<'a> {
    pub(crate) busybox: &'a Path,
    pub(crate) modules: &'a [Module],
    /// `None` on a server, which has the package.
    pub(crate) ghest: Option<&'a Ghest>,
    pub(crate) tools: &'a Tools,
    /// Guest kernels by key.
    pub(crate) kernels: &'a BTreeMap<&'static str, KernelFiles>,
    pub(crate) systems: &'a BTreeMap<System, SystemFiles>,
    /// Programs of the host, and of its guests.
    pub(crate) programs: &'a [(&'static Program, Unpacked)],
    /// Tests, by the name that they have on the host. They need no other libraries than `ghest`.
    pub(crate) tests: &'a [(&'static str, PathBuf)],
    /// The server that the host runs.
    pub(crate) server: Option<Server<'a>>,
    pub(crate) scenarios: Vec<&'a Scenario>,
}

/// A Debian server whose systemd is the host's init, and on which `ghest` is installed as a package.
pub(crate) struct Server<'a> {
    /// The number of its disk.
    pub(crate) disk: usize,
    pub(crate) package: &'a Path,
}

/// The program under test, and the shared libraries that it loads, which keep their paths.
pub(crate) struct Ghest {
    pub(crate) program: PathBuf,
    pub(crate) libraries: Vec<PathBuf>,
}

/// The programs of `tools/victim`, linked statically: guests have no libraries.
pub(crate) struct Tools {
    pub(crate) victim: PathBuf,
    pub(crate) poison: PathBuf,
}

impl HostImage<'_> {
    pub(crate) fn build(&self, root: &Path) -> Result<Vec<u8>> {
        let mut archive = base(self.busybox, "lab/busybox")?;
        archive.file("init", 0o755, include_bytes!("../images/host-init.sh"))?;
        archive.file("lab/agent", 0o755, include_bytes!("../images/host-agent.sh"))?;
        if let Some(Server { disk, package }) = self.server {
            archive.file("lab/lab.service", 0o644, include_bytes!("../images/lab.service"))?;
            archive.file("lab/host-disk", 0o644, disk.to_string().as_bytes())?;
            archive.file("lab/ghest.deb", 0o644, &read(package)?)?;
        }
        add_modules(&mut archive, "lab/modules", self.modules)?;
        if let Some(ghest) = self.ghest {
            archive.file("lab/bin/ghest", 0o755, &read(&ghest.program)?)?;
            for library in &ghest.libraries {
                let path = library.strip_prefix("/").unwrap_or(library);
                archive.file(&path.to_string_lossy(), 0o755, &read(library)?)?;
            }
        }
        archive.file("lab/bin/retire-page", 0o755, &read(&root.join("vmm/dist/retire-page"))?)?;
        archive.file("lab/bin/poison", 0o755, &read(&self.tools.poison)?)?;
        archive.file("lab/bin/victim", 0o755, &read(&self.tools.victim)?)?;
        for (name, path) in self.tests {
            archive.file(&format!("lab/bin/{name}"), 0o755, &read(path)?)?;
        }
        let of_hosts = self.scenarios.iter().flat_map(|scenario| &scenario.programs);
        self.add_programs(&mut archive, &of_hosts.collect())?;
        for (key, files) in self.kernels {
            archive.file(&format!("lab/kernels/{key}"), 0o644, &read(&files.image)?)?;
        }
        for (system, files) in self.systems {
            for file in SystemFiles::BOOT {
                archive.file(&format!("lab/systems/{system}/{file}"), 0o644, &read(&files.path(file))?)?;
            }
        }
        for scenario in &self.scenarios {
            self.add_scenario(&mut archive, scenario, root)?;
        }
        for (number, scenario, system) in scenario::disks(&self.scenarios)? {
            let directory = format!("lab/scenarios/{}", scenario.name);
            for file in SystemFiles::BOOT {
                archive.symlink(&format!("{directory}/{file}"), &format!("/lab/systems/{system}/{file}"))?;
            }
            archive
                .symlink(&format!("{directory}/{}", SystemFiles::DISK), &format!("/run/disks/{number}"))?;
        }
        archive.finish()
    }

    fn add_scenario(&self, archive: &mut Archive, scenario: &Scenario, root: &Path) -> Result<()> {
        let directory = format!("lab/scenarios/{}", scenario.name);
        archive.file(&format!("{directory}/command"), 0o644, scenario.command.as_bytes())?;
        if let Some(profile) = &scenario.profile {
            archive.file(&format!("{directory}/profile.toml"), 0o644, profile.as_bytes())?;
        }
        if let Some(path) = &scenario.profile_from {
            archive.file(&format!("{directory}/profile.toml"), 0o644, &read(&root.join(path))?)?;
        }
        if let Some(kernel) = &scenario.kernel {
            archive.symlink(&format!("{directory}/kernel"), &format!("/lab/kernels/{kernel}"))?;
        }
        if let Some(init) = &scenario.init {
            let kernel = scenario.kernel.as_ref().and_then(|key| self.kernels.get(key.as_str()));
            let modules = kernel.map_or(Ok(Vec::new()), |files| files.modules(&scenario.modules))?;
            let initramfs = self.guest(init, &modules, &scenario.guest_programs.iter().collect())?;
            archive.file(&format!("{directory}/initrd"), 0o644, &initramfs)?;
        }
        Ok(())
    }

    /// A guest's initramfs: busybox, `victim`, modules, programs, and an init that ends with the scenario's script.
    fn guest(&self, script: &str, modules: &[Module], programs: &BTreeSet<&String>) -> Result<Vec<u8>> {
        let mut archive = base(self.busybox, "busybox")?;
        archive.file("bin/victim", 0o755, &read(&self.tools.victim)?)?;
        add_modules(&mut archive, "modules", modules)?;
        self.add_programs(&mut archive, programs)?;
        let init = format!("{}{script}", include_str!("../images/guest-init.sh"));
        archive.file("init", 0o755, init.as_bytes())?;
        archive.finish()
    }

    fn add_programs(&self, archive: &mut Archive, names: &BTreeSet<&String>) -> Result<()> {
        let named =
            self.programs.iter().filter(|(program, _)| names.iter().any(|name| *name == program.name));
        named.into_iter().try_for_each(|(program, unpacked)| program.add(unpacked, archive))
    }
}

/// Adds modules, and the order in which they are loaded.
fn add_modules(archive: &mut Archive, directory: &str, modules: &[Module]) -> Result<()> {
    let order: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file(&format!("{directory}/order"), 0o644, order.as_bytes())?;
    for (name, content) in modules {
        archive.file(&format!("{directory}/{name}.ko"), 0o644, content)?;
    }
    Ok(())
}

fn base(busybox: &Path, path: &str) -> Result<Archive> {
    let mut archive = Archive::default();
    // The kernel opens it for init before devtmpfs is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.file(path, 0o755, &read(busybox)?)?;
    Ok(archive)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(format_args!("cannot read {}", path.display()))
}
