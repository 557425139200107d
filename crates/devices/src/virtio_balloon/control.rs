//! The VMM's side of a balloon.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::PAGE;
use super::statistics::Statistics;

/// The VMM's control of a balloon, from any thread: it outlives the device, which every reset of the machine renews. It is also the
/// balloon's [`Backend`](crate::kind::Backend).
#[derive(Clone, Debug)]
pub struct BalloonControl(pub(super) Arc<Shared>);

/// What the VMM, the registers and the device's thread share.
#[derive(Debug)]
pub(super) struct Shared {
    /// `num_pages` and `actual` (VIRTIO 1.2, 5.5.4), in pages of 4 KiB.
    pub(super) target: AtomicU32,
    pub(super) actual: AtomicU32,
    statistics: Mutex<Option<Statistics>>,
    pub(super) statistics_requested: AtomicBool,
    pub(super) target_changed: AtomicBool,
    /// Wakes the device's thread.
    pub(super) wake: EventFd,
}

impl BalloonControl {
    /// A balloon that is to take `target` bytes from its guest, rounded down to 4 KiB.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new(target: u64) -> io::Result<Self> {
        Ok(BalloonControl(Arc::new(Shared {
            target: AtomicU32::new(pages(target)),
            actual: AtomicU32::new(0),
            statistics: Mutex::new(None),
            statistics_requested: AtomicBool::new(false),
            target_changed: AtomicBool::new(false),
            wake: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })))
    }

    /// Bytes that the balloon is to take.
    #[must_use]
    pub fn target(&self) -> u64 {
        bytes(&self.0.target)
    }

    /// Changes the bytes that the balloon is to take, rounded down to 4 KiB. The guest's driver inflates or deflates the balloon as it
    /// can. The target is kept across resets.
    pub fn set_target(&self, bytes: u64) {
        self.0.target.store(pages(bytes), Ordering::SeqCst);
        self.0.target_changed.store(true, Ordering::SeqCst);
        self.0.wake();
    }

    /// Bytes that the balloon has taken, as the guest says.
    #[must_use]
    pub fn actual(&self) -> u64 {
        bytes(&self.0.actual)
    }

    /// The guest's last statistics. `None` if it has not sent any since it was reset.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        *self.0.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the guest for new statistics, which it sends when it can.
    pub fn request_statistics(&self) {
        self.0.statistics_requested.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // Fails only if the counter would overflow.
        let _ = self.wake.write(1);
    }

    pub(super) fn set_statistics(&self, statistics: Option<Statistics>) {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = statistics;
    }
}

fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX)
}

fn bytes(pages: &AtomicU32) -> u64 {
    u64::from(pages.load(Ordering::SeqCst)) * PAGE
}
