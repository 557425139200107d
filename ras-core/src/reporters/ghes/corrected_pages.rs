//! The pages with corrected errors: how many errors each has had, and which wait to be reported.

use alloc::vec::Vec;

use crate::corrected::Threshold;
use crate::memory_blocks::MAX_MEMORY_ENTRIES;

/// Counts the errors of pages until they reach the threshold.
#[derive(Debug)]
pub(crate) struct PageCounts {
    threshold: Option<Threshold>,
    counts: Vec<PageCount>,
}

#[derive(Clone, Copy, Debug)]
struct PageCount {
    page: u64,
    /// When the first error of the window was reported.
    since_ns: u64,
    last_ns: u64,
    errors: u32,
}

impl PageCounts {
    /// Pages that are counted at the same time. If there are more, the one without an error for the longest time is forgotten.
    pub(crate) const CAPACITY: usize = 256;

    pub(crate) fn new(threshold: Option<Threshold>) -> Self {
        let capacity = if threshold.is_some() { Self::CAPACITY } else { 0 };
        PageCounts { threshold, counts: Vec::with_capacity(capacity) }
    }

    /// Counts an error. Returns the number of errors if the page has reached the threshold; the count starts again then: of a page that the
    /// guest keeps using, each further threshold is reported too.
    pub(crate) fn count(&mut self, page: u64, now_ns: u64) -> Option<u32> {
        let Threshold { errors: threshold, window_ms } = self.threshold?;
        let index = self.index_of(page, now_ns);
        let count = self.counts.get_mut(index)?;
        if now_ns.saturating_sub(count.since_ns) >= u64::from(window_ms.get()) * 1_000_000 {
            *count = PageCount { page, since_ns: now_ns, last_ns: now_ns, errors: 0 };
        }
        count.last_ns = now_ns;
        count.errors = count.errors.saturating_add(1);
        let errors = count.errors;
        if errors < threshold.get() {
            return None;
        }
        self.counts.swap_remove(index);
        Some(errors)
    }

    /// The index of the page's count, which may be a new one.
    fn index_of(&mut self, page: u64, now_ns: u64) -> usize {
        if let Some(index) = self.counts.iter().position(|count| count.page == page) {
            return index;
        }
        if self.counts.len() >= Self::CAPACITY {
            let oldest = self.counts.iter().enumerate().min_by_key(|(_, count)| count.last_ns);
            if let Some(index) = oldest.map(|(index, _)| index) {
                self.counts.swap_remove(index);
            }
        }
        self.counts.push(PageCount { page, since_ns: now_ns, last_ns: now_ns, errors: 0 });
        self.counts.len() - 1
    }
}

/// The errors that wait until their record is written, by page. A record is of one page, and has an entry for each error.
#[derive(Debug)]
pub(crate) struct Waiting {
    pages: Vec<Batch>,
    capacity: usize,
}

/// Corrected errors of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) page: u64,
    pub(crate) errors: u32,
    /// The last of them has reached the threshold.
    pub(crate) reaches_threshold: bool,
}

impl Waiting {
    pub(crate) fn new(capacity: usize) -> Self {
        Waiting { pages: Vec::with_capacity(capacity), capacity }
    }

    /// Adds an error to those of its page that wait already. Returns whether there are some.
    pub(crate) fn join(&mut self, page: u64, reaches_threshold: bool) -> bool {
        let known = self.pages.iter_mut().find(|batch| batch.page == page);
        let Some(batch) = known else { return false };
        batch.errors = batch.errors.saturating_add(1);
        batch.reaches_threshold |= reaches_threshold;
        true
    }

    /// Adds the first error of a page. Does nothing beyond the capacity, which the caller's own queue has too.
    pub(crate) fn add(&mut self, page: u64, reaches_threshold: bool) {
        if self.pages.len() < self.capacity {
            self.pages.push(Batch { page, errors: 1, reaches_threshold });
        }
    }

    /// Takes errors of that page for one record, and returns whether others are left. Those that have reached the threshold are taken last.
    pub(crate) fn take(&mut self, page: u64) -> Option<(Batch, bool)> {
        const MAX: u32 = MAX_MEMORY_ENTRIES as u32;
        let index = self.pages.iter().position(|batch| batch.page == page)?;
        let batch = self.pages.get_mut(index)?;
        if batch.errors > MAX {
            batch.errors -= MAX;
            return Some((Batch { page, errors: MAX, reaches_threshold: false }, true));
        }
        Some((self.pages.swap_remove(index), false))
    }

    /// Drops all, and returns their number.
    pub(crate) fn clear(&mut self) -> u64 {
        self.pages.drain(..).map(|batch| u64::from(batch.errors)).sum()
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(errors: u32) -> PageCounts {
        let [errors, window_ms] = [errors, 10_000].map(|number| NonZeroU32::new(number).unwrap());
        PageCounts::new(Some(Threshold { errors, window_ms }))
    }

    #[test]
    fn errors_of_one_page_within_the_window_reach_the_threshold() {
        let mut counts = counts(3);
        let times = [(0, 1), (0, 2), (1, 3), (0, 9), (1, 4), (0, 9), (0, 12), (0, 18), (0, 19)];
        let reached = times.map(|(page, second)| counts.count(page << 12, second * SECOND).is_some());
        // Each time that it is reached, the count of page 0 starts again.
        assert_eq!(reached, [false, false, false, true, false, false, false, true, false]);
    }

    #[test]
    fn a_window_that_has_ended_does_not_count() {
        let mut counts = counts(2);
        assert_eq!(
            [0, 10, 20, 29].map(|second| counts.count(0, second * SECOND)),
            [None, None, None, Some(2)]
        );
    }

    #[test]
    fn without_a_threshold_none_is_reached() {
        let mut counts = PageCounts::new(None);
        assert!((0..1_000).all(|time| counts.count(0, time).is_none()));
        assert_eq!(counts.counts.capacity(), 0);
    }

    #[test]
    fn the_page_that_is_forgotten_is_the_one_without_errors_for_the_longest_time() {
        let mut counts = counts(2);
        for page in 0..PageCounts::CAPACITY as u64 + 1 {
            assert_eq!(counts.count(page << 12, page), None);
        }
        assert_eq!(counts.counts.len(), PageCounts::CAPACITY);
        assert_eq!(counts.count(1 << 12, 1_000), Some(2));
        assert_eq!(counts.count(0, 1_000), None, "forgotten");
    }

    #[test]
    fn a_record_has_as_many_errors_as_a_block_has_entries() {
        let mut waiting = Waiting::new(2);
        assert!(!waiting.join(0x1000, false));
        waiting.add(0x1000, false);
        for error in 0..20 {
            assert!(waiting.join(0x1000, error == 10));
        }
        let batch = |errors, reaches_threshold| Batch { page: 0x1000, errors, reaches_threshold };
        assert_eq!(waiting.take(0x1000), Some((batch(16, false), true)));
        assert_eq!(waiting.take(0x1000), Some((batch(5, true), false)));
        assert_eq!(waiting.take(0x1000), None);
        for page in 1..4_u64 {
            waiting.add(page << 12, false);
        }
        assert_eq!((waiting.take(0x3000), waiting.clear(), waiting.clear()), (None, 2, 0));
    }
}
