//! Whom a device tells of memory that the host has lost.

/// Told by a device, on its thread, of a page of guest memory that it met and that the host has lost.
///
/// The device itself fails the request, or stands still where the page was of its queue. It may tell of a page more than
/// once.
pub trait PoisonObserver: Send + Sync {
    /// The page at a GPA is lost, with all 2^`log2_len` bytes around it.
    fn touched(&self, gpa: u64, log2_len: u8);
}
