//! What must be known of a vCPU to tell it of an error.

/// How a vCPU stands when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VcpuState {
    /// 64-bit Arm.
    Aarch64(Consumption),
    /// 64-bit x86.
    X86_64(MachineCheckState),
}

/// How a vCPU of a 64-bit Arm guest consumed poisoned memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consumption {
    /// Where it ran (PSTATE.M).
    pub level: ExceptionLevel,
    /// What it did.
    pub access: Access,
    /// The virtual address that it used, if that is known for this very access.
    pub far: Option<u64>,
}

/// An exception level of a guest. 32-bit programs run at EL0 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionLevel {
    /// A program.
    El0,
    /// Its kernel.
    El1,
}

/// A use of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It was read.
    Read,
    /// It was written.
    Write,
    /// An instruction was fetched.
    Fetch,
}

/// How the vCPUs of an x86 guest stand towards machine checks. KVM answers an uncorrected one with a triple fault where the last is in
/// progress or they are switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineCheckState {
    /// MCG_STATUS.MCIP of the vCPU that is told, or a machine check waits for it to be entered.
    pub in_progress: bool,
    /// Its CR4.MCE is set, and MCG_CTL and the control register of the bank for consumed errors are all ones: KVM ignores an
    /// uncorrected error silently where they are not.
    pub enabled: bool,
    /// Its bank for found errors ([`DETECTED_BANK`](crate::reporters::machine_check::DETECTED_BANK)) holds one that the guest has not read.
    pub detected_unread: bool,
    /// The guest switched local machine checks on there (MCG_EXT_CTL.LMCE_EN).
    pub local: bool,
    /// Every other vCPU that the guest has started has MCIP clear and CR4.MCE set: all may take one together. One that was never started
    /// has CR4.MCE clear, takes no part, and nobody waits for it.
    pub others_ready: bool,
}
