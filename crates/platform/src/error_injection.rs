//! The registers by which a guest injects errors into its own machine.

/// Registers of error injection, one for each action of EINJ (ACPI 6.5, 18.6.1), as GPAs. Each has 64 bits and is accessed as a whole,
/// except for [`parameters`](Self::parameters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorInjection {
    /// BEGIN_INJECTION_OPERATION: the guest writes 1.
    pub begin: u64,
    /// GET_TRIGGER_ERROR_ACTION_TABLE: the guest reads the GPA of the trigger table.
    pub trigger_table: u64,
    /// SET_ERROR_TYPE: the guest writes one bit.
    pub error_type: u64,
    /// GET_ERROR_TYPE: the guest reads the bits of the types that it can inject.
    pub error_types: u64,
    /// END_OPERATION: the guest writes 1.
    pub end: u64,
    /// EXECUTE_OPERATION: the guest writes 1.
    pub execute: u64,
    /// CHECK_BUSY_STATUS: bit 0 is set while an operation is in progress.
    pub busy: u64,
    /// GET_COMMAND_STATUS: the status of the last operation.
    pub status: u64,
    /// SET_ERROR_TYPE_WITH_ADDRESS: the structure of that name, 36 bytes, which the guest accesses in parts of any size.
    pub parameters: u64,
    /// TRIGGER_ERROR: the guest writes 1. The trigger table leads to it, not EINJ.
    pub trigger: u64,
}
