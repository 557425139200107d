//! The loop that every vCPU thread runs.

use std::time::Duration;

use guest_memory::{GuestRam, sigbus};
use ras_core::Span;
use ras_core::vcpu_state::VcpuState;

use crate::control::{Control, RunState};
use crate::exit::Exit;
use crate::port::{Injected, RunError, VcpuPort};

/// What answers a guest's accesses to ports and to addresses without memory. Shared by all vCPUs.
pub trait Bus: Send + Sync {
    /// Fills `data` (1, 2 or 4 bytes) from a port; all ones where nothing listens.
    fn port_in(&self, port: u16, data: &mut [u8]);
    /// Takes `data` (1, 2 or 4 bytes) to a port; nothing where nothing listens.
    fn port_out(&self, port: u16, data: &[u8]);
    /// Fills `data` (1 to 8 bytes) from an address; all ones where nothing listens.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// Takes `data` (1 to 8 bytes) to an address; nothing where nothing listens.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
    /// The guest touched `gpa`, where no memory is, by an instruction that KVM cannot take apart, or fetched one from there.
    /// True where it is to stand at that instruction again; false where it cannot go on.
    fn undecoded_access(&self, gpa: u64) -> bool {
        let _ = gpa;
        false
    }
    /// A vCPU met memory that the host lost, standing as `state` says if it is asked. What it is to take for it, or that it is
    /// held, was left with the [`Control`] when this returns.
    fn memory_error(&self, vcpu: u32, lost: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>) {
        let _ = (vcpu, lost, state);
    }
    /// A vCPU is about to enter the guest: whoever has to know how it stands asks now, and leaves what it is to take with the
    /// [`Control`]. Called at every entry.
    fn ask(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        let _ = (vcpu, state);
    }
    /// What [`memory_error`](Self::memory_error) left for the vCPU was carried out: there is time now to write it down. Called at
    /// every entry.
    fn flush(&self) {}
    /// A vCPU is held: whether there is still a reason to can be looked at.
    fn attend(&self) {}
    /// aarch64: the guest asked for power-off, reset or reports a crash. The wish is looked at afterwards.
    fn system_event(&self, kind: u32) {
        let _ = kind;
    }
    /// A vCPU is about to enter the guest for the first time.
    fn vcpu_started(&self, vcpu: u32) {
        let _ = vcpu;
    }
    /// The first exit of a vCPU that was the guest's own doing, before it is answered.
    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        let _ = (vcpu, exit);
    }
}

/// Memory that the host lost, as a vCPU met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonAccess {
    /// A signal named it by its address in this process.
    Signalled(sigbus::Fault),
    /// KVM named it by its guest address (KVM_EXIT_MEMORY_FAULT with EHWPOISON).
    Named {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
    },
    /// The hardware's own abort came through (KVM_EXIT_ARM_SEA): the host has not taken the page out of use.
    Unclaimed {
        /// The GPA that was touched, where KVM knows it.
        gpa: Option<u64>,
    },
}

impl PoisonAccess {
    /// The guest's memory that was lost; none where it is not the guest's, or where nobody knows.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "x86_64 asks for no address"))]
    pub(crate) fn span(&self, ram: &GuestRam) -> Option<Span> {
        let log2 = |bytes: u64| (u64::BITS - bytes.saturating_sub(1).leading_zeros()) as u8;
        match *self {
            PoisonAccess::Signalled(fault) => {
                Some(Span::around(ram.guest_address(fault.hva)?, fault.log2_len))
            }
            PoisonAccess::Named { gpa, size } => Some(Span::around(gpa, log2(size))),
            PoisonAccess::Unclaimed { gpa } => Some(Span::around(gpa?, log2(ram.backing().page_size()))),
        }
    }
}

/// Why a vCPU left its run loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// x86: a triple fault.
    TripleFault,
    /// KVM could not resolve a fault on guest memory.
    MemoryFault {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        size: u64,
        /// EFAULT or EHWPOISON.
        errno: i32,
    },
    /// The processor refused to enter the guest, with its own code.
    EntryFailed(u64),
    /// KVM met what it cannot handle, with KVM's suberror.
    InternalError(u32),
    /// An instruction that cannot be taken apart touched this GPA, where no memory is.
    UndecodedAccess(u64),
    /// An exit that nobody handles, with KVM's number for it.
    UnhandledExit(u32),
    /// KVM_RUN itself failed.
    RunFailed(String),
    /// An exception that the guest must take cannot be injected.
    NotInjected(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Stopped => write!(f, "stopped"),
            End::TripleFault => write!(f, "triple fault"),
            End::MemoryFault { gpa, size, errno } => {
                write!(f, "fault on {size} bytes of guest memory at {gpa:#x} (errno {errno})")
            }
            End::EntryFailed(reason) => {
                write!(f, "the processor refused to enter the guest (reason {reason:#x})")
            }
            End::InternalError(suberror) => {
                let what = match suberror {
                    1 => "an instruction it cannot emulate",
                    2 => "simultaneous exceptions",
                    3 => "an event it cannot deliver",
                    4 => "an unexpected hardware exit",
                    _ => "an internal error",
                };
                write!(f, "KVM met {what} (suberror {suberror})")
            }
            End::UndecodedAccess(gpa) => {
                write!(f, "an instruction that KVM cannot take apart touched {gpa:#x}, where no memory is")
            }
            End::UnhandledExit(reason) => write!(f, "unhandled exit {reason}"),
            End::RunFailed(error) => f.write_str(error),
            End::NotInjected(error) => write!(f, "an exception cannot be injected: {error}"),
        }
    }
}

/// How often a held vCPU looks whether it still has to be.
const ATTENTION: Duration = Duration::from_millis(1);

/// Runs the vCPU of index `vcpu` until it is told to stop, or cannot go on.
pub fn run(vcpu: u32, port: &mut impl VcpuPort, bus: &dyn Bus, control: &Control) -> End {
    let mut progress = Progress::Fresh;
    loop {
        // The order matters: a kick that comes after the flag was cleared ends the next entry at once, and one that
        // came before has its reason in the wish that is read now.
        port.clear_kick();
        match control.run_state() {
            RunState::Run => {}
            RunState::Pause => {
                control.park();
                continue;
            }
            RunState::Stop => return End::Stopped,
        }
        if control.is_held(vcpu) {
            bus.flush();
            control.await_release(vcpu, ATTENTION);
            bus.attend();
            continue;
        }
        if progress == Progress::Fresh {
            bus.vcpu_started(vcpu);
            progress = Progress::Entered;
        }
        bus.ask(vcpu, &mut || port.state(None));
        let mut later = None;
        while let Some(injection) = control.take_injection(vcpu) {
            match port.inject(injection) {
                Ok(Injected::Done) => {}
                // What comes behind it waits with it.
                Ok(Injected::Deferred) => {
                    later = Some(injection);
                    break;
                }
                Err(error) => return End::NotInjected(error.0.to_string()),
            }
        }
        if let Some(injection) = later {
            control.put_back(vcpu, injection);
        }
        bus.flush();
        let answered = match sigbus::capture_action_required(|| port.run()) {
            Ok(Exit::Interrupted) => Answered::Done,
            Ok(exit) => {
                if progress == Progress::Entered {
                    bus.first_exit(vcpu, exit.name());
                    progress = Progress::Exited;
                }
                answer(exit, bus)
            }
            Err(error) => return End::RunFailed(error.to_string()),
        };
        let met = match answered {
            Answered::Done | Answered::Access => None,
            Answered::Lost(lost) => Some(lost),
            Answered::End(end) => return end,
        };
        let is_access = matches!(answered, Answered::Access);
        if let Err(error) = tell_of_losses(vcpu, port, bus, met, is_access) {
            return End::RunFailed(error.to_string());
        }
    }
}

/// What became of an exit.
enum Answered {
    /// It was answered.
    Done,
    /// It was an access to an address without memory, which was answered. It is not complete before the next entry.
    Access,
    /// The guest cannot go on without memory that was lost.
    Lost(PoisonAccess),
    /// It was the last.
    End(End),
}

/// Tells of the memory that the last exit, or a signal that came with it, found lost.
fn tell_of_losses(
    vcpu: u32,
    port: &mut impl VcpuPort,
    bus: &dyn Bus,
    met: Option<PoisonAccess>,
    is_access: bool,
) -> Result<(), RunError> {
    let mut signalled = sigbus::take_fault();
    // An access is only made where memory was left out on purpose, so that whoever answered it raised the signal.
    if is_access && signalled.is_some() {
        port.abandon_access()?;
    }
    if let Some(lost) = met {
        bus.memory_error(vcpu, lost, &mut || port.state(Some(&lost)));
    }
    while let Some(fault) = signalled {
        let lost = PoisonAccess::Signalled(fault);
        bus.memory_error(vcpu, lost, &mut || port.state(Some(&lost)));
        signalled = sigbus::take_fault();
    }
    Ok(())
}

/// How far a vCPU has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Fresh,
    Entered,
    Exited,
}

/// Answers an exit.
fn answer(exit: Exit<'_>, bus: &dyn Bus) -> Answered {
    match exit {
        Exit::PortIn { port, width, data } => {
            data.chunks_mut(width.max(1)).for_each(|access| bus.port_in(port, access));
        }
        Exit::PortOut { port, width, data } => {
            data.chunks(width.max(1)).for_each(|access| bus.port_out(port, access));
        }
        Exit::MmioRead { gpa, data } => {
            bus.mmio_read(gpa, data);
            return Answered::Access;
        }
        Exit::MmioWrite { gpa, data } => {
            bus.mmio_write(gpa, data);
            return Answered::Access;
        }
        Exit::SystemEvent { kind } => bus.system_event(kind),
        Exit::Interrupted => {}
        Exit::MemoryFault { gpa, size, errno: libc::EHWPOISON, .. } => {
            return Answered::Lost(PoisonAccess::Named { gpa, size });
        }
        Exit::ArmSea { gpa, .. } => return Answered::Lost(PoisonAccess::Unclaimed { gpa }),
        Exit::UndecodedAccess { gpa } | Exit::InternalError { at: Some(gpa), .. }
            if bus.undecoded_access(gpa) => {}
        Exit::UndecodedAccess { gpa } => return Answered::End(End::UndecodedAccess(gpa)),
        Exit::Shutdown => return Answered::End(End::TripleFault),
        Exit::MemoryFault { gpa, size, errno, .. } => {
            return Answered::End(End::MemoryFault { gpa, size, errno });
        }
        Exit::EntryFailed { reason } => return Answered::End(End::EntryFailed(reason)),
        Exit::InternalError { suberror, .. } => return Answered::End(End::InternalError(suberror)),
        Exit::Unexpected { reason } => return Answered::End(End::UnhandledExit(reason)),
    }
    Answered::Done
}

#[cfg(test)]
mod tests;
