//! vCPUs that get nowhere.

use crate::memory_error::MemoryError;
use crate::plan::Patience;

/// vCPUs that are watched at once; the one that touched lost memory longest ago makes room.
const WATCHED: usize = 64;

/// Notices a vCPU that touches one page again and again: the guest was told and does nothing about it, so that it would for ever fault
/// at the same instruction. It takes many touches and a long time, both: a busy guest may need a while, and processes that share a page
/// touch it one by one. A page that was left alone for as long starts anew.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    touches: u32,
    stall_ns: u64,
    watched: [Option<Watch>; WATCHED],
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    vcpu: u32,
    page: u64,
    since_ns: u64,
    last_ns: u64,
    touches: u32,
}

impl Progress {
    /// Nobody is stuck yet.
    #[must_use]
    pub(crate) const fn new(patience: &Patience) -> Self {
        Progress { touches: patience.touches, stall_ns: patience.stall_ns(), watched: [None; WATCHED] }
    }

    /// Whether the vCPU that met this error has met it too often for too long. Counts this one.
    pub(crate) fn is_stuck(&mut self, error: &MemoryError) -> bool {
        let Some(vcpu) = error.vcpu else { return false };
        let (page, now_ns) = (error.gpa & !0xfff, error.time_ns);
        let known = self.watched.iter().position(|watch| watch.is_some_and(|watch| watch.vcpu == vcpu));
        let oldest = || {
            (0..WATCHED)
                .min_by_key(|index| self.watched.get(*index).map(|watch| watch.map(|watch| watch.last_ns)))
        };
        let Some(place) = known.or_else(oldest).and_then(|index| self.watched.get_mut(index)) else {
            return false;
        };
        let watch = match place {
            Some(watch)
                if watch.vcpu == vcpu
                    && watch.page == page
                    && now_ns.saturating_sub(watch.last_ns) <= self.stall_ns =>
            {
                watch
            }
            place => place.insert(Watch { vcpu, page, since_ns: now_ns, last_ns: now_ns, touches: 0 }),
        };
        watch.last_ns = now_ns;
        watch.touches = watch.touches.saturating_add(1);
        watch.touches > self.touches && now_ns.saturating_sub(watch.since_ns) > self.stall_ns
    }

    /// The guest was reset.
    pub(crate) fn forget(&mut self) {
        self.watched = [None; WATCHED];
    }
}
