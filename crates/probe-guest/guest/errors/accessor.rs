//! Memory accesses that an exception handler can abandon: code in `entry.s` with a known address range and a known exit.

use core::sync::atomic::{AtomicU64, Ordering};

use super::poisoned;
use crate::cmdline::Access;

/// The word that is being accessed; [`NOWHERE`] if none.
static TARGET: AtomicU64 = AtomicU64::new(NOWHERE);
/// The address that instructions are being fetched from; [`NOWHERE`] if none.
static FETCHED: AtomicU64 = AtomicU64::new(NOWHERE);
/// No access and no instruction is at the end of the address space.
const NOWHERE: u64 = u64::MAX;

unsafe extern "C" {
    /// Returns 1 if the access was made, 0 if a handler abandoned it.
    fn accessor_load(address: u64) -> u64;
    fn accessor_store(address: u64) -> u64;
    /// Writes a return instruction.
    fn accessor_prepare(address: u64) -> u64;
    /// Executes it.
    fn accessor_fetch(address: u64) -> u64;
    /// The three data accessors are between these two symbols; they use no stack.
    static accessors_start: u8;
    static accessors_end: u8;
    /// Where an abandoned data access continues.
    static accessor_abandoned: u8;
    /// Where an abandoned fetch continues; only valid at the first fetched instruction.
    static accessor_fetch_abandoned: u8;
}

/// A word of memory that one processor accesses. Only one exists at a time.
pub(super) struct Target {
    access: Access,
    gpa: u64,
}

impl Target {
    /// # Safety
    /// `gpa` is a multiple of 8, in mapped memory that nothing else uses.
    pub(super) unsafe fn new(access: Access, gpa: u64) -> Self {
        TARGET.store(gpa, Ordering::SeqCst);
        Target { access, gpa }
    }

    /// Prepares the word for [`touch`](Self::touch). Returns false if that access was abandoned.
    pub(super) fn prepare(&self) -> bool {
        // SAFETY: by the contract of `new`.
        self.access != Access::Fetch || unsafe { accessor_prepare(self.gpa) } == 1
    }

    /// Makes the access. Returns false if it was abandoned.
    pub(super) fn touch(&self) -> bool {
        match self.access {
            // SAFETY: by the contract of `new`.
            Access::Load => unsafe { accessor_load(self.gpa) == 1 },
            // SAFETY: likewise.
            Access::Store => unsafe { accessor_store(self.gpa) == 1 },
            Access::Fetch => {
                FETCHED.store(self.gpa, Ordering::SeqCst);
                // SAFETY: likewise, and `prepare` wrote an instruction there.
                let done = unsafe { accessor_fetch(self.gpa) == 1 };
                FETCHED.store(NOWHERE, Ordering::SeqCst);
                done
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        TARGET.store(NOWHERE, Ordering::SeqCst);
    }
}

/// Where to continue after an exception at `pc`, if that is an access to abandon: because it cannot be made (`must_abandon`), or
/// because its page was reported as poisoned. `None` if execution continues at `pc`.
pub(crate) fn resume_address(pc: u64, must_abandon: bool) -> Option<u64> {
    let exit = if (address(&raw const accessors_start)..address(&raw const accessors_end)).contains(&pc) {
        address(&raw const accessor_abandoned)
    } else if pc == FETCHED.load(Ordering::SeqCst) {
        address(&raw const accessor_fetch_abandoned)
    } else {
        return None;
    };
    (must_abandon || poisoned::contains(TARGET.load(Ordering::SeqCst))).then_some(exit)
}

fn address(symbol: *const u8) -> u64 {
    symbol as u64
}
