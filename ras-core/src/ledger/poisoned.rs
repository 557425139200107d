//! What is poisoned now, and what of it may be repaired.

use super::{Entry, Ledger};
use crate::memory_error::Span;

impl Ledger {
    /// The poisoned ranges as (first GPA, bytes), sorted by address; adjacent ones are merged. If poisoned memory is never repaired, a guest
    /// that boots again must not use them.
    ///
    /// ```
    /// # use ras_core::{Kind, MemoryError, Origin, Severity, Span, ledger::Ledger};
    /// # let detected = |gpa, log2_len| MemoryError {
    /// #     span: Span::around(gpa, log2_len), gpa, kind: Kind::ActionOptional,
    /// #     severity: Severity::Recoverable, vcpu: None, origin: Origin::Sigbus, time_ns: 7,
    /// # };
    /// let mut ledger = Ledger::default();
    /// for (gpa, log2_len) in [(0x4000_0000, 21), (0x4020_0000, 12), (0x4800_0000, 12)] {
    ///     ledger.record(&detected(gpa, log2_len));
    /// }
    /// assert!(ledger.poisoned_ranges().eq([(0x4000_0000, 0x20_1000), (0x4800_0000, 0x1000)]));
    /// ```
    pub fn poisoned_ranges(&self) -> impl Iterator<Item = (u64, u64)> {
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

    /// The host pages that may be repaired once the guest has acknowledged them: all of the page is still poisoned, and was acknowledged
    /// after its last error.
    ///
    /// An acknowledgement says that the guest has read the record, not that it has handled it: Linux unmaps the page from its processes a
    /// moment later, and a process that accesses it in between would read the new memory as its own data. To leave that time, use
    /// [`repairable_after`](Self::repairable_after).
    ///
    /// ```
    /// # use ras_core::{Kind, MemoryError, Origin, Severity, Span, ledger::Ledger};
    /// # let mut ledger = Ledger::default();
    /// // 2 MiB are poisoned together, and a record reports 64 KiB.
    /// let page = Span::around(0x4000_0000, 21);
    /// # let error = MemoryError {
    /// #     span: page, gpa: page.gpa, kind: Kind::ActionOptional,
    /// #     severity: Severity::Recoverable, vcpu: None, origin: Origin::Sigbus, time_ns: 7,
    /// # };
    /// ledger.record(&error);
    /// ledger.acknowledged(Span::around(0x4000_0000, 16), 8);
    /// assert_eq!(ledger.repairable().next(), None);
    /// ledger.acknowledged(page, 9);
    /// assert!(ledger.repairable().eq([page]));
    /// ledger.repaired(page, 10);
    /// assert_eq!(ledger.repairable().next(), None);
    /// ```
    pub fn repairable(&self) -> impl Iterator<Item = Span> {
        self.acknowledged_by(u64::MAX)
    }

    /// The same, if it was acknowledged at least `delay_ns` before `now_ns`, and no error was reported since.
    pub fn repairable_after(&self, delay_ns: u64, now_ns: u64) -> impl Iterator<Item = Span> {
        now_ns.checked_sub(delay_ns).into_iter().flat_map(|latest_ns| self.acknowledged_by(latest_ns))
    }

    fn acknowledged_by(&self, latest_ns: u64) -> impl Iterator<Item = Span> {
        let is_acknowledged = move |entry: &Entry| {
            entry.is_poisoned() && entry.acknowledged_ns.is_some_and(|then| then <= latest_ns)
        };
        let mut index = 0;
        core::iter::from_fn(move || {
            loop {
                index += self.entries.get(index..)?.iter().position(is_acknowledged)?;
                let (whole, members) = self.poisoned_with(index)?;
                index = members.end;
                let members = self.entries.get(members).unwrap_or_default();
                if covers(members, whole, is_acknowledged) {
                    return Some(whole);
                }
            }
        })
    }

    /// The next span from that entry on that is poisoned, had no response, and is to be reported as a whole; and the index of the entry
    /// after it.
    pub(crate) fn next_unreported(&self, index: usize) -> Option<(Span, usize)> {
        let is_unreported = |entry: &Entry| entry.is_poisoned() && entry.response.is_none();
        let (index, entry) =
            self.entries.iter().enumerate().skip(index).find(|(_, entry)| is_unreported(entry))?;
        let (whole, members) = self.poisoned_with(index)?;
        let all = self.entries.get(members.clone()).unwrap_or_default();
        if members.start == index && covers(all, whole, is_unreported) {
            Some((whole, members.end))
        } else {
            Some((entry.span, index + 1))
        }
    }

    /// The host page that was poisoned with that entry, and the entries in it: an older, wider error of one of them includes the others.
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

/// Whether these entries cover every byte of `whole`, and each satisfies the predicate.
fn covers(members: &[Entry], whole: Span, predicate: impl Fn(&Entry) -> bool) -> bool {
    members.iter().all(predicate)
        && members.iter().map(|entry| entry.span.bytes()).sum::<u64>() == whole.bytes()
}
