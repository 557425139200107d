//! What is known to be lost, and what of it is replaced by fresh memory.

use guest_memory::sigbus;
use ras_core::Span;
use ras_core::request::Repair;
use serde_json::{Value, json};

use super::Reporting;
use crate::journal::Note;

/// How long a guest that has acknowledged an error has to take the page from its programs: Linux acknowledges before it does.
const GUEST_OFFLINE_DELAY_NS: u64 = 1_000_000_000;

impl Reporting {
    /// What was lost so far, as JSON.
    #[must_use]
    pub fn ledger(&self) -> Value {
        // Not written as JSON under the lock: a vCPU may wait for it.
        let ledger = self.lock().responder.ledger().clone();
        json!({ "entries": ledger, "bytes_lost": ledger.poisoned_bytes() })
    }

    /// How often each event happened, and what can be said in numbers of memory errors, as JSON.
    #[must_use]
    pub fn metrics(&self) -> Value {
        self.journal.flush();
        let (entries, bytes_lost) = {
            let state = self.lock();
            let ledger = state.responder.ledger();
            (ledger.entries().len(), ledger.poisoned_bytes())
        };
        json!({
            "events": self.journal.counts(),
            "ledger_entries": entries,
            "bytes_lost": bytes_lost,
            "signals_not_kept": sigbus::overflowed(),
        })
    }

    /// Spans that the profile allows to be replaced by fresh memory while the guest runs.
    #[must_use]
    pub fn repairable(&self) -> Vec<Span> {
        if self.repair != Repair::WhenAcknowledged {
            return Vec::new();
        }
        let now_ns = self.now_ns();
        let state = self.lock();
        let repairable = state.responder.ledger().repairable_after(GUEST_OFFLINE_DELAY_NS, now_ns);
        repairable.filter(|span| !state.unrepairable.contains(span)).collect()
    }

    /// The runs of memory, as GPA and bytes, that stay lost when the machine is reset.
    #[must_use]
    pub fn lost_over_reset(&self) -> Vec<(u64, u64)> {
        if self.repair != Repair::Never {
            return Vec::new();
        }
        self.lock().responder.ledger().poisoned_ranges().collect()
    }

    /// Fresh memory took the place of these pages.
    pub fn repaired(&self, span: Span) {
        self.memslot_holes.fill_hole(span);
        self.lock().responder.repaired(span, self.now_ns());
        self.journal.write(Note::Repaired(span));
    }

    /// They could not be replaced, and stay lost.
    pub fn not_repaired(&self, span: Span, error: &std::io::Error) {
        tracing::error!(%error, "poisoned memory cannot be replaced");
        self.lock().unrepairable.push(span);
        self.journal.write(Note::NotRepaired(span));
    }

    /// Fresh memory took the place of everything that was lost and does not stay so over a reset.
    pub fn repaired_by_reset(&self) {
        if self.repair != Repair::Never {
            let entries = self.lock().responder.ledger().entries().to_vec();
            let lost = entries.into_iter().filter(|entry| entry.is_poisoned()).map(|entry| entry.span);
            lost.for_each(|span| self.repaired(span));
            // What nobody has touched is in no ledger.
            self.memslot_holes.clear();
            self.lock().unrepairable.clear();
        }
    }
}
