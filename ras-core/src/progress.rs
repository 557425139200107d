//! Detection of vCPUs that make no progress.

use crate::memory_error::MemoryError;
use crate::plan::Timeouts;

/// Number of pairs of vCPU and page that are watched at a time.
const MAX_WATCHED: usize = 64;
/// Number of intervals that the stall time is divided into.
const INTERVALS: u32 = 10;

/// Detects a vCPU that accesses one page again and again: the guest was notified and does not handle it, so that it would fault at the
/// same instruction forever.
///
/// The difference to legitimate accesses is that it never pauses: it accesses the page as fast as exceptions are taken, hundreds of times a
/// second on the slowest host. Processes that share a page access it once each and are killed; a service that is restarted whenever it is
/// killed accesses it ten times a second at most. So the stall time is divided into intervals, and a vCPU is stuck if it accessed the page
/// too often in every one of them, without a gap. One busy second is not enough, nor are many accesses over hours.
///
/// Each page is watched by itself: two processes that take turns on a vCPU do not hide each other, and one that walks over a large poisoned
/// span is not taken for stuck. If more pairs are accessed than can be watched, the first ones are watched until they pause.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// A vCPU is stuck with more accesses than this in each interval.
    touches: u32,
    interval_ns: u64,
    watched: [Option<Watch>; MAX_WATCHED],
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    vcpu: u32,
    page: u64,
    /// When this interval began.
    since_ns: u64,
    last_ns: u64,
    /// Accesses in this interval.
    touches: u32,
    /// Number of consecutive intervals before it with too many accesses.
    full: u32,
}

impl Progress {
    /// No vCPU is watched yet.
    #[must_use]
    pub(crate) const fn new(timeouts: &Timeouts) -> Self {
        Progress {
            touches: timeouts.touches / INTERVALS,
            interval_ns: timeouts.stall_ns() / INTERVALS as u64,
            watched: [None; MAX_WATCHED],
        }
    }

    /// Whether the vCPU that consumed this error is stuck. Counts this access.
    pub(crate) fn is_stuck(&mut self, error: &MemoryError) -> bool {
        let Some(vcpu) = error.vcpu else { return false };
        let (page, now_ns) = (error.gpa & !0xfff, error.time_ns);
        let is_same =
            |watch: &Option<Watch>| watch.is_some_and(|watch| watch.vcpu == vcpu && watch.page == page);
        let is_idle = |watch: &Option<Watch>| {
            watch.is_none_or(|watch| now_ns.saturating_sub(watch.last_ns) > 2 * self.interval_ns)
        };
        let known = self.watched.iter().position(is_same);
        let Some(place) = known.or_else(|| self.watched.iter().position(is_idle)) else { return false };
        let Some(place) = self.watched.get_mut(place) else { return false };
        let watch = match place {
            Some(watch) if known.is_some() => watch,
            place => {
                place.insert(Watch { vcpu, page, since_ns: now_ns, last_ns: now_ns, touches: 0, full: 0 })
            }
        };
        watch.last_ns = now_ns;
        let passed_ns = now_ns.saturating_sub(watch.since_ns);
        if passed_ns >= self.interval_ns {
            let is_full = watch.touches > self.touches && passed_ns < 2 * self.interval_ns;
            watch.full = if is_full { watch.full + 1 } else { 0 };
            (watch.since_ns, watch.touches) = (now_ns, 0);
        }
        watch.touches = watch.touches.saturating_add(1);
        watch.full >= INTERVALS
    }

    /// The guest was reset.
    pub(crate) fn clear(&mut self) {
        self.watched = [None; MAX_WATCHED];
    }
}
