//! The receiver of poisoned pages that a device touches.

/// Notified by a device, on the device's thread, of a poisoned page of guest memory that the device touched.
///
/// The device itself fails the request, or needs a reset if the page was part of a queue. It may report a page more than
/// once.
pub trait PoisonObserver: Send + Sync {
    /// The naturally aligned 2^`log2_len` bytes around a GPA are poisoned.
    fn touched(&self, gpa: u64, log2_len: u8);
}
