//! The run loop of a vCPU thread.

use std::time::Duration;

use guest_memory::sigbus;

use crate::control::{Control, RunState};
use crate::environment::VcpuEnvironment;
use crate::exit::Exit;
use crate::exit_reason::VcpuExitReason;
use crate::poison_access::PoisonAccess;
use crate::port::{Injected, RunError, VcpuPort};

/// How often a held vCPU calls [`MemoryErrorHandler::poll`](crate::MemoryErrorHandler::poll).
const HELD_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The value of each byte that is read where no device is mapped.
const UNMAPPED_BYTE: u8 = 0xff;

/// Runs the vCPU of index `vcpu` until [`RunState::Stop`] is requested or it cannot continue.
pub fn run(
    vcpu: u32,
    port: &mut impl VcpuPort,
    environment: &VcpuEnvironment,
    control: &Control,
) -> VcpuExitReason {
    let VcpuEnvironment { memory_errors, observer, .. } = environment;
    let mut progress = Progress::NotEntered;
    let mut notified_pauses = 0;
    loop {
        // The order matters: a kick that arrives after the flag was cleared ends the next entry immediately, and the cause of an earlier
        // one is in the state that is read now.
        port.clear_kick();
        match control.run_state() {
            RunState::Run => {}
            RunState::Pause => {
                let pauses = control.park(vcpu, &mut || port.core_registers());
                // Not of a pause that lasts for a change of memslots: nothing is to delay an error then.
                if std::mem::replace(&mut notified_pauses, pauses) != pauses {
                    port.continue_after_pause();
                }
                continue;
            }
            RunState::Stop => return VcpuExitReason::Stopped,
        }
        if control.is_held(vcpu) {
            control.await_release(vcpu, HELD_POLL_INTERVAL);
            memory_errors.poll();
            continue;
        }
        if progress == Progress::NotEntered {
            observer.vcpu_started(vcpu);
            progress = Progress::Entered;
        }
        memory_errors.pre_entry(vcpu, &mut || port.state(None));
        if let Err(error) = inject_pending(vcpu, port, control) {
            return VcpuExitReason::InjectionFailed(error.to_string());
        }
        let handled = match sigbus::capture_action_required(|| port.run()) {
            Ok(Exit::Interrupted) => Handled::Done,
            Ok(exit) => {
                if progress == Progress::Entered {
                    observer.first_exit(vcpu, exit.name());
                    progress = Progress::Exited;
                }
                handle(exit, environment)
            }
            Err(error) => return VcpuExitReason::RunFailed(error.to_string()),
        };
        let (poison, is_access) = match handled {
            Handled::Done => (None, false),
            Handled::Access => (None, true),
            Handled::Poison(access) => (Some(access), false),
            Handled::Final(reason) => return reason,
        };
        if let Err(error) = report_consumed(vcpu, port, environment, poison, is_access) {
            return VcpuExitReason::RunFailed(error.to_string());
        }
    }
}

/// Injects the exceptions that are pending for a vCPU, in their order, up to one that it cannot take yet.
fn inject_pending(vcpu: u32, port: &mut impl VcpuPort, control: &Control) -> Result<(), RunError> {
    while let Some(injection) = control.take_injection(vcpu) {
        if port.inject(injection)? == Injected::Deferred {
            control.put_back(vcpu, injection);
            break;
        }
    }
    Ok(())
}

/// Whether a vCPU has entered the guest, and exited for other reasons than a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    NotEntered,
    Entered,
    Exited,
}

/// The result of handling an exit.
enum Handled {
    /// The vCPU can enter the guest again.
    Done,
    /// As `Done`, but the exit was an MMIO access, which KVM completes at the next entry.
    Access,
    /// The vCPU accessed poisoned memory.
    Poison(PoisonAccess),
    /// The vCPU cannot continue.
    Final(VcpuExitReason),
}

/// Reports the poisoned memory that the last exit, or a signal during it, named.
fn report_consumed(
    vcpu: u32,
    port: &mut impl VcpuPort,
    environment: &VcpuEnvironment,
    poison: Option<PoisonAccess>,
    is_access: bool,
) -> Result<(), RunError> {
    let mut fault = sigbus::take_fault();
    // An MMIO exit with a fault: `unmapped_access` has raised it, because the address is poisoned memory and not a device.
    if is_access && fault.is_some() {
        port.abandon_access()?;
    }
    let mut report = |access: PoisonAccess| {
        environment.memory_errors.consumed(vcpu, access, &mut || port.state(Some(&access)));
    };
    if let Some(access) = poison {
        report(access);
    }
    while let Some(signalled) = fault {
        report(PoisonAccess::Sigbus(signalled));
        fault = sigbus::take_fault();
    }
    Ok(())
}

/// Handles an exit.
fn handle(exit: Exit<'_>, environment: &VcpuEnvironment) -> Handled {
    let VcpuEnvironment { io, memory_errors, .. } = environment;
    match exit {
        Exit::PortIn { port, width, data } => {
            for access in data.chunks_mut(width.max(1)) {
                if io.port_in(port, access).is_err() {
                    tracing::trace!(port, len = access.len(), "read of an unmapped port");
                    access.fill(UNMAPPED_BYTE);
                }
            }
        }
        Exit::PortOut { port, width, data } => {
            for access in data.chunks(width.max(1)) {
                if io.port_out(port, access).is_err() {
                    tracing::trace!(port, data = ?access, "write to an unmapped port");
                }
            }
        }
        Exit::MmioRead { gpa, data } => {
            if io.mmio_read(gpa, data).is_err() && !memory_errors.unmapped_access(gpa) {
                tracing::debug!(gpa, len = data.len(), "read of an unmapped address");
                data.fill(UNMAPPED_BYTE);
            }
            return Handled::Access;
        }
        Exit::MmioWrite { gpa, data } => {
            if io.mmio_write(gpa, data).is_err() && !memory_errors.unmapped_access(gpa) {
                tracing::debug!(gpa, ?data, "write to an unmapped address");
            }
            return Handled::Access;
        }
        Exit::SystemEvent { kind } => io.system_event(kind),
        Exit::Interrupted => {}
        Exit::MemoryFault { gpa, size, errno: libc::EHWPOISON, .. } => {
            return Handled::Poison(PoisonAccess::MemoryFault { gpa, size });
        }
        Exit::ArmSea { gpa, .. } => return Handled::Poison(PoisonAccess::ArmSea { gpa }),
        Exit::UndecodedAccess { gpa } | Exit::InternalError { at: Some(gpa), .. }
            if memory_errors.unmapped_access(gpa) => {}
        Exit::UndecodedAccess { gpa } => return Handled::Final(VcpuExitReason::UndecodedAccess(gpa)),
        Exit::Shutdown => return Handled::Final(VcpuExitReason::TripleFault),
        Exit::MemoryFault { gpa, size, errno, .. } => {
            return Handled::Final(VcpuExitReason::MemoryFault { gpa, size, errno });
        }
        Exit::EntryFailed { reason } => return Handled::Final(VcpuExitReason::EntryFailed(reason)),
        Exit::InternalError { suberror, .. } => {
            return Handled::Final(VcpuExitReason::InternalError(suberror));
        }
        Exit::Unexpected { reason } => return Handled::Final(VcpuExitReason::UnhandledExit(reason)),
    }
    Handled::Done
}

#[cfg(test)]
mod tests;
