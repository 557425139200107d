//! EINJ: how the guest injects errors into its own machine, and the trigger table, to which EINJ leads.

use platform::{ErrorInjection, Platform};
use ras_core::GenericAddress;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::instruction::{self, Instruction};
use super::{AcpiTable, Body, Context, version};
use crate::{BuildError, Table};

/// Error Injection Table (ACPI 6.5, 18.6.1), if the machine has the registers.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"EINJ", name: "einj", file_name: "einj.aml", body };

/// Error injection actions (ACPI 6.5, 18.6.1).
mod action {
    pub(super) const BEGIN_INJECTION_OPERATION: u8 = 0;
    pub(super) const GET_TRIGGER_ERROR_ACTION_TABLE: u8 = 1;
    pub(super) const SET_ERROR_TYPE: u8 = 2;
    pub(super) const GET_ERROR_TYPE: u8 = 3;
    pub(super) const END_OPERATION: u8 = 4;
    pub(super) const EXECUTE_OPERATION: u8 = 5;
    pub(super) const CHECK_BUSY_STATUS: u8 = 6;
    pub(super) const GET_COMMAND_STATUS: u8 = 7;
    pub(super) const SET_ERROR_TYPE_WITH_ADDRESS: u8 = 8;
    pub(super) const TRIGGER_ERROR: u8 = 0xff;
}

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    Ok(context.platform.error_injection.map(|registers| {
        let bytes = instruction::body(&instructions(&registers));
        Body { revision: version::EINJ, bytes }
    }))
}

fn instructions(registers: &ErrorInjection) -> [Instruction; 9] {
    use GenericAddress as Register;
    let command = |action, gpa| Instruction::write_value(action, Register::quadword(gpa), 1);
    let read = |action, gpa| Instruction::read(action, Register::quadword(gpa));
    [
        command(action::BEGIN_INJECTION_OPERATION, registers.begin),
        read(action::GET_TRIGGER_ERROR_ACTION_TABLE, registers.trigger_pointer),
        Instruction::write(action::SET_ERROR_TYPE, Register::quadword(registers.error_type)),
        read(action::GET_ERROR_TYPE, registers.error_types),
        command(action::END_OPERATION, registers.end),
        command(action::EXECUTE_OPERATION, registers.execute),
        read(action::CHECK_BUSY_STATUS, registers.busy),
        read(action::GET_COMMAND_STATUS, registers.status),
        // The first field of the structure, which is the type. Linux takes the structure's address from it.
        Instruction::write(action::SET_ERROR_TYPE_WITH_ADDRESS, Register::doubleword(registers.parameters)),
    ]
}

/// The trigger table (ACPI 6.5, 18.6, "Trigger Error Action"), if the machine has error injection. It writes one register.
pub(super) fn trigger_table(platform: &Platform) -> Option<Table> {
    let registers = platform.error_injection.as_ref()?;
    let trigger =
        Instruction::write_value(action::TRIGGER_ERROR, GenericAddress::quadword(registers.trigger), 1);
    let header_size = size_of::<TriggerHeader>() as u32;
    let header = TriggerHeader {
        header_size: U32::new(header_size),
        revision: U32::new(TRIGGER_REVISION),
        table_size: U32::new(header_size + size_of::<Instruction>() as u32),
        entry_count: U32::new(1),
    };
    Some(Table {
        name: "einj-trigger",
        file_name: "einj-trigger.bin",
        gpa: registers.trigger_table,
        bytes: [header.as_bytes(), trigger.as_bytes()].concat(),
    })
}

/// The specification leaves the revision open.
const TRIGGER_REVISION: u32 = 1;

/// The header of a trigger table (ACPI 6.5, 18.6, "Trigger Error Action").
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct TriggerHeader {
    header_size: U32,
    revision: U32,
    table_size: U32,
    entry_count: U32,
}

const _: () = assert!(size_of::<TriggerHeader>() == 16);
