//! Putting a kernel and what it needs into guest memory (x86_64).
//!
//! | GPA | what |
//! |---|---|
//! | 500 | GDT of the boot processor |
//! | 6000 | PVH start info, with its modules and memory map |
//! | 7000 | boot parameters ("zero page") |
//! | 9000 .. f000 | page tables of the 64-bit entry |
//! | 2_0000 | command line |
//! | e_0000 .. 10_0000 | firmware tables |
//! | 10_0000 .. | kernel |
//! | end of memory below the hole | initrd |

mod error;
mod initrd;
mod kernel;
mod linux;
mod pvh;

use firmware_tables::{EntryPoint, GuestTables};
use guest_memory::GuestRam;
use machine_profile::Boot;
use platform::{MemoryMap, Range};
use vcpu::x86_64::Entry;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub use error::{BootError, ImageError};
use kernel::EntryKind;

/// GPA of the command line.
const COMMAND_LINE: u64 = 0x2_0000;

/// What a kernel is handed, whatever the protocol.
struct HandOver<'a> {
    memory: &'a GuestMemoryMmap,
    map: &'a MemoryMap,
    /// Command line, without its final NUL.
    command_line: &'a str,
    initrd: Option<Range>,
    /// GPA of the RSDP; none where the tables are not ACPI's.
    rsdp: Option<u64>,
}

/// Puts everything into guest memory and says how to enter it.
///
/// # Errors
/// Where a file can not be read, is not what it should be, or does not fit.
pub fn load(boot: &Boot, ram: &GuestRam, map: &MemoryMap, tables: &GuestTables) -> Result<Entry, BootError> {
    let memory = ram.memory();
    for table in &tables.tables {
        put(memory, &table.bytes, table.gpa)?;
    }
    let kernel = kernel::load(boot, memory, low_end(map))?;
    let initrd = match &boot.initrd {
        Some(path) => Some(initrd::load(path, memory, low_end(map), &kernel)?),
        None => None,
    };
    let mut command_line = boot.cmdline.clone().into_bytes();
    command_line.push(0);
    put(memory, &command_line, COMMAND_LINE)?;
    let rsdp = match tables.entry {
        EntryPoint::Rsdp { gpa } => Some(gpa),
        EntryPoint::MpFloatingPointer { .. } => None,
    };
    let hand_over = HandOver { memory, map, command_line: &boot.cmdline, initrd, rsdp };
    match kernel.entry {
        EntryKind::Linux64 { rip, setup_header } => linux::hand_over(&hand_over, rip, setup_header),
        EntryKind::Pvh { eip } => pvh::hand_over(&hand_over, eip),
    }
}

/// The end of memory below the hole.
fn low_end(map: &MemoryMap) -> u64 {
    map.ram.first().map_or(0, |low| low.end())
}

/// Writes what this VMM made itself to where it belongs.
fn put(memory: &GuestMemoryMmap, bytes: &[u8], gpa: u64) -> Result<(), BootError> {
    memory
        .write_slice(bytes, GuestAddress(gpa))
        .map_err(|_| BootError::LowMemory { gpa, len: bytes.len() as u64 })
}
