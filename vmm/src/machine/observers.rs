//! What devices report poisoned memory to, on their threads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use devices::{PoisonFlag, PoisonObserver};

use super::PreservedState;
use super::detected_errors::DetectedErrorSender;
use crate::journal::{Journal, Note};
use crate::ras::Reporting;
use crate::rate::RateLimit;

impl PreservedState {
    /// What the device at this position in the profile reports to.
    pub(super) fn device_observer(&self, device: usize, journal: &Arc<Journal>) -> Arc<dyn PoisonObserver> {
        Arc::new(DeviceObserver {
            device,
            sender: self.sender.clone(),
            reporting: Arc::clone(&self.reporting),
            journal: Arc::clone(journal),
            poisoned: self.poisoned.clone(),
            needs_reset: Mutex::new(RateLimit::new(NEEDS_RESET_BURST, NEEDS_RESET_INTERVAL)),
        })
    }

    /// What the store for error records reports to.
    pub(super) fn store_observer(&self) -> Arc<dyn PoisonObserver> {
        Arc::new(StoreObserver(self.sender.clone()))
    }
}

/// Receives what a device sees of poisoned memory, and what becomes of the device, on its threads.
struct DeviceObserver {
    device: usize,
    sender: DetectedErrorSender,
    reporting: Arc<Reporting>,
    journal: Arc<Journal>,
    poisoned: PoisonFlag,
    needs_reset: Mutex<RateLimit>,
}

// A driver can break its queue as often as it likes: of a device so many events are written, and then one a second.
const NEEDS_RESET_BURST: u32 = 256;
const NEEDS_RESET_INTERVAL: Duration = Duration::from_secs(1);

impl PoisonObserver for DeviceObserver {
    fn touched(&self, gpa: u64, log2_len: u8) {
        self.sender.touched(gpa, log2_len);
    }

    fn needs_reset(&self) {
        let mut limit = self.needs_reset.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.permits(Instant::now()) {
            self.journal.note(Note::DeviceNeedsReset(self.device));
        }
    }

    fn discarded(&self, gpa: u64, len: u64) {
        self.reporting.discarded(gpa, len);
    }

    fn poisoned(&self) -> Option<&PoisonFlag> {
        Some(&self.poisoned)
    }
}

/// What the store for error records reports poisoned pages to.
struct StoreObserver(DetectedErrorSender);

impl PoisonObserver for StoreObserver {
    fn touched(&self, gpa: u64, log2_len: u8) {
        self.0.touched(gpa, log2_len);
    }
}

/// Device workers hold them.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<DeviceObserver>();
    is_send_and_sync::<StoreObserver>();
};
