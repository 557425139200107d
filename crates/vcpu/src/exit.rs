//! Exits of a guest to the VMM.

/// An exit, with what is needed to handle it. Data is in guest byte order.
///
/// Exhaustive on purpose, unlike other enums of this crate: a new exit has to be handled, so it has to be a compile error where it is
/// not.
#[derive(Debug)]
pub enum Exit<'a> {
    /// The guest reads an I/O port: each `width` bytes of `data` are one read, to be filled.
    PortIn {
        /// The port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: usize,
        /// Buffer for one access, or for several of a string instruction.
        data: &'a mut [u8],
    },
    /// The guest writes an I/O port: each `width` bytes of `data` are one write.
    PortOut {
        /// The port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: usize,
        /// The bytes of one access, or of several of a string instruction.
        data: &'a [u8],
    },
    /// The guest reads a GPA that no memory slot contains.
    MmioRead {
        /// GPA.
        gpa: u64,
        /// To be filled: 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes a GPA that no memory slot contains.
    MmioWrite {
        /// GPA.
        gpa: u64,
        /// The bytes: 1 to 8.
        data: &'a [u8],
    },
    /// A signal interrupted KVM_RUN, the vCPU is not started yet, or (x86) it accessed an MSR that KVM does not have, which the port has
    /// answered. The vCPU is to be entered again.
    Interrupted,
    /// x86: a triple fault.
    Shutdown,
    /// aarch64: PSCI power-off (kind 1), reset (2), or a crash that the guest reports (3).
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*.
        kind: u32,
    },
    /// KVM_EXIT_MEMORY_FAULT: KVM could not resolve a fault on guest memory.
    MemoryFault {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// KVM_MEMORY_EXIT_FLAG_*.
        flags: u64,
        /// EFAULT, or EHWPOISON for poisoned memory.
        errno: i32,
    },
    /// aarch64: KVM_EXIT_ARM_SEA: the vCPU caused a synchronous external abort of the host's hardware that no host driver claimed.
    ArmSea {
        /// Syndrome of the abort, ESR_EL2.
        esr: u64,
        /// Virtual address that the guest used. Valid if FnV of the syndrome is clear.
        gva: u64,
        /// GPA of the access. `None` if KVM does not know it.
        gpa: Option<u64>,
    },
    /// aarch64: KVM_EXIT_ARM_NISV: the guest accessed a GPA that no memory slot contains, with an instruction that the hardware does not
    /// decode.
    UndecodedAccess {
        /// GPA.
        gpa: u64,
    },
    /// KVM_EXIT_FAIL_ENTRY: the processor refused to enter the guest.
    EntryFailed {
        /// The hardware's reason.
        reason: u64,
    },
    /// KVM_EXIT_INTERNAL_ERROR: an instruction or a state that KVM cannot handle.
    InternalError {
        /// KVM_INTERNAL_ERROR_*: 1 emulation, 2 simultaneous exceptions, 3 event delivery, 4 unexpected exit.
        suberror: u32,
        /// GPA of the instruction at the PC. `None` if it is not known.
        at: Option<u64>,
    },
    /// An exit that this crate has not enabled.
    Unexpected {
        /// KVM_EXIT_*.
        reason: u32,
    },
}

impl Exit<'_> {
    /// A short name, for logs and events.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Exit::PortIn { .. } => "port-in",
            Exit::PortOut { .. } => "port-out",
            Exit::MmioRead { .. } => "mmio-read",
            Exit::MmioWrite { .. } => "mmio-write",
            Exit::Interrupted => "interrupted",
            Exit::Shutdown => "shutdown",
            Exit::SystemEvent { .. } => "system-event",
            Exit::MemoryFault { .. } => "memory-fault",
            Exit::ArmSea { .. } => "arm-sea",
            Exit::UndecodedAccess { .. } => "undecoded-access",
            Exit::EntryFailed { .. } => "entry-failed",
            Exit::InternalError { .. } => "internal-error",
            Exit::Unexpected { .. } => "unexpected",
        }
    }
}
