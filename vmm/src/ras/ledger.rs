//! The ledger of poisoned pages, and their repair: their replacement by fresh pages.

use std::sync::atomic::Ordering;

use ras_core::Span;
use ras_core::request::Repair;
use serde_json::json;

use super::Reporting;
use crate::control;
use crate::journal::Note;

/// How long a guest may take to offline a page after it has acknowledged the error: Linux acknowledges first.
const GUEST_OFFLINE_DELAY_NS: u64 = 1_000_000_000;

const HOUR_NS: u64 = 3_600_000_000_000;

/// The ledger in a few numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerSummary {
    /// Its entries.
    pub entries: u64,
    /// Bytes that are poisoned now.
    pub poisoned_bytes: u64,
    /// Distinct pages of 4 KiB that were poisoned so far.
    pub pages: u64,
    /// Those of them that were first reported within the last hour.
    pub pages_last_hour: u64,
    /// The GPA of the last error; 0 if there was none.
    pub last_gpa: u64,
}

impl Reporting {
    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> control::Ledger {
        // JSON is made after the lock is released: a vCPU may wait for it.
        let ledger = self.lock().responder.ledger().clone();
        control::Ledger { entries: json!(ledger), bytes_lost: ledger.poisoned_bytes() }
    }

    /// What metrics say of it.
    #[must_use]
    pub fn ledger_summary(&self) -> LedgerSummary {
        let hour_ago_ns = self.now_ns().saturating_sub(HOUR_NS);
        let state = self.lock();
        let ledger = state.responder.ledger();
        LedgerSummary {
            entries: ledger.entries().len() as u64,
            poisoned_bytes: ledger.poisoned_bytes(),
            pages: ledger.distinct_pages(),
            pages_last_hour: ledger.distinct_pages_since(hour_ago_ns),
            last_gpa: ledger.last().map_or(0, |entry| entry.span.gpa),
        }
    }

    /// Number of distinct pages of 4 KiB that were poisoned so far, whether they were repaired or not.
    #[must_use]
    pub fn distinct_pages(&self) -> u64 {
        self.lock().responder.ledger().distinct_pages()
    }

    /// Its number of entries.
    #[must_use]
    pub fn ledger_entries(&self) -> u64 {
        self.lock().responder.ledger().entries().len() as u64
    }

    /// Whether it has an entry for that address.
    #[must_use]
    pub fn is_in_ledger(&self, gpa: u64) -> bool {
        self.lock().responder.ledger().at(gpa).is_some()
    }

    /// Whether guest memory has poisoned pages, as far as is known.
    #[must_use]
    pub fn has_poisoned_pages(&self) -> bool {
        self.lock().responder.ledger().poisoned_ranges().next().is_some()
    }

    /// Spans whose pages may be replaced while the guest runs: according to the profile's `ras.repair`, and memslot holes that a
    /// device gave back to the host, each once.
    #[must_use]
    pub fn repairable(&self) -> Vec<Span> {
        let now_ns = self.now_ns();
        let mut state = self.lock();
        let mut spans = std::mem::take(&mut state.discarded_holes);
        if self.repair == Repair::WhenAcknowledged {
            spans.extend(state.responder.ledger().repairable_after(GUEST_OFFLINE_DELAY_NS, now_ns));
        }
        spans.retain(|span| !state.unrepairable.contains(span));
        spans
    }

    /// The memory that is poisoned now, as GPA and bytes: memslot holes too, which stand for poisoned pages.
    #[must_use]
    pub fn poisoned_ranges(&self) -> Vec<(u64, u64)> {
        let holes = self.memslot_holes.spans().into_iter().map(|span| (span.gpa, span.bytes()));
        let mut ranges: Vec<_> = self.lock().responder.ledger().poisoned_ranges().collect();
        ranges.extend(holes);
        ranges
    }

    /// The ranges of memory, as GPA and bytes, that stay poisoned across a reset.
    #[must_use]
    pub fn poisoned_across_reset(&self) -> Vec<(u64, u64)> {
        if self.repair != Repair::Never {
            return Vec::new();
        }
        self.lock().responder.ledger().poisoned_ranges().collect()
    }

    /// Records that these pages were replaced.
    pub fn repaired(&self, span: Span) {
        self.memslot_holes.remove(span);
        self.lock().responder.repaired(span, self.now_ns());
        self.journal.note(Note::Repaired(span));
    }

    /// Records that this guest memory was moved away from a page of the host that is out of use since, with its physical address there.
    pub fn retired(&self, span: Span, host_address: Option<u64>) {
        self.retired_bytes.fetch_add(span.bytes(), Ordering::Relaxed);
        self.journal.note(Note::Retired { span, host_address });
    }

    /// The bytes of guest memory that were moved away from suspect pages of the host.
    #[must_use]
    pub fn retired_bytes(&self) -> u64 {
        self.retired_bytes.load(Ordering::Relaxed)
    }

    /// Records that these pages could not be replaced: they stay poisoned.
    pub fn not_repaired(&self, span: Span, error: &std::io::Error) {
        tracing::error!(%error, "poisoned pages cannot be replaced");
        self.lock().unrepairable.push(span);
        self.journal.note(Note::NotRepaired(span));
    }

    /// Records that a reset replaced all pages that do not stay poisoned across it.
    pub fn repaired_by_reset(&self) {
        if self.repair != Repair::Never {
            let entries = self.lock().responder.ledger().entries().to_vec();
            let poisoned = entries.into_iter().filter(|entry| entry.is_poisoned()).map(|entry| entry.span);
            poisoned.for_each(|span| self.repaired(span));
            // Holes that were not accessed are not in the ledger.
            self.memslot_holes.clear();
            self.lock().unrepairable.clear();
        }
    }
}
