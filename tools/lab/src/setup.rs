//! Debian packages that are installed on this machine. None of its own is removed for them.

use std::path::Path;
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::process;

/// The programs by which tests check our tables, manual pages and units, and what the cross build links with.
///
/// Emulators are not installed: those of one release of Debian conflict with QEMU's tools of another (`emulator.rs`).
const PACKAGES: &[&str] = &[
    "acpica-tools",
    "binutils",
    "cpio",
    "device-tree-compiler",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "groff-base",
    "libc6-dev",
    "libc6-dev-arm64-cross",
    "systemd",
    "xz-utils",
];

/// Installs the packages that the lab needs and that are missing; prints nothing if none is.
pub(crate) fn setup() -> Result<()> {
    install(PACKAGES)
}

/// Installs those of these packages that are missing.
///
/// # Errors
///
/// Returns an error if apt-get(8) cannot install them, or could only by removing packages of this machine; it names both.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing on this machine: {}", missing.join(" "));
    if !has_lists() {
        apt_get(&["update"])?;
    }
    let mut install = vec!["install", "-y", "--no-install-recommends", "--no-remove"];
    install.extend(&missing);
    // Lists that are older than the mirror's latest point release name files that no longer exist.
    let installed = apt_get(&install).or_else(|_| apt_get(&["update"]).and_then(|()| apt_get(&install)));
    installed.map_err(|error| explain(&missing, &error))
}

/// The error for packages that cannot be installed, with the conflicts and the remedy.
fn explain(packages: &[&str], error: &Error) -> Error {
    let packages = packages.join(" ");
    let simulation = Command::new("apt-get")
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(packages.split(' '))
        .env("LC_ALL", "C")
        .output();
    let conflicts = simulation.map(|output| {
        let text = [output.stdout, output.stderr].concat();
        conflicts(&String::from_utf8_lossy(&text)).join("\n  ")
    });
    let conflicts = conflicts.unwrap_or_default();
    if conflicts.is_empty() {
        return Error::new(format!("apt-get cannot install {packages}: {error}"));
    }
    Error::new(format!(
        "apt-get cannot install {packages} without removing packages of this machine:\n  {conflicts}\n\
         The lab removes none. Install versions of {packages} that agree with those packages, or remove them yourself, and repeat the command."
    ))
}

/// The lines of a simulated installation that name a conflict: `Remv NAME [VERSION]`, or an unmet dependency
/// `NAME : Breaks: OTHER ...`.
fn conflicts(simulation: &str) -> Vec<&str> {
    let is_conflict = |line: &&str| {
        line.starts_with("Remv ")
            || [" : Breaks: ", " : Conflicts: ", " : Depends: "].iter().any(|it| line.contains(it))
    };
    simulation.lines().map(str::trim).filter(is_conflict).collect()
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails if one of the names is unknown to it, which is no failure here.
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .output()
        .context("cannot run dpkg-query: the lab needs Debian's packages")?;
    let known = String::from_utf8_lossy(&query.stdout);
    let installed: Vec<&str> = known.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(packages.iter().copied().filter(|package| !installed.contains(package)).collect())
}

fn has_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    process::run(as_root("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// A command that root executes.
pub(crate) fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Whether files that the lab creates belong to root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_and_broken_dependencies_are_conflicts() {
        let text =
            "Reading package lists...\nRemv qemu-utils [1:10.0.2]\nInst qemu-system-arm (1:7.2 Debian:12)\n";
        assert_eq!(conflicts(text), ["Remv qemu-utils [1:10.0.2]"]);
        let text = "The following packages have unmet dependencies:\n \
                    qemu-utils : Breaks: qemu-system-common (< 1:8.0) but 1:7.2 is to be installed\n\
                    E: Error, pkgProblemResolver::Resolve generated breaks\n";
        assert_eq!(
            conflicts(text),
            ["qemu-utils : Breaks: qemu-system-common (< 1:8.0) but 1:7.2 is to be installed"]
        );
        assert!(conflicts("E: Unable to locate package nothing\n").is_empty());
    }
}
