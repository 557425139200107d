//! The VMM, as a device reports poisoned pages to it that the device touches, or gives back to the host, and what becomes of the device.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Notified by a device, on the device's thread, of a poisoned page of guest memory that the device touched.
///
/// The device itself fails the request, or needs a reset if the page was part of a queue. It may report a page more than
/// once.
pub trait PoisonObserver: Send + Sync {
    /// The naturally aligned 2^`log2_len` bytes around a GPA are poisoned.
    fn touched(&self, gpa: u64, log2_len: u8);

    /// The device has set DEVICE_NEEDS_RESET: it does nothing until its driver has reset it. A poisoned page of a queue was
    /// [`touched`](Self::touched) before, but other causes exist too. Called on any thread. The default is for a VMM that has no use for
    /// it.
    fn needs_reset(&self) {}

    /// Pages that the guest does not use were given back to the host: those of them that were poisoned are fresh ones now. Called
    /// before the guest can use them again. The default is for a VMM whose devices give no memory back.
    fn discarded(&self, gpa: u64, len: u64) {
        let _ = (gpa, len);
    }

    /// Whether guest memory has poisoned pages, for a device whose queues the host's kernel serves: it gives up a request on such a page
    /// without a report. The default is for a VMM that has no such device, or does not know of poisoned pages.
    fn poisoned(&self) -> Option<&PoisonFlag> {
        None
    }
}

/// Whether guest memory has poisoned pages, which the VMM sets and threads of devices wait for. A clone is the same flag.
#[derive(Clone, Debug)]
pub struct PoisonFlag(Arc<Flag>);

#[derive(Debug)]
struct Flag {
    is_set: AtomicBool,
    event: EventFd,
}

impl PoisonFlag {
    /// A flag that is not set.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new() -> io::Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(PoisonFlag(Arc::new(Flag { is_set: AtomicBool::new(false), event })))
    }

    /// Sets or clears it. One thread does so.
    pub fn set(&self, is_poisoned: bool) {
        if self.0.is_set.swap(is_poisoned, Ordering::SeqCst) != is_poisoned {
            // Neither fails: the count is 0 or 1.
            let _ = if is_poisoned { self.0.event.write(1) } else { self.0.event.read().map(drop) };
        }
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Readable while it is set. Threads wait for it and do not read it.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }
}
