//! The end of a machine: any thread can request it here, and the main thread is woken.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::{MachineControl, ResetCause};
use machine_profile::OnReboot;
use ras_core::actions::{StopReason, StopReport, Unacknowledged};
use ras_core::{Kind, Severity, Span};
use vcpu::{Control, RunState, VcpuExited};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::journal::Note;
use crate::ras::Reporting;
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
    /// The error budget is spent.
    BudgetSpent {
        /// Distinct pages of 4 KiB that were poisoned.
        pages: u64,
        /// The budget.
        budget: u32,
    },
    /// The control socket requested a reset.
    ControlReset,
    /// The control socket requested a stop.
    ControlStop,
}

impl Ending {
    /// Whether the machine can boot again after it. A memory error that ends a machine resets a physical one: a stop because of an error
    /// counts as a reset of the guest, and so does a crash, if there was an error.
    fn may_boot_again(&self, on_reboot: OnReboot) -> bool {
        let is_restart = on_reboot == OnReboot::Restart;
        match self {
            Ending::ControlReset => true,
            Ending::Reset(_) | Ending::Crashed(_) => is_restart,
            // Another boot meets the same.
            Ending::MemoryError(report) => {
                is_restart && !matches!(report.reason, StopReason::OwnMemory | StopReason::CannotRestart)
            }
            _ => false,
        }
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
            Ending::BudgetSpent { .. } => Status::BUDGET,
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
            Ending::BudgetSpent { pages, budget } => write!(
                f,
                "stopped: {pages} distinct pages of 4 KiB were poisoned, and the error budget is {budget}: start the machine on another host"
            ),
            Ending::Quit => write!(f, "stopped from the console"),
            Ending::ControlReset => write!(f, "reset by the control socket"),
            Ending::ControlStop => write!(f, "stopped by the control socket"),
        }
    }
}

/// How a machine has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Why.
    pub ending: Ending,
    /// What the guest had not acknowledged, or was fatal, when it was reset or crashed: it may have died of that.
    pub after_error: Option<Unacknowledged>,
}

impl Ended {
    /// The end of a guest whose vCPUs have stopped, which is noted.
    pub(crate) fn note(ending: Ending, reporting: &Reporting) -> Self {
        let is_death = matches!(ending, Ending::Reset(_) | Ending::Crashed(_) | Ending::ControlReset);
        let after_error = if is_death { reporting.unacknowledged() } else { None };
        if after_error.is_some() {
            reporting.died_after_error();
        }
        let how = match ending {
            Ending::PoweredOff => Some("power-off"),
            Ending::Reset(_) => Some("reset"),
            Ending::Crashed(_) => Some("crash"),
            // The operator's answer to a guest that hangs after an error.
            Ending::ControlReset if after_error.is_some() => Some("reset"),
            _ => None,
        };
        if let Some(how) = how {
            reporting.journal().note(Note::GuestShutdown { how, after_error });
        }
        Ended { ending, after_error }
    }

    /// Whether the machine boots again.
    #[must_use]
    pub fn boots_again(&self, on_reboot: OnReboot) -> bool {
        let is_without_error = matches!(self.ending, Ending::Crashed(_)) && self.after_error.is_none();
        self.ending.may_boot_again(on_reboot) && !is_without_error
    }

    /// The error in guest memory that the next boot should hear of: the pages, whether they were consumed, and how severe it was. One that
    /// ended the machine, or that the guest consumed and did not live to acknowledge, was fatal, whatever it was reported as.
    #[must_use]
    pub fn error(&self) -> Option<(Span, Kind, Severity)> {
        if let Ending::MemoryError(StopReport { error: Some(error), .. }) = &self.ending {
            return Some((error.span, error.kind, Severity::Fatal));
        }
        let Unacknowledged { span, severity, consumed_by, .. } = self.after_error?;
        Some(match consumed_by {
            Some(_) => (span, Kind::ActionRequired, Severity::Fatal),
            None => (span, Kind::ActionOptional, severity),
        })
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ending.fmt(f)?;
        let Some(Unacknowledged { span, severity, consumed_by, .. }) = self.after_error else {
            return Ok(());
        };
        match severity {
            Severity::Fatal => write!(f, "; a fatal memory error was reported to the guest: {span}")?,
            _ => write!(f, "; the guest had not acknowledged a memory error: {span}")?,
        }
        match consumed_by {
            Some(vcpu) => write!(f, ", consumed by vCPU {vcpu}"),
            None => Ok(()),
        }
    }
}

/// Ends the machine. The first ending counts, because those that follow while the machine stops are its consequences. The
/// exception: a stop replaces an ending after which the machine can boot again, so that it does not do so after a stop was requested.
pub struct Lifecycle {
    ending: Mutex<Option<Ending>>,
    wake: EventFd,
    control: Arc<Control>,
    timings: Arc<Timings>,
    on_reboot: OnReboot,
}

impl Lifecycle {
    /// The lifecycle of a machine that runs.
    ///
    /// # Errors
    /// Returns an error if eventfd(2) fails.
    pub fn new(control: Arc<Control>, timings: Arc<Timings>, on_reboot: OnReboot) -> io::Result<Self> {
        Ok(Lifecycle {
            ending: Mutex::new(None),
            wake: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            control,
            timings,
            on_reboot,
        })
    }

    /// Ends the machine. A vCPU that calls this does not enter the guest again.
    pub fn end(&self, ending: Ending) {
        let mut current = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(earlier)
                if !earlier.may_boot_again(self.on_reboot) || ending.may_boot_again(self.on_reboot) => {}
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
        self.end(Ending::PoweredOff);
    }

    fn reset(&self, cause: ResetCause) {
        self.timings.mark(Phase::GuestShutdown);
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
        Lifecycle::new(Arc::new(Control::default()), timings, OnReboot::Restart).expect("an eventfd")
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
        let stop = |reason| Ending::MemoryError(StopReport { reason, error: None });
        for reset in
            [Ending::Reset(ResetCause::AcpiRegister), Ending::ControlReset, stop(StopReason::Planned)]
        {
            let lifecycle = lifecycle();
            lifecycle.end(reset.clone());
            lifecycle.end(Ending::Signal(15));
            lifecycle.end(reset);
            assert!(matches!(lifecycle.ending(), Some(Ending::Signal(15))));
        }
        let lifecycle = lifecycle();
        lifecycle.end(stop(StopReason::OwnMemory));
        lifecycle.end(Ending::Signal(15));
        assert!(matches!(lifecycle.ending(), Some(Ending::MemoryError(_))));
    }
}
