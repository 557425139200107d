//! Programs of Debian's that hosts can have beside `ghest`, each in a directory of its own with the libraries it was
//! built for: the lab's machine may be another release of Debian than they are from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Follow, Release};
use crate::architecture::Architecture::{self, X86_64};
use crate::bundle::{Bundle, Unpacked};
use crate::cpio::Archive;
use crate::error::{Context, Error, Result};
use crate::process;

/// A program that scenarios name.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name in scenarios and on the host.
    pub(crate) name: &'static str,
    pub(crate) architecture: Architecture,
    package: &'static str,
    /// What the package wants beside it, but the program does not need.
    without: &'static [&'static str],
    /// The executable in the package.
    executable: &'static str,
    /// Files that it reads.
    data: &'static [&'static str],
    /// Arguments that tell it where its files are; `@` stands for its directory.
    arguments: &'static str,
}

const PROGRAMS: &[Program] = &[Program {
    name: "microvm",
    architecture: X86_64,
    package: "qemu-system-x86",
    without: &["ipxe-qemu", "qemu-system-common"],
    executable: "usr/bin/qemu-system-x86_64-microvm",
    data: &[
        "usr/share/seabios/bios-microvm.bin",
        "usr/share/qemu/pvh.bin",
        "usr/share/qemu/linuxboot_dma.bin",
    ],
    arguments: "-L @/usr/share/seabios -L @/usr/share/qemu",
}];

/// The dynamic linker, as packages have it.
const LINKER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Looks a program up.
pub(crate) fn program(architecture: Architecture, name: &str) -> Result<&'static Program> {
    let fits = |program: &&Program| program.name == name && program.architecture == architecture;
    PROGRAMS.iter().find(fits).context(format_args!("no program {name:?} for {architecture} hosts"))
}

impl Program {
    pub(crate) fn bundle(&self) -> Bundle {
        Bundle {
            name: self.name.to_owned(),
            release: Release::Bookworm,
            packages: vec![(self.package, self.architecture, Follow::AllBut(self.without))],
        }
    }

    /// Puts the program into a host: its files under `lab/programs/NAME`, and a command of its name.
    pub(crate) fn add(&self, unpacked: &Unpacked, archive: &mut Archive) -> Result<()> {
        let home = format!("lab/programs/{}", self.name);
        let root = &unpacked.root;
        let mut add = |from: &Path, to: &str| -> Result<()> {
            let content = fs::read(from).context(format_args!("cannot read {}", from.display()))?;
            archive.file(&format!("{home}/{to}"), 0o755, &content)
        };
        add(&root.join(self.executable), self.executable)?;
        add(&root.join(LINKER), LINKER)?;
        for library in self.libraries(root)? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            add(&library, &format!("lib/{name}"))?;
        }
        for file in self.data {
            add(&root.join(file), file)?;
        }
        let arguments = self.arguments.replace('@', &format!("/{home}"));
        let command = format!(
            "#!/lab/busybox sh\nexec /{home}/{LINKER} --library-path /{home}/lib /{home}/{} {arguments} \"$@\"\n",
            self.executable
        );
        archive.file(&format!("lab/bin/{}", self.name), 0o755, command.as_bytes())
    }

    /// The libraries that its dynamic linker would load, none of them this machine's.
    fn libraries(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let root = root.canonicalize().context("cannot find the unpacked program")?;
        let path: Vec<_> = LIBRARIES.iter().map(|part| root.join(part).display().to_string()).collect();
        let mut linker = Command::new(root.join(LINKER));
        linker.arg("--library-path").arg(path.join(":")).arg("--list").arg(root.join(self.executable));
        let listing = process::text(&mut linker)?;
        let paths = listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        // The linker lists itself, as the program wishes to find it.
        let libraries: Vec<PathBuf> = paths.filter(|path| !path.ends_with(LINKER)).collect();
        match libraries.iter().find(|library| !library.starts_with(&root)) {
            Some(library) => Err(Error::new(format!("{}: no package has {}", self.name, library.display()))),
            None => Ok(libraries),
        }
    }
}
