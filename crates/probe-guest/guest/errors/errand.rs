//! What another processor is sent to do: to touch a word of memory.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::touching;
use crate::arch;
use crate::cmdline::{Access, Touch};
use crate::failure::Failure;

/// The processor that has an errand.
static WHO: AtomicU32 = AtomicU32::new(NOBODY);
static ACCESS: AtomicU32 = AtomicU32::new(0);
static GPA: AtomicU64 = AtomicU64::new(0);
static PATIENCE: AtomicU32 = AtomicU32::new(0);
const NOBODY: u32 = u32::MAX;

/// Has processor `who` touch a word, and waits until it has.
pub(super) fn send(who: u32, touch: &Touch, patience: u32) -> Result<(), Failure> {
    /// Milliseconds for the way there and back.
    const WAY: u32 = 10_000;
    ACCESS.store(touch.access as u32, Ordering::Relaxed);
    GPA.store(touch.gpa, Ordering::Relaxed);
    PATIENCE.store(patience, Ordering::Relaxed);
    WHO.store(who, Ordering::SeqCst);
    arch::wake(who)?;
    if arch::wait_halted(patience.saturating_add(WAY), || WHO.load(Ordering::SeqCst) == NOBODY) {
        Ok(())
    } else {
        Err(Failure::with("no answer from processor", u64::from(who)))
    }
}

/// Runs the errand of the processor `own` that asks for one, if it has one: whether it had.
pub(crate) fn run(own: u32) -> bool {
    if WHO.load(Ordering::SeqCst) != own {
        return false;
    }
    let access = [Access::Load, Access::Store, Access::Fetch]
        .into_iter()
        .find(|access| *access as u32 == ACCESS.load(Ordering::Relaxed))
        .unwrap_or(Access::Load);
    let touch = Touch { access, gpa: GPA.load(Ordering::Relaxed) };
    touching::run(&touch, PATIENCE.load(Ordering::Relaxed));
    WHO.store(NOBODY, Ordering::SeqCst);
    true
}
