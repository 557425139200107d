//! The registers and the memory by which a guest injects errors into its own machine.

/// Error injection, as GPAs: a register for each action of EINJ (ACPI 6.5, 18.6.1), of 64 bits that are accessed as a whole, and what is in
/// [reserved memory](crate::Platform::with_error_injection). Linux accesses the latter by instructions that KVM on arm64 does not decode
/// if there is no memory (KVM_EXIT_ARM_NISV), such as LDP and STP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorInjection {
    /// BEGIN_INJECTION_OPERATION: the guest writes 1.
    pub begin: u64,
    /// GET_TRIGGER_ERROR_ACTION_TABLE: the guest reads the GPA of the trigger table.
    pub trigger_pointer: u64,
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
    /// TRIGGER_ERROR: the guest writes 1. The trigger table leads to it, not EINJ.
    pub trigger: u64,
    /// In memory: the structure that SET_ERROR_TYPE_WITH_ADDRESS writes, 36 bytes.
    pub parameters: u64,
    /// In memory: the trigger table.
    pub trigger_table: u64,
}
