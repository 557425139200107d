//! Debian servers that guests boot from a disk. The commands that make them are those of `docs/getting-started.md`: what is
//! documented is what runs.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::apt::Release;
use crate::architecture::Architecture;
use crate::bundle::{self, Cache};
use crate::error::{Context, Error, Missing, Result};
use crate::{process, setup};

/// The document, and the headings at which its commands for disk, kernel and initrd begin and end.
pub(crate) const PAGE: &str = "docs/getting-started.md";
const BEGIN: &str = "### The disk\n";
const END: &str = "### The machine\n";

/// Debian 12 and 13.
const RELEASES: &[Release] = &[Release::Bookworm, Release::Trixie];

/// The packages that the commands need; without root, mmdebstrap also needs a range of user ids (`uidmap`).
const PACKAGES: &[&str] = &["e2fsprogs", "fakeroot", "mmdebstrap"];

/// Files of a system in the cache: the commands that made it, what they printed, and the version of Debian.
const COMMANDS: &str = "commands.sh";
const LOG: &str = "commands.log";
const VERSION: &str = "version";

/// A release of Debian as a server of one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct System {
    release: Release,
    architecture: Architecture,
}

/// The files of a system.
pub(crate) struct SystemFiles {
    directory: PathBuf,
    /// Debian's version, for example `12.12`.
    pub(crate) version: String,
}

impl SystemFiles {
    pub(crate) const DISK: &str = "debian.img";
    /// Kernel and initrd.
    pub(crate) const BOOT: [&str; 2] = ["vmlinuz", "initrd.img"];

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "debian-{}-{}", self.release.name(), self.architecture)
    }
}

impl System {
    /// The system with the name of a release; an error lists the known releases.
    pub(crate) fn new(architecture: Architecture, name: &str) -> Result<Self> {
        let release = RELEASES.iter().find(|release| release.name() == name).context(format_args!(
            "no system {name:?}; known: {}",
            RELEASES.iter().map(|release| release.name()).collect::<Vec<_>>().join(", ")
        ))?;
        Ok(Self { release: *release, architecture })
    }

    /// The files of a system; it is made if it is not in the cache, or not by the commands of the document as it is now.
    pub(crate) fn get(self, root: &Path, cache: &Cache) -> std::result::Result<SystemFiles, Missing> {
        let page = fs::read_to_string(root.join(PAGE)).context(format_args!("cannot read {PAGE}"));
        let commands = page.and_then(|page| self.commands(&page)).map_err(Missing::Part)?;
        let directory = self.directory(cache);
        let made_by = fs::read_to_string(directory.join(COMMANDS)).unwrap_or_default();
        if cache.is_refreshed() || made_by != commands {
            // Without a network this fails, and not the commands.
            cache.apt(self.release).and_then(|apt| apt.update()).map_err(Missing::Packages)?;
            self.make(cache, &commands, &directory).map_err(Missing::Part)?;
        }
        let version = fs::read_to_string(directory.join(VERSION)).context("cannot read a system's version");
        let version = version.map_err(Missing::Part)?.trim().to_owned();
        Ok(SystemFiles { directory, version })
    }

    fn directory(self, cache: &Cache) -> PathBuf {
        cache.path("systems").join(self.to_string())
    }

    /// The document's commands, with the values of this system in the lines that set `suite` and `architecture`.
    fn commands(self, page: &str) -> Result<String> {
        let section = page.split_once(BEGIN).and_then(|(_, rest)| Some(rest.split_once(END)?.0));
        let mut commands = shell_blocks(section.context(format_args!("{PAGE}: no section {BEGIN:?}"))?);
        for (variable, value) in
            [("suite", self.release.name()), ("architecture", self.architecture.debian())]
        {
            let assigns = |line: &&str| line.strip_prefix(variable).is_some_and(|rest| rest.starts_with('='));
            let line = commands.lines().find(assigns).context(format_args!("{PAGE}: no {variable}="))?;
            commands = commands.replacen(line, &format!("{variable}={value}"), 1);
        }
        Ok(commands)
    }

    fn make(self, cache: &Cache, commands: &str, directory: &Path) -> Result<()> {
        eprintln!("making {self} by the commands of {PAGE}, which takes minutes");
        setup::install(PACKAGES)?;
        if !setup::is_root() {
            setup::install(&["uidmap"])?;
        }
        self.prepare_emulation()?;
        let fresh = directory.with_extension("new");
        bundle::remove(&fresh)?;
        let tools = fresh.join("bin");
        fs::create_dir_all(&tools).context(format_args!("cannot create {}", tools.display()))?;
        // The commands as they are written fetch from Debian's own archive; here, from where this machine gets its packages.
        let path = env::var("PATH").context("no PATH")?;
        let sources = cache.apt(self.release)?.sources();
        let sources = sources.canonicalize().context("cannot find apt's sources")?;
        let mmdebstrap = tools.join("mmdebstrap");
        let script = format!("#!/bin/sh\nPATH='{path}' exec mmdebstrap \"$@\" '{}'\n", sources.display());
        fs::write(&mmdebstrap, script).context("cannot write a script")?;
        fs::set_permissions(&mmdebstrap, fs::Permissions::from_mode(0o755))
            .context("cannot make a script executable")?;
        let tools = tools.canonicalize().context("cannot find the scripts")?;

        let log = fresh.join(LOG);
        let stdout = File::create(&log).context(format_args!("cannot create {}", log.display()))?;
        let stderr = stdout.try_clone().context("cannot share a file")?;
        let status = Command::new("sh")
            .args(["-e", "-c", commands])
            .current_dir(&fresh)
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .status()
            .context("cannot run sh")?;
        if !status.success() {
            let printed = fs::read_to_string(&log).unwrap_or_default();
            let from = printed.lines().count().saturating_sub(20);
            let end: Vec<&str> = printed.lines().skip(from).collect();
            return Err(Error::new(format!(
                "{PAGE}: {status}; the end of {}:\n{}",
                log.display(),
                end.join("\n")
            )));
        }
        let disk = fresh.join(SystemFiles::DISK);
        let mut debugfs = Command::new("debugfs");
        debugfs.env("PATH", format!("{path}:/usr/sbin")).args(["-R", "cat /etc/debian_version"]).arg(disk);
        fs::write(fresh.join(VERSION), process::output(&mut debugfs)?).context("cannot write the version")?;
        fs::write(fresh.join(COMMANDS), commands).context("cannot write the commands")?;
        bundle::remove(directory)?;
        fs::rename(&fresh, directory).context(format_args!("cannot put {} in place", directory.display()))
    }

    /// Makes this machine execute programs of the system's architecture, if it is another one.
    fn prepare_emulation(self) -> Result<()> {
        let architecture = self.architecture.to_string();
        let handler = format!("qemu-{architecture}");
        if architecture == env::consts::ARCH {
            return Ok(());
        }
        setup::install(&["arch-test"])?;
        if Path::new("/proc/sys/fs/binfmt_misc").join(&handler).exists() {
            return Ok(());
        }
        setup::install(&["binfmt-support", "qemu-user-static"])?;
        // In a container nothing starts the service that does this.
        process::run(setup::as_root("update-binfmts").args(["--enable", &handler]))
    }
}

/// The document's commands for a system that has been made.
#[cfg(test)]
pub(crate) fn commands_for_the_machine(page: &str) -> String {
    page.split_once(END).map(|(_, rest)| shell_blocks(rest)).unwrap_or_default()
}

/// The lines of the blocks of shell commands in a document.
fn shell_blocks(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_of_the_document_for_another_system() {
        let page =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE)).unwrap();
        let commands = System::new(Architecture::Aarch64, "bookworm").unwrap().commands(&page).unwrap();
        assert!(commands.contains("\nsuite=bookworm\narchitecture=arm64\nmmdebstrap "), "{commands}");
        assert!(commands.contains("mke2fs ") && commands.contains("debugfs "), "{commands}");
        assert!(!commands.contains("trixie") && !commands.contains("ghest"), "{commands}");
        assert!(!commands_for_the_machine(&page).contains("mke2fs"));
        let without =
            System::new(Architecture::X86_64, "trixie").unwrap().commands("### The disk\n### The machine\n");
        assert_eq!(without.unwrap_err().to_string(), "docs/getting-started.md: no suite=");
    }
}
