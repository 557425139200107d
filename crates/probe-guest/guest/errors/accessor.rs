//! Accesses that an error may end: code in `entry.s` that handlers know, and know the way out of.

use core::sync::atomic::{AtomicU64, Ordering};

use super::lost;
use crate::cmdline::Access;

/// What is touched now: no access, and no instruction, is at the end of all addresses.
static TARGET: AtomicU64 = AtomicU64::new(NOWHERE);
/// Where instructions are fetched from, if they are.
static FETCHED: AtomicU64 = AtomicU64::new(NOWHERE);
const NOWHERE: u64 = u64::MAX;

unsafe extern "C" {
    /// 1 where the access was made, 0 where a handler has given it up.
    fn accessor_load(address: u64) -> u64;
    fn accessor_store(address: u64) -> u64;
    /// Writes a return instruction.
    fn accessor_prepare(address: u64) -> u64;
    /// Executes it.
    fn accessor_fetch(address: u64) -> u64;
    /// The three accessors of data lie between these two; they use no stack.
    static accessors_start: u8;
    static accessors_end: u8;
    /// Where such an accessor goes on when it is given up.
    static accessor_given_up: u8;
    /// Where a fetch does, from the first instruction that it fetched.
    static accessor_fetch_given_up: u8;
}

/// A word of memory that one processor touches; no two do at the same time.
pub(super) struct Target {
    access: Access,
    gpa: u64,
}

impl Target {
    /// # Safety
    /// `gpa` is a multiple of 8, of memory that is mapped and nobody's.
    pub(super) unsafe fn new(access: Access, gpa: u64) -> Self {
        TARGET.store(gpa, Ordering::SeqCst);
        Target { access, gpa }
    }

    /// Readies the word for [`touch`](Self::touch); false where that was given up.
    pub(super) fn prepare(&self) -> bool {
        // SAFETY: by the contract of `new`.
        self.access != Access::Fetch || unsafe { accessor_prepare(self.gpa) } == 1
    }

    /// Makes the access; false where it was given up.
    pub(super) fn touch(&self) -> bool {
        match self.access {
            // SAFETY: by the contract of `new`.
            Access::Load => unsafe { accessor_load(self.gpa) == 1 },
            // SAFETY: likewise.
            Access::Store => unsafe { accessor_store(self.gpa) == 1 },
            Access::Fetch => {
                FETCHED.store(self.gpa, Ordering::SeqCst);
                // SAFETY: likewise, and `prepare` has put an instruction there.
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

/// Where to go on after an exception at `pc` rather than there: where that is within an access which cannot be made
/// (`is_hopeless`), or must not be made any more.
pub(crate) fn help(pc: u64, is_hopeless: bool) -> Option<u64> {
    let exit = if (address(&raw const accessors_start)..address(&raw const accessors_end)).contains(&pc) {
        address(&raw const accessor_given_up)
    } else if pc == FETCHED.load(Ordering::SeqCst) {
        address(&raw const accessor_fetch_given_up)
    } else {
        return None;
    };
    (is_hopeless || lost::has(TARGET.load(Ordering::SeqCst))).then_some(exit)
}

fn address(symbol: *const u8) -> u64 {
    symbol as u64
}
