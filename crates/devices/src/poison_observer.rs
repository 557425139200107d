//! The receiver of poisoned pages that a device touches, or gives back to the host, and of what becomes of the device.

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
}
