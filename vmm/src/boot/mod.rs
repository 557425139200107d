//! Loads a kernel, its initrd, the tables and the data of the boot protocol into guest memory.
//!
//! The sequence is the same on both architectures: the kernel, above everything that the platform reserves; the initrd, as
//! high as possible; the tables, which on aarch64 refer to both; the data structures of the boot protocol.

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
mod arch;
#[cfg(any(target_arch = "aarch64", test))]
mod compression;
mod error;
mod format;
mod initrd;
mod setup_header;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;

use firmware_tables::GuestTables;
use guest_memory::GuestRam;
use machine_profile::{Boot, Kernel};
use platform::{Arch, Chosen, Platform, Range};
use vm_memory::GuestMemoryMmap;

pub use arch::Entry;
pub(crate) use arch::RESERVED_CODE;
pub use error::{BootError, ImageError};

use self::setup_header::SetupHeader;
use crate::command_line::{CommandLine, CommandLineMax};
use crate::describe::DescribeError;

/// A kernel in guest memory.
struct Loaded<K> {
    /// How it is entered, as far as its file determines that.
    kind: K,
    /// The first GPA after all memory that it uses before it reads the memory map.
    end: u64,
    /// The last GPA that its initrd may use.
    initrd_max: u64,
    /// The longest command line that it takes.
    command_line_max: CommandLineMax,
}

/// Guest memory, for what is written to a fixed place.
pub(crate) struct Target<'a> {
    ram: &'a GuestRam,
    /// Memory that cannot be used.
    poisoned: &'a [Range],
}

impl Target<'_> {
    /// Writes a table or a data structure of the boot protocol to guest memory.
    fn put(&self, bytes: &[u8], gpa: u64) -> Result<(), BootError> {
        let place = Range { start: gpa, len: bytes.len() as u64 };
        if let Some(page) = self.poisoned.iter().find(|page| page.overlaps(place)) {
            return Err(BootError::FixedPoisoned { gpa, page: page.start });
        }
        self.ram.write(gpa, bytes).map_err(BootError::Fixed)
    }
}

/// Loads everything into guest memory and returns how to enter it, and the tables, which `describe` builds.
///
/// The kernel gets `command_line`. `poisoned` is memory that cannot be used: the memory map says so, and a kernel that can be relocated and
/// an initrd are loaded elsewhere.
///
/// # Errors
/// Returns an error if a file cannot be read, has the wrong format, or does not fit.
pub fn load(
    boot: &Boot,
    command_line: CommandLine,
    ram: &GuestRam,
    poisoned: &[Range],
    platform: &Platform,
    describe: impl FnOnce(&Platform, &Chosen) -> Result<GuestTables, DescribeError>,
) -> Result<(Entry, GuestTables), BootError> {
    let memory = ram.memory();
    let low_end = platform.memory.usable_end();
    let kernel = load_kernel(boot, memory, low_end, poisoned)?;
    command_line.check(kernel.command_line_max)?;
    let initrd = match &boot.initrd {
        Some(path) => Some(initrd::load(path, memory, low_end, poisoned, &kernel)?),
        None => None,
    };
    let chosen = Chosen { command_line: command_line.text, initrd, ..arch::seeds()? };
    let platform = platform.clone().with_unusable(poisoned);
    let tables = describe(&platform, &chosen)?;
    let target = Target { ram, poisoned };
    for table in &tables.tables {
        target.put(&table.bytes, table.gpa)?;
    }
    let entry = arch::hand_over(&target, &platform.memory, &chosen, tables.entry, kernel.kind)?;
    Ok((entry, tables))
}

/// Compares a command line with what the kernel takes, as far as its file says that, without loading it.
///
/// # Errors
/// Returns an error if it is too long.
pub fn check_command_line(line: &CommandLine, kernel: &Kernel, arch: Arch) -> Result<(), BootError> {
    Ok(line.check(command_line_max(kernel, arch))?)
}

/// The longest command line that a kernel's file takes, whether it can be booted or not.
fn command_line_max(kernel: &Kernel, arch: Arch) -> CommandLineMax {
    let (Kernel::File(path), Arch::X86_64) = (kernel, arch) else { return CommandLineMax::Linux };
    let mut start = [0; setup_header::END];
    let got = open_regular(path).and_then(|mut file| read_start(&mut file, &mut start));
    match got.ok().and_then(|got| SetupHeader::of(&start[..got])) {
        Some(header) => CommandLineMax::Header(header.command_line_max()),
        None => CommandLineMax::Linux,
    }
}

fn load_kernel(
    boot: &Boot,
    memory: &GuestMemoryMmap,
    low_end: u64,
    poisoned: &[Range],
) -> Result<Loaded<arch::Kind>, BootError> {
    let outcome = match &boot.kernel {
        Kernel::BuiltinProbe => {
            arch::load_kernel(Cursor::new(probe_guest::IMAGE), boot.protocol, memory, low_end, poisoned)
        }
        Kernel::File(path) => open_regular(path)
            .map_err(ImageError::Read)
            .and_then(|file| arch::load_kernel(file, boot.protocol, memory, low_end, poisoned)),
    };
    outcome.map_err(|error| BootError::Kernel { path: boot.kernel.to_string(), error })
}

/// Opens a regular file. Anything else is an error: a pipe would block, a device may not end.
fn open_regular(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)
}

/// Reads the first bytes of an image and returns how many there are: fewer than `start` holds if the image is shorter.
fn read_start(image: &mut (impl Read + Seek), start: &mut [u8]) -> io::Result<usize> {
    image.rewind()?;
    let mut got = 0;
    while got < start.len() {
        match image.read(&mut start[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}
