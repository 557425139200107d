//! Debian's programs that hosts can have beside `ghest`, and guests beside busybox, each in a directory of its own with the libraries
//! it was built for: the lab's machine may run another release of Debian.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Follow, Release};
use crate::architecture::Architecture::{self, Aarch64, X86_64};
use crate::bundle::{Bundle, Unpacked};
use crate::cpio::Archive;
use crate::error::{Context, Result};
use crate::process;

/// A program that scenarios name.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name in scenarios, on hosts and in guests.
    pub(crate) name: &'static str,
    pub(crate) architecture: Architecture,
    release: Release,
    /// The packages of the program and of its files. A package for all architectures is given with that of the lab's machine.
    packages: &'static [(&'static str, Architecture)],
    /// Dependencies of the packages that the program does not need.
    without: &'static [&'static str],
    /// The executable in the package.
    executable: &'static str,
    /// Files that it reads.
    data: &'static [&'static str],
    /// Arguments with the paths of its files; `@` is replaced by its directory.
    arguments: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "microvm",
        architecture: X86_64,
        release: Release::Bookworm,
        packages: &[("qemu-system-x86", X86_64)],
        without: &["ipxe-qemu", "qemu-system-common"],
        executable: "usr/bin/qemu-system-x86_64-microvm",
        data: &[
            "usr/share/seabios/bios-microvm.bin",
            "usr/share/qemu/pvh.bin",
            "usr/share/qemu/linuxboot_dma.bin",
        ],
        arguments: "-L @/usr/share/seabios -L @/usr/share/qemu",
    },
    // With UEFI firmware, which installs QEMU's error records in the guest.
    Program {
        name: "qemu-virt",
        architecture: Aarch64,
        release: Release::Trixie,
        packages: &[("qemu-system-arm", Aarch64), ("qemu-efi-aarch64", X86_64)],
        without: &["adduser", "qemu-system-common", "qemu-system-data"],
        executable: "usr/bin/qemu-system-aarch64",
        data: &["usr/share/qemu-efi-aarch64/QEMU_EFI.fd"],
        arguments: "-bios @/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    },
    virtiofsd(X86_64, &[("virtiofsd", X86_64)]),
    virtiofsd(Aarch64, &[("virtiofsd", Aarch64)]),
    passt(X86_64, &[("passt", X86_64)]),
    passt(Aarch64, &[("passt", Aarch64)]),
    fio(X86_64, &[("fio", X86_64)]),
    fio(Aarch64, &[("fio", Aarch64)]),
    iperf3(X86_64, &[("iperf3", X86_64)]),
    iperf3(Aarch64, &[("iperf3", Aarch64)]),
    gdb(X86_64, &[("gdb-minimal", X86_64)]),
    gdb(Aarch64, &[("gdb-minimal", Aarch64)]),
    // Its command `ras-mc-ctl` is a Perl script.
    Program {
        without: &["init-system-helpers", "libdbd-sqlite3-perl", "perl", "sqlite3"],
        ..alone("rasdaemon", X86_64, Release::Bookworm, &[("rasdaemon", X86_64)], "usr/sbin/rasdaemon")
    },
    Program {
        without: &["readline-common"],
        ..alone("sqlite3", X86_64, Release::Bookworm, &[("sqlite3", X86_64)], "usr/bin/sqlite3")
    },
    Program {
        without: &["logsave"],
        ..alone("e2fsck", X86_64, Release::Bookworm, &[("e2fsprogs", X86_64)], "sbin/e2fsck")
    },
    Program {
        without: &["logsave"],
        ..alone("e2fsck", Aarch64, Release::Trixie, &[("e2fsprogs", Aarch64)], "usr/sbin/e2fsck")
    },
];

/// The packages of a program of one architecture.
type Packages = &'static [(&'static str, Architecture)];

/// Serves directories by vhost-user.
const fn virtiofsd(architecture: Architecture, packages: Packages) -> Program {
    alone("virtiofsd", architecture, Release::Trixie, packages, "usr/libexec/virtiofsd")
}

/// A network for guests that needs no privilege; `ghest` starts it. That of Debian 12 (0.0~git20230309) sometimes runs in a loop after a
/// connection has ended, and takes no more frames.
const fn passt(architecture: Architecture, packages: Packages) -> Program {
    alone("passt", architecture, Release::Trixie, packages, "usr/bin/passt")
}

/// Writes to disks, and verifies what it has written. Its generator of graphs is a script.
const fn fio(architecture: Architecture, packages: Packages) -> Program {
    Program {
        without: &["adduser", "debconf", "init-system-helpers", "python3"],
        ..alone("fio", architecture, Release::Bookworm, packages, "usr/bin/fio")
    }
}

/// Measures networks.
const fn iperf3(architecture: Architecture, packages: Packages) -> Program {
    Program {
        without: &["adduser", "debconf"],
        ..alone("iperf3", architecture, Release::Bookworm, packages, "usr/bin/iperf3")
    }
}

/// Reads core files.
const fn gdb(architecture: Architecture, packages: Packages) -> Program {
    alone("gdb", architecture, Release::Bookworm, packages, "usr/bin/gdb")
}

/// A program that needs no files beside its libraries.
const fn alone(
    name: &'static str,
    architecture: Architecture,
    release: Release,
    packages: Packages,
    executable: &'static str,
) -> Program {
    Program { name, architecture, release, packages, without: &[], executable, data: &[], arguments: "" }
}

/// The dynamic linker of an architecture.
fn linker(architecture: Architecture) -> &'static str {
    match architecture {
        X86_64 => "ld-linux-x86-64.so.2",
        Aarch64 => "ld-linux-aarch64.so.1",
    }
}

/// The library of that name in the packages: the older releases have some of each directory below `lib`, and Ceph has its own.
fn library(architecture: Architecture, root: &Path, name: &str) -> Option<PathBuf> {
    let triplet = format!("{architecture}-linux-gnu");
    let directories = ["lib/@", "usr/lib/@", "usr/lib/@/ceph", "usr/lib", "usr/lib64"];
    let paths = directories.map(|directory| root.join(directory.replace('@', &triplet)).join(name));
    paths.into_iter().find(|path| path.exists())
}

/// The program with a name.
pub(crate) fn program(architecture: Architecture, name: &str) -> Result<&'static Program> {
    let fits = |program: &&Program| program.name == name && program.architecture == architecture;
    PROGRAMS.iter().find(fits).context(format_args!("unknown program {name:?} for {architecture} hosts"))
}

impl Program {
    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            name: format!("{}-{}", self.name, self.architecture),
            release: self.release,
            packages: self
                .packages
                .iter()
                .map(|(name, architecture)| (*name, *architecture, Follow::AllBut(self.without)))
                .collect(),
        }
    }

    /// Adds the program to a host or a guest: its files under `lab/programs/NAME`, and a command of its name.
    pub(crate) fn add(&self, unpacked: &Unpacked, archive: &mut Archive) -> Result<()> {
        let home = format!("lab/programs/{}", self.name);
        let root = &unpacked.root;
        let linker = linker(self.architecture);
        let mut add = |from: &Path, to: &str| -> Result<()> {
            let content = fs::read(from).context(format_args!("cannot read {}", from.display()))?;
            archive.file(&format!("{home}/{to}"), 0o755, &content)
        };
        add(&root.join(self.executable), self.executable)?;
        let found = library(self.architecture, root, linker);
        let found = found.context(format_args!("{}: no package has {linker}", self.name))?;
        add(&found, linker)?;
        for (name, library) in self.libraries(root)? {
            add(&library, &format!("lib/{name}"))?;
        }
        for file in self.data {
            add(&root.join(file), file)?;
        }
        let arguments = self.arguments.replace('@', &format!("/{home}"));
        let command = format!(
            "#!/bin/sh\nexec /{home}/{linker} --library-path /{home}/lib /{home}/{} {arguments} \"$@\"\n",
            self.executable
        );
        archive.file(&format!("lab/bin/{}", self.name), 0o755, command.as_bytes())
    }

    /// The libraries that its dynamic linker loads, by their sonames; all are from the packages.
    fn libraries(&self, root: &Path) -> Result<BTreeMap<String, PathBuf>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![root.join(self.executable)];
        while let Some(file) = waiting.pop() {
            for name in needed(&process::text(Command::new("readelf").arg("--dynamic").arg(&file))?) {
                if !found.contains_key(name) {
                    let path = library(self.architecture, root, name);
                    let path = path.context(format_args!("{}: no package has {name}", self.name))?;
                    waiting.push(path.clone());
                    found.insert(name.to_owned(), path);
                }
            }
        }
        Ok(found)
    }
}

/// ` 0x0000000000000001 (NEEDED)  Shared library: [libc.so.6]`
fn needed(listing: &str) -> impl Iterator<Item = &str> {
    let needed = listing.lines().filter(|line| line.contains("(NEEDED)"));
    needed.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_libraries_are_read() {
        let listing = "Dynamic section at offset 0x1 contains 2 entries:\n\
                       \x20 Tag        Type                         Name/Value\n\
                       \x20 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]\n\
                       \x20 0x000000000000000e (SONAME)             Library soname: [libx.so.1]\n";
        assert_eq!(needed(listing).collect::<Vec<_>>(), ["libm.so.6"]);
    }
}
