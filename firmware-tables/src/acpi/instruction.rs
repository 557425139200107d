//! Tables whose entries are instructions for an operating system: an action of the table is a sequence of reads and writes of registers.

use ras_core::GenericAddress;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// An instruction entry of EINJ (ACPI 6.5, 18.6.2, "Injection Instruction Entry") and of ERST (18.5.1.2, "Serialization Instruction Entry"),
/// which have one layout.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Instruction {
    action: u8,
    instruction: u8,
    flags: u8,
    reserved: u8,
    register: GenericAddress,
    value: U64,
    mask: U64,
}

const _: () = assert!(size_of::<Instruction>() == 32);

/// Instructions that both tables number alike ("Injection Instructions", "Serialization Instructions").
mod number {
    pub(super) const READ_REGISTER: u8 = 0;
    pub(super) const WRITE_REGISTER: u8 = 2;
    pub(super) const WRITE_REGISTER_VALUE: u8 = 3;
}

impl Instruction {
    /// The result of the action is what the register holds.
    pub(super) const fn read(action: u8, register: GenericAddress) -> Self {
        Instruction::new(action, number::READ_REGISTER, register, 0)
    }

    /// The register is set to the value that the action was given.
    pub(super) const fn write(action: u8, register: GenericAddress) -> Self {
        Instruction::new(action, number::WRITE_REGISTER, register, 0)
    }

    /// The register is set to this value.
    pub(super) const fn write_value(action: u8, register: GenericAddress, value: u64) -> Self {
        Instruction::new(action, number::WRITE_REGISTER_VALUE, register, value)
    }

    /// An instruction for the whole register.
    const fn new(action: u8, instruction: u8, register: GenericAddress, value: u64) -> Self {
        let mask = u64::MAX >> (64 - register.bit_width as u32);
        Instruction {
            action,
            instruction,
            flags: 0,
            reserved: 0,
            register,
            value: U64::new(value),
            mask: U64::new(mask),
        }
    }
}

/// What follows the standard header of a table of instructions: EINJ's injection header (ACPI 6.5, 18.6.1), which has the layout of ERST's
/// serialization header (18.5.1). The entries are behind it.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct TableHeader {
    /// Bytes of both headers: Linux accepts this, and the length of the second one alone.
    header_size: U32,
    flags: u8,
    reserved: [u8; 3],
    entry_count: U32,
}

const _: () = assert!(super::header::LEN as usize + size_of::<TableHeader>() == 48);

/// The body of a table of these instructions.
pub(super) fn body(instructions: &[Instruction]) -> Vec<u8> {
    let header = TableHeader {
        header_size: U32::new(super::header::LEN + size_of::<TableHeader>() as u32),
        flags: 0,
        reserved: [0; 3],
        // The cast is lossless: every list of instructions is an array of a few.
        entry_count: U32::new(instructions.len() as u32),
    };
    [header.as_bytes(), instructions.as_bytes()].concat()
}
