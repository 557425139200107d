//! What is lost now, and what of it may be repaired.

use super::{Entry, Ledger};
use crate::memory_error::Span;

impl Ledger {
    /// What is lost now, as (first GPA, bytes), by address; what is adjacent is one. What a guest that starts anew must not use where
    /// poisoned memory is never repaired.
    ///
    /// ```
    /// # use ras_core::{Kind, MemoryError, Origin, Span, ledger::Ledger};
    /// # let found = |gpa, log2_len| MemoryError {
    /// #     span: Span::around(gpa, log2_len), gpa, kind: Kind::ActionOptional, vcpu: None, origin: Origin::Sigbus, time_ns: 7,
    /// # };
    /// let mut ledger = Ledger::default();
    /// for (gpa, log2_len) in [(0x4000_0000, 21), (0x4020_0000, 12), (0x4800_0000, 12)] {
    ///     ledger.record(&found(gpa, log2_len));
    /// }
    /// assert!(ledger.lost().eq([(0x4000_0000, 0x20_1000), (0x4800_0000, 0x1000)]));
    /// ```
    pub fn lost(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut entries =
            self.entries.iter().filter(|entry| entry.is_poisoned()).map(|entry| entry.span).peekable();
        core::iter::from_fn(move || {
            let Span { gpa, .. } = *entries.peek()?;
            let mut len = 0;
            while let Some(next) = entries.next_if(|next| next.gpa - gpa == len) {
                len += next.bytes();
            }
            Some((gpa, len))
        })
    }

    /// What may be repaired now where that waits for the guest: each is the host's page that was lost, and all of it is lost still and was
    /// acknowledged since it was last heard of.
    ///
    /// An acknowledgement says that the guest has read the record, not that it is through with it: Linux takes the page from its programs
    /// a moment later, and one that touches it in between would take fresh memory for its own. Give it that moment:
    /// [`repairable_after`](Self::repairable_after).
    ///
    /// ```
    /// # use ras_core::{Kind, MemoryError, Origin, Span, ledger::Ledger};
    /// # let mut ledger = Ledger::default();
    /// // Two megabytes are lost at once, and a record tells of 64 KiB.
    /// let lost = Span::around(0x4000_0000, 21);
    /// # let error = MemoryError {
    /// #     span: lost, gpa: lost.gpa, kind: Kind::ActionOptional, vcpu: None, origin: Origin::Sigbus, time_ns: 7,
    /// # };
    /// ledger.record(&error);
    /// ledger.acknowledged(Span::around(0x4000_0000, 16), 8);
    /// assert_eq!(ledger.repairable().next(), None);
    /// ledger.acknowledged(lost, 9);
    /// assert!(ledger.repairable().eq([lost]));
    /// ledger.repaired(lost, 10);
    /// assert_eq!(ledger.repairable().next(), None);
    /// ```
    pub fn repairable(&self) -> impl Iterator<Item = Span> {
        self.acknowledged_by(u64::MAX)
    }

    /// The same, of what was acknowledged at least `delay_ns` before `now_ns` and not heard of since.
    pub fn repairable_after(&self, delay_ns: u64, now_ns: u64) -> impl Iterator<Item = Span> {
        now_ns.checked_sub(delay_ns).into_iter().flat_map(|latest_ns| self.acknowledged_by(latest_ns))
    }

    fn acknowledged_by(&self, latest_ns: u64) -> impl Iterator<Item = Span> {
        let flush = move |entry: &Entry| {
            entry.is_poisoned() && entry.acknowledged_ns.is_some_and(|then| then <= latest_ns)
        };
        let mut index = 0;
        core::iter::from_fn(move || {
            loop {
                let (whole, members) = self.poisoned_with(index)?;
                index = members.end;
                let members = self.entries.get(members).unwrap_or_default();
                if covers(members, whole, flush) {
                    return Some(whole);
                }
            }
        })
    }

    /// The next span from that entry on that is lost, was not answered and is to be told whole, and the index of the entry behind it.
    pub(crate) fn next_unreported(&self, index: usize) -> Option<(Span, usize)> {
        let is_untold = |entry: &Entry| entry.is_poisoned() && entry.answered.is_none();
        let (index, entry) =
            self.entries.iter().enumerate().skip(index).find(|(_, entry)| is_untold(entry))?;
        let (whole, members) = self.poisoned_with(index)?;
        let all = self.entries.get(members.clone()).unwrap_or_default();
        if members.start == index && covers(all, whole, is_untold) {
            Some((whole, members.end))
        } else {
            Some((entry.span, index + 1))
        }
    }

    /// What was lost together with that entry, and the entries in it: an older, wider loss of one of them takes the others with it.
    fn poisoned_with(&self, index: usize) -> Option<(Span, core::ops::Range<usize>)> {
        let mut whole = self.entries.get(index)?.poisoned_with;
        loop {
            let members = self.overlapping(whole);
            let poisoned_with = self.entries.get(members.clone())?.iter().map(|entry| entry.poisoned_with);
            match poisoned_with.max_by_key(|span| span.log2_len) {
                Some(wider) if wider.log2_len > whole.log2_len => whole = wider,
                _ => return Some((whole, members)),
            }
        }
    }
}

/// Whether these entries tell of every byte of `whole`, and each is as wanted.
fn covers(members: &[Entry], whole: Span, is_wanted: impl Fn(&Entry) -> bool) -> bool {
    members.iter().all(is_wanted)
        && members.iter().map(|entry| entry.span.bytes()).sum::<u64>() == whole.bytes()
}
