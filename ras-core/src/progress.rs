//! vCPUs that get nowhere.

use crate::memory_error::MemoryError;
use crate::plan::Timeouts;

/// Pairs of vCPU and page that are watched at once.
const WATCHED: usize = 64;
/// The stall time is watched in so many parts.
const PARTS: u32 = 10;

/// Notices a vCPU that touches one page again and again: the guest was told and does nothing about it, so that it would for ever fault
/// at the same instruction.
///
/// What tells it from honest work is that it never pauses: it touches the page as fast as exceptions are taken, hundreds of times a second
/// on the slowest host. Processes that share a page touch it one by one and are gone; a service that is started anew whenever it dies of
/// the page comes ten times a second at most. So the stall time is cut into parts, and a vCPU is stuck when it touched the page too often
/// in every one of them, without a gap. A busy second is not enough, nor are many touches over hours.
///
/// Each page is watched by itself: two programs that take turns on a vCPU do not hide each other, and one that walks over a large loss is
/// not taken for stuck. Where more pairs are touched than can be watched, the first ones are, until they are left alone.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// More touches than this in each part.
    touches: u32,
    part_ns: u64,
    watched: [Option<Watch>; WATCHED],
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    vcpu: u32,
    page: u64,
    /// When this part began.
    since_ns: u64,
    last_ns: u64,
    /// In this part.
    touches: u32,
    /// Parts before it, one after the other, with too many touches.
    full: u32,
}

impl Progress {
    /// Nobody is stuck yet.
    #[must_use]
    pub(crate) const fn new(timeouts: &Timeouts) -> Self {
        Progress {
            touches: timeouts.touches / PARTS,
            part_ns: timeouts.stall_ns() / PARTS as u64,
            watched: [None; WATCHED],
        }
    }

    /// Whether the vCPU that met this error has met it too often for too long. Counts this one.
    pub(crate) fn is_stuck(&mut self, error: &MemoryError) -> bool {
        let Some(vcpu) = error.vcpu else { return false };
        let (page, now_ns) = (error.gpa & !0xfff, error.time_ns);
        let is_it =
            |watch: &Option<Watch>| watch.is_some_and(|watch| watch.vcpu == vcpu && watch.page == page);
        let left_alone = |watch: &Option<Watch>| {
            watch.is_none_or(|watch| now_ns.saturating_sub(watch.last_ns) > 2 * self.part_ns)
        };
        let known = self.watched.iter().position(is_it);
        let Some(place) = known.or_else(|| self.watched.iter().position(left_alone)) else { return false };
        let Some(place) = self.watched.get_mut(place) else { return false };
        let watch = match place {
            Some(watch) if known.is_some() => watch,
            place => {
                place.insert(Watch { vcpu, page, since_ns: now_ns, last_ns: now_ns, touches: 0, full: 0 })
            }
        };
        watch.last_ns = now_ns;
        let passed_ns = now_ns.saturating_sub(watch.since_ns);
        if passed_ns >= self.part_ns {
            let is_full = watch.touches > self.touches && passed_ns < 2 * self.part_ns;
            watch.full = if is_full { watch.full + 1 } else { 0 };
            (watch.since_ns, watch.touches) = (now_ns, 0);
        }
        watch.touches = watch.touches.saturating_add(1);
        watch.full >= PARTS
    }

    /// The guest was reset.
    pub(crate) fn forget(&mut self) {
        self.watched = [None; WATCHED];
    }
}
