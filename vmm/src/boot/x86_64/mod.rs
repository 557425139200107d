//! x86_64.
//!
//! | GPA | what |
//! |---|---|
//! | 500 | GDT of the boot processor |
//! | 6000 | PVH start info, with its modules and memory map |
//! | 7000 | boot parameters ("zero page") |
//! | 9000 .. f000 | page tables of the 64-bit entry |
//! | 2_0000 | command line |
//! | d_f000 | generation id, after the rest |
//! | e_0000 .. f_fff0 | firmware tables |
//! | f_fff0 | code of the reset vector |
//! | 10_0000 .. | kernel |
//! | end of memory below the hole | initrd |

mod elf;
mod kernel;
mod linux;
mod multiboot;
mod pvh;

use firmware_tables::EntryPoint;
use platform::x86_64::RESET_VECTOR;
use platform::{Chosen, MemoryMap};
pub use vcpu::x86_64::Entry;

pub(super) use kernel::{Kind, load as load_kernel};

use super::{BootError, Target};

/// GPA of the command line.
const COMMAND_LINE: u64 = 0x2_0000;

/// Code at the reset vector, which resets the machine by the keyboard controller as a PC's firmware would. Linux jumps there
/// to reboot a hardware-reduced ACPI machine without EFI.
///
/// ```text
/// b0 fe   mov al, 0xfe
/// e6 64   out 0x64, al
/// f4      hlt
/// eb fd   jmp to the hlt
/// ```
const RESET_CODE: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/// Code that is loaded into the guest's reserved memory, with its GPA.
pub(crate) const RESERVED_CODE: &[(u64, &[u8])] = &[(RESET_VECTOR, &RESET_CODE)];

/// What every boot protocol passes to the kernel.
struct HandOver<'a> {
    target: &'a Target<'a>,
    map: &'a MemoryMap,
    chosen: &'a Chosen,
    /// GPA of the RSDP. `None` if the tables are not ACPI.
    rsdp: Option<u64>,
}

/// No seeds: this VMM writes none of the structures that could carry them (EFI, setup_data). A guest uses RDRAND, if the host's
/// processor has it.
pub(super) fn seeds() -> Result<Chosen, BootError> {
    Ok(Chosen::default())
}

pub(super) fn hand_over(
    target: &Target<'_>,
    map: &MemoryMap,
    chosen: &Chosen,
    entry: EntryPoint,
    kind: Kind,
) -> Result<Entry, BootError> {
    let mut command_line = chosen.command_line.clone().into_bytes();
    command_line.push(0);
    target.put(&command_line, COMMAND_LINE)?;
    target.put(&RESET_CODE, RESET_VECTOR)?;
    let rsdp = match entry {
        EntryPoint::Rsdp { gpa } => Some(gpa),
        _ => None,
    };
    let to = HandOver { target, map, chosen, rsdp };
    match kind {
        Kind::Linux64 { rip, setup_header } => linux::hand_over(&to, rip, setup_header),
        Kind::Pvh { eip } => pvh::hand_over(&to, eip),
    }
}
