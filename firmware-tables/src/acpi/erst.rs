//! ERST: how the guest keeps error records in a store that outlives it.

use platform::ErrorSerialization;
use ras_core::GenericAddress;

use super::instruction::{self, Instruction};
use super::{AcpiTable, Body, Context, SET, version};
use crate::BuildError;

/// Error Record Serialization Table (ACPI 6.5, 18.5.1), if the machine has the registers.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"ERST", name: "erst", file_name: "erst.aml", body };

/// Serialization actions (ACPI 6.5, 18.5.1.1).
mod action {
    pub(super) const BEGIN_WRITE_OPERATION: u8 = 0;
    pub(super) const BEGIN_READ_OPERATION: u8 = 1;
    pub(super) const BEGIN_CLEAR_OPERATION: u8 = 2;
    pub(super) const END_OPERATION: u8 = 3;
    pub(super) const SET_RECORD_OFFSET: u8 = 4;
    pub(super) const EXECUTE_OPERATION: u8 = 5;
    pub(super) const CHECK_BUSY_STATUS: u8 = 6;
    pub(super) const GET_COMMAND_STATUS: u8 = 7;
    pub(super) const GET_RECORD_IDENTIFIER: u8 = 8;
    pub(super) const SET_RECORD_IDENTIFIER: u8 = 9;
    pub(super) const GET_RECORD_COUNT: u8 = 10;
    pub(super) const BEGIN_DUMMY_WRITE_OPERATION: u8 = 11;
    pub(super) const GET_ERROR_LOG_ADDRESS_RANGE: u8 = 13;
    pub(super) const GET_ERROR_LOG_ADDRESS_RANGE_LENGTH: u8 = 14;
    pub(super) const GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES: u8 = 15;
    pub(super) const GET_EXECUTE_OPERATION_TIMINGS: u8 = 16;
}

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let Some(registers) = &context.platform.error_serialization else { return Ok(None) };
    if context.platform.memory.error_log.is_none() {
        return Err(BuildError::NoErrorLog { set: SET });
    }
    Ok(Some(Body { revision: version::ERST, bytes: instruction::body(&instructions(registers)) }))
}

fn instructions(registers: &ErrorSerialization) -> [Instruction; 16] {
    let register = GenericAddress::quadword;
    let begin =
        |action: u8| Instruction::write_value(action, register(registers.operation), u64::from(action));
    let command = |action, gpa| Instruction::write_value(action, register(gpa), 1);
    let read = |action, gpa| Instruction::read(action, register(gpa));
    let write = |action, gpa| Instruction::write(action, register(gpa));
    [
        begin(action::BEGIN_WRITE_OPERATION),
        begin(action::BEGIN_READ_OPERATION),
        begin(action::BEGIN_CLEAR_OPERATION),
        command(action::END_OPERATION, registers.end),
        write(action::SET_RECORD_OFFSET, registers.offset),
        command(action::EXECUTE_OPERATION, registers.execute),
        read(action::CHECK_BUSY_STATUS, registers.busy),
        read(action::GET_COMMAND_STATUS, registers.status),
        read(action::GET_RECORD_IDENTIFIER, registers.record_id),
        write(action::SET_RECORD_IDENTIFIER, registers.record_id),
        read(action::GET_RECORD_COUNT, registers.count),
        begin(action::BEGIN_DUMMY_WRITE_OPERATION),
        read(action::GET_ERROR_LOG_ADDRESS_RANGE, registers.log_address),
        read(action::GET_ERROR_LOG_ADDRESS_RANGE_LENGTH, registers.log_len),
        read(action::GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES, registers.log_attributes),
        read(action::GET_EXECUTE_OPERATION_TIMINGS, registers.timings),
    ]
}
