//! The ledger of poisoned pages, and their repair: their replacement by fresh pages.

use std::sync::atomic::Ordering;

use ras_core::Span;
use ras_core::ledger::{Entry, Ledger};
use ras_core::request::Repair;
use serde_json::json;

use super::{Hole, Reporting};
use crate::control;
use crate::journal::Note;

/// How long a guest may take to offline a page after it has acknowledged the error: Linux acknowledges first.
const GUEST_OFFLINE_DELAY_NS: u64 = 1_000_000_000;

/// Entries that may be added between two looks at the ledger.
const SNAPSHOT_RESERVE: usize = 1024;

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

/// A state of the ledger and of the memslot holes: equal if neither has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerVersion {
    changes: u64,
    holes: usize,
}

impl Reporting {
    /// The state of what [`ledger_snapshot`](Self::ledger_snapshot) returns.
    #[must_use]
    pub fn ledger_version(&self) -> LedgerVersion {
        let changes = self.lock().responder.ledger_changes();
        LedgerVersion { changes, holes: self.memslot_holes.total() }
    }

    /// The entries of the ledger, the memslot holes, and the time of the process's clock.
    #[must_use]
    pub fn ledger_snapshot(&self) -> (Vec<Entry>, Vec<Hole>, u64) {
        // Memory is allocated before the lock is taken: a vCPU may wait for it.
        let len = self.lock().responder.ledger().entries().len();
        let mut entries = Vec::with_capacity(len + SNAPSHOT_RESERVE);
        entries.extend_from_slice(self.lock().responder.ledger().entries());
        (entries, self.memslot_holes.all(), self.now_ns())
    }

    /// Takes over the ledger of an earlier process, of which `failed` pages could not be replaced, before the first boot. The others were
    /// replaced, unless nothing is ever repaired.
    pub fn inherit(&self, ledger: Ledger, failed: &[(Span, std::io::Error)]) {
        self.lock().responder.restore(ledger);
        if self.repair != Repair::Never {
            self.renewed(failed);
        }
    }

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
        self.lock().responder.ledger().poisoned_bytes() > 0
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

    /// When poisoned pages are replaced.
    #[must_use]
    pub const fn repair(&self) -> Repair {
        self.repair
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

    /// Records that a reset has replaced everything that was poisoned, except the pages that could not be replaced.
    pub fn renewed(&self, failed: &[(Span, std::io::Error)]) {
        let is_replaced =
            |span: Span| !failed.iter().any(|(page, _)| page.contains(span.gpa) || span.contains(page.gpa));
        let mut state = self.lock();
        state.unrepairable.clear();
        let entries = state.responder.ledger().entries().to_vec();
        drop(state);
        let poisoned = entries.into_iter().filter(|entry| entry.is_poisoned()).map(|entry| entry.span);
        poisoned.filter(|span| is_replaced(*span)).for_each(|span| self.repaired(span));
        // Holes that were not accessed are not in the ledger.
        self.memslot_holes.retain(|span| !is_replaced(span));
        failed.iter().for_each(|(page, error)| self.not_repaired(*page, error));
    }
}
