//! The registers of a store for error records.

/// Registers of error serialization, one for each action of ERST (ACPI 6.5, 18.5.1.1) but those that begin operations, as GPAs. Each has 64
/// bits and is accessed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSerialization {
    /// BEGIN_WRITE_OPERATION, BEGIN_READ_OPERATION, BEGIN_CLEAR_OPERATION, BEGIN_DUMMY_WRITE_OPERATION: the guest writes the number of the
    /// action.
    pub operation: u64,
    /// END_OPERATION: the guest writes 1.
    pub end: u64,
    /// SET_RECORD_OFFSET.
    pub offset: u64,
    /// EXECUTE_OPERATION: the guest writes 1.
    pub execute: u64,
    /// CHECK_BUSY_STATUS: 1 while an operation is in progress.
    pub busy: u64,
    /// GET_COMMAND_STATUS.
    pub status: u64,
    /// GET_RECORD_IDENTIFIER, SET_RECORD_IDENTIFIER.
    pub record_id: u64,
    /// GET_RECORD_COUNT.
    pub count: u64,
    /// GET_ERROR_LOG_ADDRESS_RANGE.
    pub log_address: u64,
    /// GET_ERROR_LOG_ADDRESS_RANGE_LENGTH.
    pub log_len: u64,
    /// GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES.
    pub log_attributes: u64,
    /// GET_EXECUTE_OPERATION_TIMINGS.
    pub timings: u64,
}
