//! Pages that were reported as poisoned.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::cmdline::{MAX_TOUCHES, Requests};

/// Bytes of the smallest page, the granularity of reports.
const PAGE: u64 = 4096;

/// A page that the command line has the guest touch.
struct Watched {
    page: AtomicU64,
    is_poisoned: AtomicBool,
}

static WATCHED: [Watched; MAX_TOUCHES] =
    [const { Watched { page: AtomicU64::new(u64::MAX), is_poisoned: AtomicBool::new(false) } }; MAX_TOUCHES];
/// Number of reports; several for the same page count separately.
static REPORTS: AtomicU32 = AtomicU32::new(0);

/// Watches the pages that the command line has the guest touch.
pub(crate) fn watch(requests: &Requests) {
    for (slot, touch) in WATCHED.iter().zip(requests.touches()) {
        slot.page.store(page(touch.gpa), Ordering::Relaxed);
    }
}

/// The first address of the page.
pub(crate) const fn page(gpa: u64) -> u64 {
    gpa & !(PAGE - 1)
}

/// Records a report about the page at `gpa`. `is_poisoned`: the error is uncorrected.
pub(crate) fn record(gpa: u64, is_poisoned: bool) {
    for slot in WATCHED.iter().filter(|slot| is_poisoned && slot.page.load(Ordering::Relaxed) == page(gpa)) {
        slot.is_poisoned.store(true, Ordering::SeqCst);
    }
    REPORTS.fetch_add(1, Ordering::SeqCst);
}

pub(crate) fn reports() -> u32 {
    REPORTS.load(Ordering::SeqCst)
}

/// Whether the page at `gpa`, which is watched, was reported as poisoned.
pub(crate) fn contains(gpa: u64) -> bool {
    WATCHED
        .iter()
        .any(|slot| slot.page.load(Ordering::Relaxed) == page(gpa) && slot.is_poisoned.load(Ordering::SeqCst))
}
