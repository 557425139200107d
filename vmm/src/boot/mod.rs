//! Putting a kernel and what it needs into guest memory.
//!
//! The order is the same on both architectures: the kernel, above everything that the machine itself keeps; the initrd,
//! as high as it may lie; the tables, which on aarch64 name the other two; what the boot protocol hands over.

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
mod arch;
mod error;
mod initrd;
#[cfg(any(target_arch = "aarch64", test))]
mod packing;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;

use firmware_tables::GuestTables;
use guest_memory::GuestRam;
use machine_profile::{Boot, Kernel};
use platform::{Chosen, Platform, Range};
use vm_memory::GuestMemoryMmap;

pub use arch::Entry;
pub use error::{BootError, ImageError};

use crate::describe::DescribeError;

/// A kernel in guest memory.
struct Loaded<K> {
    /// How it is entered, as far as its file says.
    kind: K,
    /// The first GPA after all memory that it takes before it looks at the memory map.
    end: u64,
    /// The last GPA that its initrd may have.
    initrd_max: u64,
}

/// Puts everything into guest memory and says how to enter it. `describe` builds the tables.
///
/// The kernel is given `command_line`, which may say more than the profile does. `lost` is memory that nothing can be put into:
/// an initrd and an arm64 kernel find another place.
///
/// # Errors
/// Where a file cannot be read, is not what it should be, or does not fit.
pub fn load(
    boot: &Boot,
    command_line: String,
    ram: &GuestRam,
    lost: &[Range],
    platform: &Platform,
    describe: impl FnOnce(&Chosen) -> Result<GuestTables, DescribeError>,
) -> Result<Entry, BootError> {
    let memory = ram.memory();
    let low_end = platform.memory.usable_end();
    let kernel = load_kernel(boot, memory, low_end, lost)?;
    let initrd = match &boot.initrd {
        Some(path) => Some(initrd::load(path, memory, low_end, lost, &kernel)?),
        None => None,
    };
    let chosen = Chosen { command_line, initrd, ..arch::seeds()? };
    let tables = describe(&chosen)?;
    for table in &tables.tables {
        put(ram, &table.bytes, table.gpa)?;
    }
    arch::hand_over(ram, &platform.memory, &chosen, tables.entry, kernel.kind)
}

fn load_kernel(
    boot: &Boot,
    memory: &GuestMemoryMmap,
    low_end: u64,
    lost: &[Range],
) -> Result<Loaded<arch::Kind>, BootError> {
    let (path, outcome) = match &boot.kernel {
        Kernel::BuiltinProbe => {
            let image = Cursor::new(probe_guest::IMAGE);
            ("builtin:probe".to_owned(), arch::load_kernel(image, boot.protocol, memory, low_end, lost))
        }
        Kernel::File(path) => {
            let outcome = open_regular(path)
                .map_err(ImageError::Read)
                .and_then(|file| arch::load_kernel(file, boot.protocol, memory, low_end, lost));
            (path.display().to_string(), outcome)
        }
    };
    outcome.map_err(|error| BootError::Kernel { path, error })
}

/// Opens a file that can be read at any place and ends: not a directory, nor a pipe that would be waited for.
fn open_regular(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("this is not a regular file"));
    }
    File::open(path)
}

/// Writes what this VMM made itself to where it belongs.
fn put(ram: &GuestRam, bytes: &[u8], gpa: u64) -> Result<(), BootError> {
    ram.write(gpa, bytes).map_err(BootError::Fixed)
}

/// Fills `start` from an image's beginning, as far as the image goes, and returns how far that was.
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

/// The error of a file that is no kernel of this architecture.
fn unknown(wanted: &'static str, start: &[u8], len: u64) -> ImageError {
    let start = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    ImageError::Unknown { wanted, len, start }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
