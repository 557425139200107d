//! Which pages the guest was told of.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::cmdline::{MAX_TOUCHES, Requests};

/// The smallest page, which is what errors tell of.
const PAGE: u64 = 4096;

/// A page that is to be touched.
struct Watched {
    page: AtomicU64,
    is_poisoned: AtomicBool,
}

static WATCHED: [Watched; MAX_TOUCHES] =
    [const { Watched { page: AtomicU64::new(u64::MAX), is_poisoned: AtomicBool::new(false) } }; MAX_TOUCHES];
/// Pages told of, as often as it was told.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// Keeps an eye on the pages that the command line has the guest touch.
pub(crate) fn watch(requests: &Requests) {
    for (slot, touch) in WATCHED.iter().zip(requests.touches()) {
        slot.page.store(page(touch.gpa), Ordering::Relaxed);
    }
}

/// The first address of the page.
pub(crate) const fn page(gpa: u64) -> u64 {
    gpa & !(PAGE - 1)
}

/// Notes that the guest was told of the page at `gpa`, and whether it is lost.
pub(crate) fn tell(gpa: u64, is_poisoned: bool) {
    for slot in WATCHED.iter().filter(|slot| is_poisoned && slot.page.load(Ordering::Relaxed) == page(gpa)) {
        slot.is_poisoned.store(true, Ordering::SeqCst);
    }
    TOLD.fetch_add(1, Ordering::SeqCst);
}

pub(crate) fn told() -> u32 {
    TOLD.load(Ordering::SeqCst)
}

/// Whether the guest was told that it must not touch `gpa`, which is watched.
pub(crate) fn has(gpa: u64) -> bool {
    WATCHED
        .iter()
        .any(|slot| slot.page.load(Ordering::Relaxed) == page(gpa) && slot.is_poisoned.load(Ordering::SeqCst))
}
