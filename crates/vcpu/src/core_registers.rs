//! The registers of a vCPU, for a dump of its machine.

/// The registers of a vCPU that a debugger needs. The values of an access that the VMM has not completed yet are not in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreRegisters {
    /// Of an x86_64 vCPU.
    X86_64(X86_64Registers),
    /// Of an aarch64 vCPU.
    Aarch64(Aarch64Registers),
}

/// The registers of an x86_64 vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the processor's manuals")]
pub struct X86_64Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    /// R8 to R15.
    pub r8: [u64; 8],
    pub rip: u64,
    pub rflags: u64,
    pub cs: SegmentRegister,
    pub ds: SegmentRegister,
    pub es: SegmentRegister,
    pub fs: SegmentRegister,
    pub gs: SegmentRegister,
    pub ss: SegmentRegister,
    pub ldtr: SegmentRegister,
    pub tr: SegmentRegister,
    /// Base and limit.
    pub gdtr: (u64, u16),
    /// Base and limit.
    pub idtr: (u64, u16),
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    /// The MSR IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRegister {
    /// The visible part.
    pub selector: u16,
    /// First address.
    pub base: u64,
    /// Last offset, in bytes.
    pub limit: u32,
    /// The attributes, as the second doubleword of a descriptor has them: its bits 8 to 15 and 20 to 23 (Intel SDM volume 3A, 3.4.5).
    pub attributes: u32,
}

/// The registers of an aarch64 vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aarch64Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer that the current exception level uses.
    pub sp: u64,
    /// PC.
    pub pc: u64,
    /// PSTATE.
    pub pstate: u64,
}
