//! Emulators that are built from Debian's source of QEMU with a patch: once, into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundle::Cache;
use crate::error::{Context, Result};
use crate::host::Host;
use crate::{process, setup};

/// What the build needs.
const PACKAGES: &[&str] = &[
    "dpkg-dev",
    "g++",
    "libc6-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "libpixman-1-dev",
    "meson",
    "ninja-build",
    "patch",
    "pkg-config",
    "python3",
    "zlib1g-dev",
];

/// The devices of the lab's hosts, and what QEMU does not link without. All that it has would take three times as long.
const DEVICES: &str = "\
CONFIG_ARM_COMPATIBLE_SEMIHOSTING=y
CONFIG_ARM_GICV3_TCG=y
CONFIG_ARM_V7M=y
CONFIG_ARM_VIRT=y
CONFIG_SEMIHOSTING=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_SERIAL=y
";

/// The emulator of a host with a patch of its source.
pub(super) fn emulator(cache: &Cache, host: &Host, patch: &str) -> Result<PathBuf> {
    let home = cache.path("emulators-patched");
    let program = home.join(host.emulator);
    // With another patch it is another emulator.
    let built_with = home.join(format!("{}.patch", host.emulator));
    if !program.exists() || fs::read_to_string(&built_with).ok().as_deref() != Some(patch) {
        setup::install(PACKAGES)?;
        fs::create_dir_all(&home).context(format_args!("cannot create {}", home.display()))?;
        eprintln!("building {} with a patch, which takes some minutes", host.emulator);
        let built = build(cache, host, patch, &home);
        fs::rename(built.context(format_args!("cannot build {}", host.emulator))?, &program)
            .context(format_args!("cannot put {} in place", program.display()))?;
        fs::write(built_with, patch).context("cannot write the emulator's patch")?;
    }
    program.canonicalize().context("cannot find the emulator")
}

/// Builds the program in a temporary directory; returns its path in `home`.
fn build(cache: &Cache, host: &Host, patch: &str, home: &Path) -> Result<PathBuf> {
    let directory = tempfile::tempdir_in(home).context("cannot create a directory for the source")?;
    let source = cache.sources(host.release)?.unpack_source("qemu", directory.path())?;
    let patch_file = directory.path().join("lab.patch");
    fs::write(&patch_file, patch).context("cannot write the patch")?;
    process::output(Command::new("patch").args(["-p1", "-i"]).arg(&patch_file).current_dir(&source))?;

    let target = format!("{}-softmmu", host.architecture);
    let devices = source.join("configs/devices").join(&target).join("lab.mak");
    fs::write(devices, DEVICES).context("cannot write the list of devices")?;
    let mut configure = Command::new("./configure");
    configure.args([
        "--without-default-features",
        "--without-default-devices",
        "--enable-tcg",
        "--enable-fdt=system",
    ]);
    configure.args(["--enable-system", "--disable-docs", "--disable-werror", "--with-pkgversion=patched"]);
    configure.arg(format!("--target-list={target}")).arg(format!("--with-devices-{}=lab", host.architecture));
    process::output(configure.current_dir(&source))?;
    process::output(Command::new("ninja").args(["-C", "build", host.emulator]).current_dir(&source))?;
    let program = home.join(format!("{}.new", host.emulator));
    process::output(
        Command::new("strip").arg("-o").arg(&program).arg(source.join("build").join(host.emulator)),
    )?;
    Ok(program)
}
