//! Sets of packages that the lab needs, each unpacked in a directory of the cache.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apt::{Apt, Follow, Package, Release};
use crate::architecture::Architecture;
use crate::error::{Context, Result};

/// Packages that are fetched and unpacked together.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) name: String,
    pub(crate) release: Release,
    pub(crate) packages: Vec<(&'static str, Architecture, Follow)>,
}

/// A bundle in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    /// The packages' file system tree.
    pub(crate) root: PathBuf,
    /// The packages that were unpacked.
    pub(crate) packages: Vec<Package>,
}

/// Where packages are kept between runs.
pub(crate) struct Cache {
    directory: PathBuf,
    /// Look for newer versions of packages that are in the cache already.
    refresh: bool,
    /// Releases whose lists were updated in this run.
    updated: RefCell<BTreeSet<Release>>,
}

#[derive(Deserialize, Serialize)]
struct Manifest {
    packages: Vec<Package>,
}

/// User space of hosts and guests.
pub(crate) fn busybox(architecture: Architecture) -> Bundle {
    Bundle {
        name: format!("busybox-{architecture}"),
        release: Release::Bookworm,
        packages: vec![("busybox-static", architecture, Follow::Only(&[]))],
    }
}

/// The emulators of hosts of a release of Debian, with the C library that they were built for.
pub(crate) fn emulators(release: Release) -> Bundle {
    // What only an installation needs, and what modules for audio, displays, smart cards and USB need, which the lab does not load.
    const UNUSED: &[&str] = &[
        "adduser",
        "debconf",
        "libasound2",
        "libbrlapi0.8",
        "libcacard0",
        "libepoxy0",
        "libgbm1",
        "libsndio7.0",
        "libspice-server1",
        "libusb-1.0-0",
        "libusbredirparser1",
    ];
    let package = |name| (name, Architecture::X86_64, Follow::AllBut(UNUSED));
    let (name, packages) = match release {
        Release::Bookworm => ("emulators", vec![package("qemu-system-arm"), package("qemu-system-x86")]),
        Release::Trixie => ("emulators-succor", vec![package("qemu-system-x86")]),
        Release::TrixieBackports => {
            ("emulators-records", vec![package("qemu-system-arm"), package("qemu-efi-aarch64")])
        }
    };
    Bundle { name: name.to_owned(), release, packages }
}

/// A Rust compiler with the standard library of both architectures.
///
/// Linker and C library are those of this machine (`cargo lab setup`).
pub(crate) fn rust() -> Bundle {
    Bundle {
        name: "rust".to_owned(),
        release: Release::Bookworm,
        packages: vec![
            ("rustc-web", Architecture::X86_64, Follow::AllBut(&["binutils", "gcc", "libc-dev", "libc6"])),
            ("libstd-rust-web-dev", Architecture::Aarch64, Follow::Only(&[])),
        ],
    }
}

/// Prometheus' checker of metrics, for a test of `ghest`.
pub(crate) fn promtool() -> Bundle {
    Bundle {
        name: "prometheus".to_owned(),
        release: Release::Bookworm,
        packages: vec![("prometheus", Architecture::X86_64, Follow::Only(&[]))],
    }
}

impl Cache {
    pub(crate) fn new(directory: PathBuf, refresh: bool) -> Self {
        Self { directory, refresh, updated: RefCell::default() }
    }

    /// The bundle, fetched if it is not in the cache (or is to be refreshed).
    pub(crate) fn get(&self, bundle: &Bundle) -> Result<Unpacked> {
        let directory = self.directory.join("bundles").join(&bundle.name);
        let cached = read_manifest(&directory);
        if let Some(packages) = cached.as_ref().filter(|_| !self.refresh) {
            return Ok(Unpacked { root: directory.join("root"), packages: packages.clone() });
        }
        let apt = self.apt(bundle.release)?;
        let fetch = || -> Result<Vec<Package>> {
            // Two packages may depend on the same third one.
            let mut packages = BTreeSet::new();
            for (name, architecture, follow) in &bundle.packages {
                packages.extend(apt.resolve(name, *architecture, *follow)?);
            }
            let packages = Vec::from_iter(packages);
            if cached.as_ref() != Some(&packages) {
                self.replace(&apt, bundle, &packages, &directory)?;
            }
            Ok(packages)
        };
        let update = || -> Result<()> {
            if self.updated.borrow_mut().insert(bundle.release) { apt.update() } else { Ok(()) }
        };
        let packages = if self.refresh || !apt.has_lists() {
            update().and_then(|()| fetch())
        } else {
            // Old lists may name a version that a security update has replaced.
            fetch().or_else(|_| update().and_then(|()| fetch()))
        };
        let packages = packages.context(format_args!("cannot fetch {}", bundle.name))?;
        Ok(Unpacked { root: directory.join("root"), packages })
    }

    /// A file of this cache.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether newer versions are looked for.
    pub(crate) fn is_refreshed(&self) -> bool {
        self.refresh
    }

    /// apt for a release, with its directory in this cache.
    pub(crate) fn apt(&self, release: Release) -> Result<Apt> {
        Apt::new(&self.directory, release)
    }

    /// The same for source packages.
    pub(crate) fn sources(&self, release: Release) -> Result<Apt> {
        Apt::of_sources(&self.directory, release)
    }

    fn replace(&self, apt: &Apt, bundle: &Bundle, packages: &[Package], directory: &Path) -> Result<()> {
        let versions: Vec<_> =
            packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
        eprintln!("fetching {}: {}", bundle.name, versions.join(", "));
        let fresh = directory.with_extension("new");
        remove(&fresh)?;
        apt.unpack(packages, &fresh.join("root"))?;
        let manifest = serde_json::to_string_pretty(&Manifest { packages: packages.to_vec() });
        fs::write(fresh.join("packages.json"), manifest.context("cannot write the manifest")?)
            .context("cannot write the manifest")?;
        remove(directory)?;
        fs::rename(&fresh, directory).context(format_args!("cannot put {} in place", directory.display()))
    }
}

fn read_manifest(directory: &Path) -> Option<Vec<Package>> {
    let text = fs::read_to_string(directory.join("packages.json")).ok()?;
    serde_json::from_str::<Manifest>(&text).ok().map(|manifest| manifest.packages)
}

/// Removes a directory that may not exist.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(format_args!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
