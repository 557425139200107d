//! What the run loop needs of a hypervisor.

use std::io;

use ras_core::actions::{FaultAddress, MachineCheck};
use ras_core::vcpu_state::VcpuState;

use crate::exit::Exit;
use crate::run_loop::PoisonAccess;

/// The hypervisor could not run the vCPU at all.
#[derive(Debug, thiserror::Error)]
#[error("the hypervisor cannot run the vCPU: {0}")]
pub struct RunError(#[from] pub io::Error);

/// An exception that a vCPU takes because the VMM says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// x86: an NMI.
    Nmi,
    /// x86: a machine check.
    MachineCheck(MachineCheck),
    /// x86: the machine check of another vCPU, in which this one takes part as soon as it can, if it does at all.
    SharedMachineCheck(MachineCheck),
    /// aarch64: a synchronous external abort, in place of the instruction that the vCPU stands at.
    Abort {
        /// ESR_EL1.
        esr: u32,
        /// FAR_EL1.
        far: FaultAddress,
    },
    /// aarch64: an SError, pending until it is not masked.
    Serror {
        /// ISS of ESR_EL1, bits 24:0; none where KVM is to choose.
        syndrome: Option<u32>,
    },
}

/// What became of an exception that a vCPU is to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// It takes it when it is entered next.
    Done,
    /// It cannot yet: it is to be offered again.
    Deferred,
}

/// A vCPU, as the run loop sees it. Owned and called by the vCPU's own thread.
pub trait VcpuPort {
    /// Enters the guest, until it leaves.
    ///
    /// A kick that came since the last [`clear_kick`](Self::clear_kick) makes this return [`Exit::Interrupted`] at
    /// once: the exit that is being answered is completed first, no guest instruction after it is run.
    ///
    /// # Errors
    /// Where the hypervisor refuses.
    fn run(&mut self) -> Result<Exit<'_>, RunError>;

    /// Makes the vCPU take an exception when it is entered next.
    ///
    /// # Errors
    /// Where the hypervisor refuses, or the architecture has no such exception.
    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError>;

    /// How the vCPU stands towards an error that it is to be told of: `lost` is what it met, where it met something. None
    /// where that cannot be known.
    fn state(&mut self, lost: Option<&PoisonAccess>) -> Option<VcpuState>;

    /// Takes back the access that the last exit asked for: the vCPU stands at the instruction again, as if it had not begun.
    ///
    /// # Errors
    /// Where the hypervisor refuses.
    fn abandon_access(&mut self) -> Result<(), RunError>;

    /// Forgets kicks that have come so far. Whoever calls it looks at what it was kicked for afterwards.
    fn clear_kick(&mut self);

    /// Where the flag is that a kick sets, for a signal handler on this thread; null where the port has none.
    /// Valid for as long as the port lives.
    fn kick_flag(&mut self) -> *mut u8;

    /// One line of the most telling registers, for a person who has to find out why a guest died.
    fn registers(&mut self) -> String;
}
