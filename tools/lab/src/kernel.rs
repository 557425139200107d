//! Debian's kernels, and the files of their packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Follow, Release};
use crate::architecture::Architecture::{self, Aarch64, X86_64};
use crate::bundle::{Bundle, Unpacked};
use crate::error::{Context, Error, Result};
use crate::process;

/// A kernel, named by its key in scenarios.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) key: &'static str,
    pub(crate) architecture: Architecture,
    release: Release,
    /// The metapackage that depends on the newest version.
    package: &'static str,
}

/// The kernels for scenarios. The cloud flavour of x86_64 has neither X86_MCE nor MEMORY_FAILURE.
const KERNELS: &[Kernel] = &[
    Kernel { key: "6.1", architecture: X86_64, release: Release::Bookworm, package: "linux-image-amd64" },
    Kernel { key: "6.12", architecture: X86_64, release: Release::Trixie, package: "linux-image-amd64" },
    Kernel {
        key: "7.3",
        architecture: X86_64,
        release: Release::TrixieBackports,
        package: "linux-image-amd64",
    },
    Kernel {
        key: "6.1",
        architecture: Aarch64,
        release: Release::Bookworm,
        package: "linux-image-cloud-arm64",
    },
    // The cloud flavour has no gpio-keys driver, and so no power button in a devicetree.
    Kernel {
        key: "6.1-generic",
        architecture: Aarch64,
        release: Release::Bookworm,
        package: "linux-image-arm64",
    },
    Kernel {
        key: "6.12",
        architecture: Aarch64,
        release: Release::Trixie,
        package: "linux-image-cloud-arm64",
    },
    // Its pages are 16 KiB.
    Kernel {
        key: "6.12-16k",
        architecture: Aarch64,
        release: Release::Trixie,
        package: "linux-image-arm64-16k",
    },
    Kernel {
        key: "7.3",
        architecture: Aarch64,
        release: Release::TrixieBackports,
        package: "linux-image-cloud-arm64",
    },
];

/// The kernel with a key; an error lists the known keys.
pub(crate) fn kernel(architecture: Architecture, key: &str) -> Result<&'static Kernel> {
    let of_architecture = || KERNELS.iter().filter(move |kernel| kernel.architecture == architecture);
    of_architecture().find(|kernel| kernel.key == key).context(format_args!(
        "unknown {architecture} kernel {key:?}; known: {}",
        of_architecture().map(|kernel| kernel.key).collect::<Vec<_>>().join(", ")
    ))
}

impl Kernel {
    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            name: format!("linux-{}-{}", self.key, self.architecture),
            release: self.release,
            // Up to 6.12 one package contains everything; later image and modules are separate.
            packages: vec![(
                self.package,
                self.architecture,
                Follow::Only(&["linux-image-", "linux-binary-", "linux-modules-"]),
            )],
        }
    }
}

/// A kernel's files in the cache.
pub(crate) struct KernelFiles {
    /// The boot image.
    pub(crate) image: PathBuf,
    /// Module files by module name.
    modules: BTreeMap<String, PathBuf>,
    /// Modules that are built into the image; `None` if the package does not list them (from 7 on).
    builtin: Option<BTreeSet<String>>,
}

/// A module: its name and its uncompressed contents.
pub(crate) type Module = (String, Vec<u8>);

impl KernelFiles {
    pub(crate) fn find(unpacked: &Unpacked) -> Result<Self> {
        let mut files = Vec::new();
        walk(&unpacked.root, &mut files)?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = files.iter().find(|path| name(path).starts_with("vmlinuz"));
        let image = image.context(format_args!("no kernel image under {}", unpacked.root.display()))?.clone();
        let builtin = match files.iter().find(|path| name(path) == "modules.builtin") {
            Some(list) => Some(fs::read_to_string(list).context("cannot read modules.builtin")?),
            None => None,
        };
        let builtin =
            builtin.map(|list| list.lines().filter_map(|line| module_name(Path::new(line))).collect());
        let modules = files.into_iter().filter_map(|path| Some((module_name(&path)?, path))).collect();
        Ok(Self { image, modules, builtin })
    }

    /// The named modules and their dependencies, in the order in which they are loaded.
    pub(crate) fn modules(&self, names: &[impl AsRef<str>]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in names {
            self.add_module(&canonical(name.as_ref()), &mut loaded)?;
        }
        Ok(loaded)
    }

    fn add_module(&self, name: &str, loaded: &mut Vec<Module>) -> Result<()> {
        if loaded.iter().any(|(have, _)| have == name) {
            return Ok(());
        }
        let Some(path) = self.modules.get(name) else {
            let known_missing = self.builtin.as_ref().is_some_and(|builtin| !builtin.contains(name));
            return if known_missing {
                Err(Error::new(format!("this kernel has no module {name}")))
            } else {
                Ok(())
            };
        };
        let content = if path.extension().is_some_and(|extension| extension == "xz") {
            process::output(Command::new("xz").arg("--decompress").arg("--stdout").arg(path))?
        } else {
            fs::read(path).context(format_args!("cannot read {}", path.display()))?
        };
        for needed in dependencies(&content) {
            self.add_module(&canonical(&needed), loaded)?;
        }
        loaded.push((name.to_owned(), content));
        Ok(())
    }
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).context(format_args!("cannot list {}", directory.display()))? {
        let entry = entry.context("cannot list a directory")?;
        let kind = entry.file_type().context("cannot get a file's type")?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// `kvm_amd` for `kernel/arch/x86/kvm/kvm-amd.ko.xz`: module names have `_` for `-`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(canonical(stem))
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The `depends=` string of a module's `.modinfo` section, in which strings end with a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_have_one_spelling() {
        assert_eq!(module_name(Path::new("kernel/arch/x86/kvm/kvm-amd.ko.xz")).unwrap(), "kvm_amd");
        assert_eq!(module_name(Path::new("virtio_pci.ko")).unwrap(), "virtio_pci");
        assert_eq!(module_name(Path::new("modules.builtin")), None);
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        assert_eq!(dependencies(b"ELF\0license=GPL\0depends=kvm,ccp\0name=kvm_amd\0"), ["kvm", "ccp"]);
        assert!(dependencies(b"ELF\0depends=\0name=ccp\0").is_empty());
        assert!(dependencies(b"not a module").is_empty());
    }

    #[test]
    fn modules_follow_their_dependencies_and_built_in_ones_are_skipped() {
        let directory = tempfile::tempdir().unwrap();
        for (name, needs) in [("kvm-amd", "kvm"), ("kvm", "irqbypass"), ("irqbypass", "")] {
            let content = format!("\0depends={needs}\0");
            fs::write(directory.path().join(format!("{name}.ko")), content).unwrap();
        }
        fs::write(directory.path().join("modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n").unwrap();
        fs::write(directory.path().join("vmlinuz-6.1"), "").unwrap();
        let unpacked = Unpacked { root: directory.path().to_owned(), packages: Vec::new() };
        let files = KernelFiles::find(&unpacked).unwrap();
        let names = |wanted: &[&str]| -> Result<Vec<String>> {
            Ok(files.modules(wanted)?.into_iter().map(|(name, _)| name).collect())
        };
        assert_eq!(names(&["virtio_pci", "kvm-amd", "kvm"]).unwrap(), ["irqbypass", "kvm", "kvm_amd"]);
        assert!(names(&["virtio_gpu"]).unwrap_err().to_string().contains("no module virtio_gpu"));
    }

    #[test]
    fn the_error_of_an_unknown_kernel_lists_the_known_ones() {
        let error = kernel(X86_64, "5.10").unwrap_err().to_string();
        assert_eq!(error, "unknown x86_64 kernel \"5.10\"; known: 6.1, 6.12, 7.3");
    }
}
