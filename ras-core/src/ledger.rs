//! The ledger of poisoned pages: what consumed them, how the guest was notified, and whether they were repaired.

mod poisoned;

use alloc::vec::Vec;

use crate::handshake::Record;
use crate::memory_error::{Kind, MemoryError, Origin, Span};
use crate::response::Response;
use crate::severity::Severity;

/// The poisoned pages, sorted by address.
///
/// An entry is no wider than one record (64 KiB), so that each can be acknowledged by itself; a wider error has several entries. Entries
/// never overlap. A look-up takes logarithmic time.
///
/// ```
/// use ras_core::ledger::Ledger;
/// use ras_core::{Kind, MemoryError, Origin, Response, Span};
///
/// let mut ledger = Ledger::with_capacity(64);
/// let span = Span::around(0x4020_1234, 12);
/// let kind = Kind::ActionRequired;
/// # let severity = ras_core::Severity::Recoverable;
/// ledger.record(&MemoryError { span, gpa: 0x4020_1234, kind, severity, vcpu: Some(1), origin: Origin::Sigbus, time_ns: 7 });
/// ledger.handled(span, Response::Sea);
/// let entry = ledger.at(0x4020_1fff).unwrap();
/// assert_eq!((entry.times, entry.response, entry.is_poisoned()), (1, Some(Response::Sea), true));
/// assert!(ledger.at(0x4020_2000).is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "Vec<Entry>"))]
pub struct Ledger {
    entries: Vec<Entry>,
    /// Bytes of all entries.
    bytes: u64,
    /// Bytes of those that are poisoned.
    poisoned: u64,
}

/// Pages that were poisoned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Entry {
    /// The pages.
    pub span: Span,
    /// The host page that was poisoned with them: the smallest unit that can be replaced.
    #[cfg_attr(feature = "serde", serde(rename = "lost-with"))]
    pub poisoned_with: Span,
    /// When the first error was reported to the VMM: nanoseconds of its monotonic clock.
    pub first_seen_ns: u64,
    /// When the last error was reported.
    pub last_seen_ns: u64,
    /// Number of errors reported.
    pub times: u64,
    /// How the last error was reported.
    pub origin: Origin,
    /// The severity of the worst error since it was poisoned. Recoverable in ledgers that do not have it.
    #[cfg_attr(feature = "serde", serde(default = "recoverable"))]
    pub severity: Severity,
    /// What consumed it last. `None` if nothing did.
    pub consumed_by: Option<ConsumedBy>,
    /// The last response. `None` if there was none yet.
    #[cfg_attr(feature = "serde", serde(rename = "answered"))]
    pub response: Option<Response>,
    /// When the guest acknowledged the last record. `None` if it did not, or if the response has none.
    pub acknowledged_ns: Option<u64>,
    /// When it was replaced by new memory. `None` while it is poisoned.
    pub repaired_ns: Option<u64>,
}

/// What consumed poisoned memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum ConsumedBy {
    /// A vCPU, by index.
    Vcpu(u32),
    /// A device model, on behalf of the guest.
    Device,
}

/// Why entries are not a valid ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A span is not a power of two of bytes from 4 KiB to 64 KiB (what it was poisoned with: to 1 GiB), is not aligned, or exceeds the
    /// address space.
    #[error("invalid span: 2^{log2_len} bytes at {gpa:#x}")]
    Span {
        /// Its first GPA.
        gpa: u64,
        /// Binary logarithm of its bytes.
        log2_len: u8,
    },
    /// An entry is outside the host page that it was poisoned with.
    #[error("the entry at {gpa:#x} is outside the host page that it was poisoned with")]
    Outside {
        /// Its first GPA.
        gpa: u64,
    },
    /// Two entries overlap.
    #[error("two entries contain {gpa:#x}")]
    Overlap {
        /// Its GPA.
        gpa: u64,
    },
    /// An entry was last seen before it was first seen, or never.
    #[error("the entry at {gpa:#x} was last seen before it was first seen, or never")]
    Times {
        /// Its first GPA.
        gpa: u64,
    },
}

impl Entry {
    /// Whether it is still poisoned.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.repaired_ns.is_none()
    }

    fn new(span: Span, error: &MemoryError) -> Self {
        let mut entry = Entry {
            span,
            poisoned_with: span,
            first_seen_ns: error.time_ns,
            last_seen_ns: error.time_ns,
            times: 0,
            origin: error.origin,
            severity: error.severity,
            consumed_by: None,
            response: None,
            acknowledged_ns: None,
            repaired_ns: None,
        };
        entry.seen(error);
        entry
    }

    /// Another error was reported: an earlier acknowledgement or repair does not apply to it. Unless a vCPU consumed another page that was
    /// poisoned with this one: then nothing new happened here.
    fn seen(&mut self, error: &MemoryError) {
        let poisoned_with = Span::around(error.span.gpa, error.span.log2_len);
        if poisoned_with.log2_len > self.poisoned_with.log2_len {
            self.poisoned_with = poisoned_with;
        }
        self.first_seen_ns = self.first_seen_ns.min(error.time_ns);
        self.last_seen_ns = self.last_seen_ns.max(error.time_ns);
        self.times = self.times.saturating_add(1);
        self.origin = error.origin;
        self.severity = match self.repaired_ns {
            Some(_) => error.severity,
            None => self.severity.worse(error.severity),
        };
        let elsewhere = error.kind == Kind::ActionRequired && !self.span.contains(error.gpa);
        if !elsewhere || self.repaired_ns.is_some() {
            self.acknowledged_ns = None;
        }
        if self.repaired_ns.take().is_some() {
            self.response = None;
        }
        if self.span.contains(error.gpa) {
            let consumed_by = match (error.kind, error.origin, error.vcpu) {
                (_, Origin::Device, _) => Some(ConsumedBy::Device),
                (Kind::ActionRequired, _, Some(vcpu)) => Some(ConsumedBy::Vcpu(vcpu)),
                _ => None,
            };
            self.consumed_by = consumed_by.or(self.consumed_by);
        }
    }

    /// Takes over the history of a part of it.
    fn absorb(&mut self, part: &Entry) {
        if part.poisoned_with.log2_len > self.poisoned_with.log2_len {
            self.poisoned_with = part.poisoned_with;
        }
        self.first_seen_ns = self.first_seen_ns.min(part.first_seen_ns);
        self.last_seen_ns = self.last_seen_ns.max(part.last_seen_ns);
        self.times = self.times.saturating_add(part.times);
        if part.is_poisoned() {
            self.severity = self.severity.worse(part.severity);
        }
        self.consumed_by = self.consumed_by.or(part.consumed_by);
        self.response = self.response.or(part.response);
    }
}

impl Ledger {
    /// The number of entries that an error of the largest span, 1 GiB, has.
    pub const MAX_ENTRIES_OF_ONE_ERROR: usize = 1 << (30 - Record::MAX_LOG2_LEN);

    /// An empty ledger that allocates no further memory for that number of entries.
    #[must_use]
    pub fn with_capacity(entries: usize) -> Self {
        Ledger { entries: Vec::with_capacity(entries), bytes: 0, poisoned: 0 }
    }

    /// Allocates memory for that number of further entries.
    pub fn reserve(&mut self, entries: usize) {
        self.entries.reserve(entries);
    }

    /// Records an error. Allocates no memory if there is capacity ([`reserve`](Self::reserve)) for as many further entries as the error
    /// has; those that it replaces are removed last.
    pub fn record(&mut self, error: &MemoryError) {
        let span = Span::around(error.span.gpa, error.span.log2_len);
        let known = self.overlapping(span);
        let chunk = span.log2_len.min(Record::MAX_LOG2_LEN);
        let chunks = 1_usize << (span.log2_len - chunk);
        match self.entries.get_mut(known.clone()) {
            // One entry, as wide or wider; or all of it is known, in entries of the largest width.
            Some(entries)
                if entries.iter().all(|entry| entry.span.log2_len >= chunk) && entries.len() >= chunks =>
            {
                for entry in entries {
                    if !entry.is_poisoned() {
                        self.poisoned += entry.span.bytes();
                    }
                    entry.seen(error);
                }
            }
            _ => {
                // The new entries are made in front of the known ones, which are then removed.
                let len = self.entries.len();
                let first = Entry::new(Span { gpa: span.gpa, log2_len: chunk }, error);
                self.entries.resize(len + chunks, first);
                self.entries.copy_within(known.start..len, known.start + chunks);
                let mut part = known.start + chunks;
                let end = known.end + chunks;
                for index in 0..chunks {
                    let span = Span { gpa: span.gpa + ((index as u64) << chunk), log2_len: chunk };
                    let mut entry = Entry::new(span, error);
                    let parts = self.entries.get(part..end).unwrap_or_default();
                    let parts = parts.iter().take_while(|part| span.contains(part.span.gpa));
                    part += parts.map(|part| entry.absorb(part)).count();
                    if let Some(place) = self.entries.get_mut(known.start + index) {
                        *place = entry;
                    }
                }
                self.bytes += span.bytes();
                self.poisoned += span.bytes();
                for part in self.entries.drain(known.start + chunks..end) {
                    self.bytes -= part.span.bytes();
                    self.poisoned -= if part.is_poisoned() { part.span.bytes() } else { 0 };
                }
            }
        }
    }

    /// A response was carried out for these pages.
    pub fn handled(&mut self, span: Span, response: Response) {
        self.each(span, |entry| entry.response = Some(response));
    }

    /// The guest acknowledged a record of these pages. A wider entry is not acknowledged by a record of a part.
    pub fn acknowledged(&mut self, span: Span, now_ns: u64) {
        self.each(span, |entry| {
            if entry.span.log2_len <= span.log2_len {
                entry.acknowledged_ns = Some(now_ns);
            }
        });
    }

    /// These pages were replaced by new memory. A wider entry is not repaired by a part.
    pub fn repaired(&mut self, span: Span, now_ns: u64) {
        let mut repaired = 0;
        self.each(span, |entry| {
            if entry.span.log2_len <= span.log2_len {
                repaired += if entry.is_poisoned() { entry.span.bytes() } else { 0 };
                entry.repaired_ns = Some(now_ns);
            }
        });
        self.poisoned -= repaired;
    }

    /// The entry that contains that address.
    #[must_use]
    pub fn at(&self, gpa: u64) -> Option<&Entry> {
        let behind = self.entries.partition_point(|entry| entry.span.gpa <= gpa);
        self.entries.get(behind.checked_sub(1)?).filter(|entry| entry.span.contains(gpa))
    }

    /// The entries that overlap the `len` bytes from `gpa` on.
    #[must_use]
    pub fn within(&self, gpa: u64, len: u64) -> &[Entry] {
        let Some(last) = len.checked_sub(1).map(|len| gpa.saturating_add(len)) else { return &[] };
        self.entries.get(self.between(gpa, last)).unwrap_or_default()
    }

    /// All entries, sorted by address.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of bytes that are poisoned now. Costs nothing.
    #[must_use]
    pub const fn poisoned_bytes(&self) -> u64 {
        self.poisoned
    }

    /// Number of distinct pages of 4 KiB that were poisoned so far, whether they were repaired or not. A poisoned page of 2 MiB is 512 of
    /// them.
    #[must_use]
    pub const fn distinct_pages(&self) -> u64 {
        self.bytes / 0x1000
    }

    /// The same, of errors that were first reported at `since_ns` or later.
    #[must_use]
    pub fn distinct_pages_since(&self, since_ns: u64) -> u64 {
        let recent = self.entries.iter().filter(|entry| entry.first_seen_ns >= since_ns);
        recent.map(|entry| entry.span.bytes()).sum::<u64>() / 0x1000
    }

    /// The entry of the last error.
    #[must_use]
    pub fn last(&self) -> Option<&Entry> {
        self.entries.iter().max_by_key(|entry| entry.last_seen_ns)
    }

    /// The guest was reset: the new guest was notified of nothing.
    pub(crate) fn clear_responses(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_poisoned()) {
            (entry.response, entry.acknowledged_ns) = (None, None);
        }
    }

    fn each(&mut self, span: Span, change: impl FnMut(&mut Entry)) {
        let known = self.overlapping(Span::around(span.gpa, span.log2_len));
        self.entries.get_mut(known).unwrap_or_default().iter_mut().for_each(change);
    }

    fn overlapping(&self, span: Span) -> core::ops::Range<usize> {
        self.between(span.gpa, span.gpa.saturating_add(span.bytes() - 1))
    }

    /// Indices of the entries that overlap `first` to `last`. The end is never before the start: entries do not overlap.
    fn between(&self, first: u64, last: u64) -> core::ops::Range<usize> {
        let start = self.entries.partition_point(|entry| entry.span.gpa + (entry.span.bytes() - 1) < first);
        let end = self.entries.partition_point(|entry| entry.span.gpa <= last);
        start..end.max(start)
    }
}

#[cfg(feature = "serde")]
const fn recoverable() -> Severity {
    Severity::Recoverable
}

/// Validates entries of any origin.
impl TryFrom<Vec<Entry>> for Ledger {
    type Error = LedgerError;

    fn try_from(mut entries: Vec<Entry>) -> Result<Self, LedgerError> {
        for Entry { span, poisoned_with, first_seen_ns, last_seen_ns, times, .. } in &entries {
            for (span, max_log2_len) in [(span, Record::MAX_LOG2_LEN), (poisoned_with, 30)] {
                let &Span { gpa, log2_len } = span;
                if log2_len > max_log2_len
                    || Span::around(gpa, log2_len) != *span
                    || gpa.checked_add(span.bytes() - 1).is_none()
                {
                    return Err(LedgerError::Span { gpa, log2_len });
                }
            }
            let gpa = span.gpa;
            if span.log2_len > poisoned_with.log2_len || !poisoned_with.contains(gpa) {
                return Err(LedgerError::Outside { gpa });
            }
            if first_seen_ns > last_seen_ns || *times == 0 {
                return Err(LedgerError::Times { gpa });
            }
        }
        entries.sort_unstable_by_key(|entry| entry.span.gpa);
        let mut neighbours = entries.iter().zip(entries.iter().skip(1));
        match neighbours.find(|(entry, next)| entry.span.contains(next.span.gpa)) {
            Some((_, next)) => Err(LedgerError::Overlap { gpa: next.span.gpa }),
            None => {
                let bytes = entries.iter().map(|entry| entry.span.bytes()).fold(0, u64::saturating_add);
                let poisoned = entries.iter().filter(|entry| entry.is_poisoned());
                let poisoned = poisoned.map(|entry| entry.span.bytes()).fold(0, u64::saturating_add);
                Ok(Ledger { entries, bytes, poisoned })
            }
        }
    }
}

/// As a list of entries.
#[cfg(feature = "serde")]
impl serde::Serialize for Ledger {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}
