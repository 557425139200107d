//! What this machine itself needs, from its own Debian packages.

use std::path::Path;
use std::process::Command;

use crate::error::{Context, Result};
use crate::process;

/// Emulators, the readers that tests check our tables with, and what the cross build links with.
const PACKAGES: &[&str] = &[
    "acpica-tools",
    "binutils",
    "cpio",
    "device-tree-compiler",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "libc6-dev",
    "libc6-dev-arm64-cross",
    "qemu-system-arm",
    "qemu-system-x86",
    "xz-utils",
];

/// Installs what the lab needs, as far as it is missing; silent when nothing is.
pub(crate) fn setup() -> Result<()> {
    install(PACKAGES)
}

/// Installs those of these packages that are missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing on this machine: {}", missing.join(" "));
    if !has_lists() {
        apt_get(&["update"])?;
    }
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(missing);
    // Lists that are older than the mirror's latest point release name files that are gone.
    apt_get(&install).or_else(|_| apt_get(&["update"]).and_then(|()| apt_get(&install)))
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when one of the names is unknown to it, which is no failure here.
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .output()
        .context("cannot run dpkg-query: the lab is built from Debian packages")?;
    let known = String::from_utf8_lossy(&query.stdout);
    let installed: Vec<&str> = known.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(packages.iter().copied().filter(|package| !installed.contains(package)).collect())
}

fn has_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root() {
        command.arg("apt-get");
    }
    process::run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether files that the lab makes belong to root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|own| own.uid() == 0)
}
