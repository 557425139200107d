//! What the run loop needs of a hypervisor.

use std::io;

use ras_core::actions::{FaultAddress, MachineCheck};
use ras_core::vcpu_state::VcpuState;

use crate::core_registers::CoreRegisters;
use crate::exit::Exit;
use crate::kick::KickFlag;
use crate::poison_access::PoisonAccess;

/// An operation on a vCPU failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A call of the hypervisor failed.
    #[error("{call}: {source}")]
    Call {
        /// The ioctl, for example `KVM_RUN`.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The vCPU's architecture does not have the exception.
    #[error("this architecture has no such exception: {0:?}")]
    NoSuchException(Injection),
}

impl RunError {
    /// Makes one from the errno of an ioctl.
    pub(crate) fn of(call: &'static str) -> impl Fn(vmm_sys_util::errno::Error) -> Self {
        move |error| RunError::Call { call, source: io::Error::from_raw_os_error(error.errno()) }
    }
}

/// An exception that the VMM injects into a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Injection {
    /// x86: an NMI.
    Nmi,
    /// x86: a machine check.
    MachineCheck(MachineCheck),
    /// x86: the machine check of another vCPU, broadcast to this one. It waits while this vCPU handles another one (MCIP), and is
    /// dropped if this vCPU has not enabled machine checks.
    SharedMachineCheck(MachineCheck),
    /// aarch64: a synchronous external abort, taken at the instruction that the PC points to.
    Abort {
        /// ESR_EL1.
        esr: u32,
        /// FAR_EL1.
        far: FaultAddress,
    },
    /// aarch64: an SError, pending while it is masked.
    Serror {
        /// ISS of ESR_EL1, bits 24:0. `None` lets KVM choose.
        syndrome: Option<u32>,
    },
}

/// The result of an injection. Exhaustive: the run loop handles every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// The vCPU takes it at its next entry.
    Done,
    /// The vCPU cannot take it yet. It is to be injected again before a later entry.
    Deferred,
}

/// A vCPU, as the run loop uses it. Its methods are called by the vCPU's own thread, except [`kick_flag`](Self::kick_flag).
pub trait VcpuPort {
    /// Enters the guest and returns at the next exit.
    ///
    /// A kick since the last [`clear_kick`](Self::clear_kick) makes this return [`Exit::Interrupted`] immediately: the access that the
    /// last exit requested is completed first, and no further guest instruction is executed.
    ///
    /// # Errors
    /// Returns an error if the hypervisor cannot run the vCPU.
    fn run(&mut self) -> Result<Exit<'_>, RunError>;

    /// Injects an exception, which the vCPU takes at its next entry.
    ///
    /// # Errors
    /// Returns an error if a call of the hypervisor fails, or the architecture does not have the exception.
    fn inject(&mut self, injection: Injection) -> Result<Injected, RunError>;

    /// The registers that decide how the vCPU is notified of a memory error. `access` is the access to poisoned memory that the vCPU
    /// made, if it made one. `None` if the registers cannot be read.
    fn state(&mut self, access: Option<&PoisonAccess>) -> Option<VcpuState>;

    /// Cancels the access that the last exit requested: the PC points to its instruction again, and the registers are as before it.
    ///
    /// # Errors
    /// Returns an error if a call of the hypervisor fails.
    fn abandon_access(&mut self) -> Result<(), RunError>;

    /// The vCPU is about to continue after a pause of the machine ([`Vcpus::pause`](crate::Vcpus::pause)): its guest is not to take
    /// the time that has passed for a processor that hangs. A port that has no means for that does nothing.
    fn continue_after_pause(&mut self) {}

    /// Clears the kick flag. The caller reads the requested run state afterwards.
    fn clear_kick(&mut self);

    /// A handle to the flag that makes [`run`](Self::run) return; the kick signal sets it. `None` if the port has none: then only the
    /// signal itself interrupts it. Called before the vCPU's thread is started.
    ///
    /// # Errors
    /// Returns an error if the flag cannot be mapped.
    fn kick_flag(&mut self) -> io::Result<Option<KickFlag>>;

    /// The registers for a dump of the machine. Called while the vCPU is paused. `None` if the port has none.
    ///
    /// # Errors
    /// Returns an error if a call of the hypervisor fails.
    fn core_registers(&mut self) -> Result<Option<CoreRegisters>, RunError> {
        Ok(None)
    }

    /// The main registers in one line, for the report of a vCPU that cannot continue.
    fn registers(&mut self) -> String;
}
