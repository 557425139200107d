//! How a machine comes to its end: whoever ends it says so here, and the main thread hears it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::{MachineControl, ResetCause};
use ras_core::actions::StopReport;
use vcpu::{Control, Ended, RunState};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::journal::{Journal, Note};
use crate::status::Status;
use crate::timings::{Phase, Timings};

/// Why a machine ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// The guest switched its machine off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset(ResetCause),
    /// A vCPU cannot go on.
    Crashed(Ended),
    /// A signal.
    Signal(u8),
    /// Someone at the console quit.
    Quit,
    /// The profile's answer to a memory error.
    MemoryError(StopReport),
    /// The control socket asked for a reset.
    ControlReset,
    /// The control socket asked for a stop.
    ControlStop,
}

impl Ending {
    /// Whether the machine may start again after it.
    fn is_reset(&self) -> bool {
        matches!(self, Ending::Reset(_) | Ending::ControlReset)
    }

    /// The status that `ghest` ends with.
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
            Ending::Crashed(Ended { vcpu, end, registers }) => {
                write!(f, "the guest crashed: vCPU {vcpu}: {end}; {registers}")
            }
            Ending::Signal(signal) => write!(f, "stopped by signal {}", signal_name(*signal)),
            Ending::MemoryError(account) => write!(f, "stopped: {account}"),
            Ending::Quit => write!(f, "stopped from the console"),
            Ending::ControlReset => write!(f, "reset by the control socket"),
            Ending::ControlStop => write!(f, "stopped by the control socket"),
        }
    }
}

fn signal_name(signal: u8) -> String {
    match i32::from(signal) {
        libc::SIGHUP => "SIGHUP".into(),
        libc::SIGINT => "SIGINT".into(),
        libc::SIGQUIT => "SIGQUIT".into(),
        libc::SIGTERM => "SIGTERM".into(),
        other => other.to_string(),
    }
}

/// Where the end is announced. The first ending counts; those that come while the machine stops are its consequences. But
/// a reset gives way to what ends the machine for good: whoever asked for a stop shall not see it start again.
pub struct Lifecycle {
    ending: Mutex<Option<Ending>>,
    wake: EventFd,
    control: Arc<Control>,
    journal: Arc<Journal>,
    timings: Arc<Timings>,
}

impl Lifecycle {
    /// A machine that goes on.
    ///
    /// # Errors
    /// Where the host gives no eventfd.
    pub fn new(control: Arc<Control>, journal: Arc<Journal>, timings: Arc<Timings>) -> io::Result<Self> {
        Ok(Lifecycle {
            ending: Mutex::new(None),
            wake: EventFd::new(EFD_NONBLOCK)?,
            control,
            journal,
            timings,
        })
    }

    /// Announces an end. The vCPU that calls this does not enter the guest again.
    pub fn end(&self, ending: Ending) {
        let mut announced = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        match &*announced {
            Some(earlier) if !earlier.is_reset() || ending.is_reset() => {}
            _ => *announced = Some(ending),
        }
        drop(announced);
        self.control.set(RunState::Stop);
        // Fails only where nobody has read 2^64 of them.
        let _ = self.wake.write(1);
    }

    /// The end, once there is one.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Readable once an end was announced.
    #[must_use]
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }
}

impl MachineControl for Lifecycle {
    fn power_off(&self) {
        self.timings.mark(Phase::GuestShutdown);
        self.journal.write(Note::GuestShutdown("power-off"));
        self.end(Ending::PoweredOff);
    }

    fn reset(&self, cause: ResetCause) {
        self.timings.mark(Phase::GuestShutdown);
        self.journal.write(Note::GuestShutdown("reset"));
        self.end(Ending::Reset(cause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifecycle() -> Lifecycle {
        let timings = Arc::new(Timings::start());
        let journal = Arc::new(Journal::new(None, Arc::clone(&timings)).expect("no file"));
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
    fn a_stop_is_not_lost_to_a_reset() {
        for reset in [Ending::Reset(ResetCause::AcpiRegister), Ending::ControlReset] {
            let lifecycle = lifecycle();
            lifecycle.end(reset.clone());
            lifecycle.end(Ending::Signal(15));
            lifecycle.end(reset);
            assert!(matches!(lifecycle.ending(), Some(Ending::Signal(15))));
        }
    }
}
