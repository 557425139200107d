//! The state of a vCPU that a response depends on.

/// The state of a vCPU that is to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VcpuState {
    /// 64-bit Arm.
    Aarch64(Consumption),
    /// 64-bit x86.
    X86_64(MachineCheckState),
}

/// How a vCPU of a 64-bit Arm guest accessed poisoned memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consumption {
    /// The exception level that it ran at (PSTATE.M).
    pub level: ExceptionLevel,
    /// The kind of access.
    pub access: Access,
    /// The virtual address, if it is known for this access.
    pub far: Option<u64>,
}

/// An exception level of a guest. 32-bit processes run at EL0 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionLevel {
    /// A process.
    El0,
    /// The kernel.
    El1,
}

/// The kind of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// The machine check state of the vCPUs of an x86 guest. KVM turns an uncorrected machine check into a triple fault if another is in
/// progress or machine checks are disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineCheckState {
    /// MCG_STATUS.MCIP of the vCPU that is notified, or a machine check is pending for its next entry.
    pub in_progress: bool,
    /// Its CR4.MCE is set, and MCG_CTL and the control register of the bank for consumed errors are all ones: otherwise KVM silently
    /// ignores an uncorrected error.
    pub enabled: bool,
    /// Its bank for detected errors (`reporters::machine_check::DETECTED_BANK`) holds one that the guest has not read.
    pub detected_unread: bool,
    /// The guest enabled local machine checks on it (MCG_EXT_CTL.LMCE_EN).
    pub local: bool,
}
