//! What outlasts a reset of the machine: its memory, what is known to be lost of it, and who hears of losses.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use devices::PoisonObserver;
use guest_memory::sigbus::AoListener;
use guest_memory::{Backing, GuestRam};
use machine_profile::{Backing as BackingKind, Machine};
use platform::Range;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{MachineError, no};
use crate::journal::Journal;
use crate::plan::Blueprint;
use crate::ras::inject::{Schedule, Spec};
use crate::ras::{DetectedError, Reporting};
use crate::timings::{Phase, Timings};

/// A machine's memory and all that is known of it, from the first boot to the end.
pub struct PreservedState {
    pub(super) ram: GuestRam,
    pub(super) reporting: Arc<Reporting>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) detected_errors: DetectedErrors,
    sender: DetectedErrorSender,
    /// The thread that the host tells of poisoned memory which nobody consumed.
    _ao_listener: AoListener,
}

impl PreservedState {
    /// Maps the memory, and listens for what is lost of it. The main thread calls it before it starts any other.
    ///
    /// # Errors
    /// Where the host gives no memory or no thread, or this build cannot carry the plan.
    pub fn new(
        machine: &Machine,
        blueprint: &Blueprint,
        orders: &[Spec],
        journal: &Arc<Journal>,
        timings: &Arc<Timings>,
    ) -> Result<Self, MachineError> {
        let (detected_errors, sender) = DetectedErrors::new().map_err(no("event descriptor"))?;
        let found = sender.clone();
        let listener = AoListener::start(move |fault| found.send(DetectedError::Signalled(fault)))
            .map_err(no("thread for memory errors"))?;
        let runs: Vec<_> = blueprint.platform.memory.ram.iter().map(|run| (run.start, run.len)).collect();
        let ram = GuestRam::allocate(&runs, backing(machine))?;
        timings.mark(Phase::Memory);
        tracing::info!(bytes = machine.memory.size, backing = ?ram.backing(), "guest memory is mapped");
        let reporting = Reporting::new(
            &blueprint.ras,
            &blueprint.host,
            blueprint.tables.record_area.as_ref(),
            ram.clone(),
            Arc::clone(journal),
            Arc::clone(timings),
        )?;
        Ok(PreservedState {
            ram,
            reporting: Arc::new(reporting),
            schedule: Arc::new(Schedule::new(orders)),
            detected_errors,
            sender,
            _ao_listener: listener,
        })
    }

    /// Makes the memory what it is when a machine is switched on, for the next boot: empty, and whole but for what the profile
    /// says is never repaired.
    ///
    /// # Errors
    /// Where the host gives no fresh memory.
    pub fn renew(&self) -> Result<(), MachineError> {
        self.ram.zero_except(&self.reporting.lost_over_reset()).map_err(no("fresh memory"))?;
        self.reporting.repaired_by_reset();
        Ok(())
    }

    /// What is lost, and stays so over a reset.
    #[must_use]
    pub fn lost_for_good(&self) -> Vec<Range> {
        let lost = self.reporting.lost_over_reset().into_iter();
        lost.map(|(start, len)| Range { start, len }).collect()
    }

    /// Where a device tells of poisoned memory that it touched.
    pub(super) fn touched(&self) -> Arc<dyn PoisonObserver> {
        Arc::new(self.sender.clone())
    }
}

fn backing(machine: &Machine) -> Backing {
    match machine.memory.backing {
        BackingKind::Anonymous => Backing::Anonymous,
        BackingKind::Memfd => Backing::Memfd,
        BackingKind::Hugetlbfs => Backing::Hugetlbfs { page_size: machine.memory.page_size.bytes() },
    }
}

/// What was found lost, on its way to the main thread.
pub(super) struct DetectedErrors {
    receiver: Receiver<DetectedError>,
    wake: Arc<EventFd>,
}

/// The other end of it, for any thread.
#[derive(Clone)]
struct DetectedErrorSender {
    sender: Sender<DetectedError>,
    wake: Arc<EventFd>,
}

impl DetectedErrors {
    fn new() -> io::Result<(Self, DetectedErrorSender)> {
        let (sender, receiver) = mpsc::channel();
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let far_end = DetectedErrorSender { sender, wake: Arc::clone(&wake) };
        Ok((DetectedErrors { receiver, wake }, far_end))
    }

    /// Readable when something may have been found.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// The next that is found, waited for so long at most.
    pub(super) fn next(&self, patience: Duration) -> Option<DetectedError> {
        self.receiver.recv_timeout(patience).ok()
    }

    /// What was found.
    pub(super) fn all(&self) -> impl Iterator<Item = DetectedError> + '_ {
        // An error means that it was read already.
        let _ = self.wake.read();
        self.receiver.try_iter()
    }
}

impl DetectedErrorSender {
    fn send(&self, found: DetectedError) {
        // Nobody listens only where the machine has ended; the eventfd is full only where nobody has read 2^64 of them.
        let _ = self.sender.send(found);
        let _ = self.wake.write(1);
    }
}

impl PoisonObserver for DetectedErrorSender {
    fn touched(&self, gpa: u64, log2_len: u8) {
        self.send(DetectedError::Touched { gpa, log2_len });
    }
}
