//! The end of a machine: any thread can request it here, and the main thread is woken.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::{MachineControl, ResetCause};
use ras_core::actions::StopReport;
use vcpu::{Control, RunState, VcpuExited};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::journal::{Journal, Note};
use crate::signals::SignalName;
use crate::status::Status;
use crate::timings::{Phase, Timings};

/// Why a machine ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// The guest powered off.
    PoweredOff,
    /// The guest requested a reset.
    Reset(ResetCause),
    /// A vCPU cannot continue.
    Crashed(VcpuExited),
    /// A signal requested a stop.
    Signal(u8),
    /// The console's escape sequence requested a stop.
    Quit,
    /// The response to a memory error is to stop.
    MemoryError(StopReport),
    /// The control socket requested a reset.
    ControlReset,
    /// The control socket requested a stop.
    ControlStop,
}

impl Ending {
    /// Whether the machine can boot again after it.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Ending::Reset(_) | Ending::ControlReset)
    }

    /// The exit status of `ghest`.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Ending::PoweredOff
            | Ending::Reset(_)
            | Ending::Quit
            | Ending::ControlReset
            | Ending::ControlStop => Status::Success,
            Ending::Crashed(_) => Status::GuestCrash,
            Ending::Signal(signal) => Status::Signal(*signal),
            Ending::MemoryError(report) => Status::of_stop(report.reason),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::PoweredOff => write!(f, "the guest switched its machine off"),
            Ending::Reset(cause) => write!(f, "the guest reset its machine by {cause}"),
            Ending::Crashed(VcpuExited { vcpu, reason, registers }) => {
                write!(f, "the guest crashed: vCPU {vcpu}: {reason}; {registers}")
            }
            Ending::Signal(signal) => write!(f, "stopped by signal {}", SignalName(*signal)),
            Ending::MemoryError(report) => write!(f, "stopped: {report}"),
            Ending::Quit => write!(f, "stopped from the console"),
            Ending::ControlReset => write!(f, "reset by the control socket"),
            Ending::ControlStop => write!(f, "stopped by the control socket"),
        }
    }
}

/// Ends the machine. The first ending counts, because those that follow while the machine stops are its consequences. The
/// exception: a stop replaces a reset, so that a machine does not boot again after a stop was requested.
pub struct Lifecycle {
    ending: Mutex<Option<Ending>>,
    wake: EventFd,
    control: Arc<Control>,
    journal: Arc<Journal>,
    timings: Arc<Timings>,
}

impl Lifecycle {
    /// The lifecycle of a machine that runs.
    ///
    /// # Errors
    /// Returns an error if eventfd(2) fails.
    pub fn new(control: Arc<Control>, journal: Arc<Journal>, timings: Arc<Timings>) -> io::Result<Self> {
        Ok(Lifecycle {
            ending: Mutex::new(None),
            wake: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            control,
            journal,
            timings,
        })
    }

    /// Ends the machine. A vCPU that calls this does not enter the guest again.
    pub fn end(&self, ending: Ending) {
        let mut current = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(earlier) if !earlier.is_reset() || ending.is_reset() => {}
            _ => *current = Some(ending),
        }
        drop(current);
        self.control.set(RunState::Stop);
        // Fails only if the counter would overflow.
        let _ = self.wake.write(1);
    }

    /// Why the machine ended. `None` while it runs.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Readable after [`end`](Self::end).
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }
}

impl MachineControl for Lifecycle {
    fn power_off(&self) {
        self.timings.mark(Phase::GuestShutdown);
        self.journal.note(Note::GuestShutdown("power-off"));
        self.end(Ending::PoweredOff);
    }

    fn reset(&self, cause: ResetCause) {
        self.timings.mark(Phase::GuestShutdown);
        self.journal.note(Note::GuestShutdown("reset"));
        self.end(Ending::Reset(cause));
    }
}

/// Devices, vCPU threads, the console and the main thread share it.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Lifecycle>();
    is_send_and_sync::<Ending>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn lifecycle() -> Lifecycle {
        let timings = Arc::new(Timings::start());
        let journal = Arc::new(Journal::start(None, Arc::clone(&timings)).expect("a thread"));
        Lifecycle::new(Arc::new(Control::default()), journal, timings).expect("an eventfd")
    }

    #[test]
    fn the_first_ending_counts() {
        let lifecycle = lifecycle();
        lifecycle.power_off();
        lifecycle.end(Ending::Signal(15));
        assert!(matches!(lifecycle.ending(), Some(Ending::PoweredOff)));
        assert_eq!(lifecycle.control.run_state(), RunState::Stop);
    }

    #[test]
    fn a_stop_replaces_a_reset_and_not_the_reverse() {
        for reset in [Ending::Reset(ResetCause::AcpiRegister), Ending::ControlReset] {
            let lifecycle = lifecycle();
            lifecycle.end(reset.clone());
            lifecycle.end(Ending::Signal(15));
            lifecycle.end(reset);
            assert!(matches!(lifecycle.ending(), Some(Ending::Signal(15))));
        }
    }
}
