//! Has another processor touch a word of memory.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::repeated_touch;
use crate::arch;
use crate::cmdline::{Access, Touch};
use crate::failure::Failure;

/// The processor that a request is for.
static PROCESSOR: AtomicU32 = AtomicU32::new(NO_PROCESSOR);
static ACCESS: AtomicU32 = AtomicU32::new(0);
static GPA: AtomicU64 = AtomicU64::new(0);
static TIMEOUT_MS: AtomicU32 = AtomicU32::new(0);
const NO_PROCESSOR: u32 = u32::MAX;

/// Requests that `processor` touches a word, and waits until it is done.
pub(super) fn request(processor: u32, touch: &Touch, timeout_ms: u32) -> Result<(), Failure> {
    /// Milliseconds that waking the processor and its reply may take in addition.
    const MARGIN_MS: u32 = 10_000;
    ACCESS.store(touch.access as u32, Ordering::Relaxed);
    GPA.store(touch.gpa, Ordering::Relaxed);
    TIMEOUT_MS.store(timeout_ms, Ordering::Relaxed);
    PROCESSOR.store(processor, Ordering::SeqCst);
    arch::wake(processor)?;
    let is_done = || PROCESSOR.load(Ordering::SeqCst) == NO_PROCESSOR;
    if arch::wait_halted(timeout_ms.saturating_add(MARGIN_MS), is_done) {
        Ok(())
    } else {
        Err(Failure::with("no answer from processor", u64::from(processor)))
    }
}

/// Serves a request for processor `own`, on which this runs. Returns whether there was one.
pub(crate) fn serve(own: u32) -> bool {
    if PROCESSOR.load(Ordering::SeqCst) != own {
        return false;
    }
    let access = [Access::Load, Access::Store, Access::Fetch]
        .into_iter()
        .find(|access| *access as u32 == ACCESS.load(Ordering::Relaxed))
        .unwrap_or(Access::Load);
    let touch = Touch { access, gpa: GPA.load(Ordering::Relaxed) };
    repeated_touch::run(&touch, TIMEOUT_MS.load(Ordering::Relaxed));
    PROCESSOR.store(NO_PROCESSOR, Ordering::SeqCst);
    true
}
