//! Why a guest left to the VMM.

/// An exit, with what is needed to answer it. Data is in guest byte order.
#[derive(Debug)]
pub enum Exit<'a> {
    /// The guest reads an I/O port: each `width` bytes of `data` are one read, to be filled.
    PortIn {
        /// The port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: usize,
        /// Room for one access, or for several of a string instruction.
        data: &'a mut [u8],
    },
    /// The guest writes an I/O port: each `width` bytes of `data` are one write.
    PortOut {
        /// The port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: usize,
        /// What is written, by one access or several of a string instruction.
        data: &'a [u8],
    },
    /// The guest reads where no memory is.
    MmioRead {
        /// GPA.
        gpa: u64,
        /// To be filled: 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes where no memory is.
    MmioWrite {
        /// GPA.
        gpa: u64,
        /// What is written: 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A signal ended the run, or the vCPU is not runnable yet: enter again.
    Interrupted,
    /// x86: an exception could not be delivered, nor its double fault: a triple fault.
    Shutdown,
    /// aarch64: PSCI power-off (type 1), reset (2) or a crash (3) that the guest reports itself.
    SystemEvent {
        /// KVM_SYSTEM_EVENT_*.
        kind: u32,
    },
    /// KVM could not resolve a fault on guest memory (KVM_EXIT_MEMORY_FAULT).
    MemoryFault {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// KVM_MEMORY_EXIT_FLAG_*.
        flags: u64,
        /// EFAULT, or EHWPOISON for memory that the host knows to be broken.
        errno: i32,
    },
    /// aarch64: the vCPU took a synchronous external abort of the host's hardware that no host driver claimed
    /// (KVM_EXIT_ARM_SEA).
    ArmSea {
        /// Syndrome of the abort, ESR_EL2.
        esr: u64,
        /// Virtual address that the guest used; only valid where the syndrome's FnV is clear.
        gva: u64,
        /// The GPA behind it, where KVM knows it.
        gpa: Option<u64>,
    },
    /// aarch64: the guest touched an address without memory by an instruction that the hardware does not take apart
    /// (KVM_EXIT_ARM_NISV).
    UndecodedAccess {
        /// GPA.
        gpa: u64,
    },
    /// The processor refused to enter the guest.
    EntryFailed {
        /// The hardware's own code.
        reason: u64,
    },
    /// KVM met an instruction or a state that it cannot handle.
    InternalError {
        /// KVM_INTERNAL_ERROR_*: 1 emulation, 2 simultaneous exceptions, 3 event delivery, 4 unexpected exit.
        suberror: u32,
        /// GPA of the instruction that the vCPU stands at, where it can be known.
        at: Option<u64>,
    },
    /// An exit that this VMM has not asked for.
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
