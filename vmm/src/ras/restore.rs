//! Errors that the guest need not know of: in reserved memory, whose pages are replaced by pages with the same contents, and in
//! pages that were replaced before their error arrived here. Pages that devices gave back to the host.

use std::io;

use guest_memory::AccessError;
use ras_core::{MemoryError, Origin, Response, Span};

use super::{Hole, Reporting, State, log2};
use crate::journal::Note;

/// A memslot hole in memory that was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredHole {
    /// The hole.
    pub span: Span,
    /// The vCPU that is held until it is filled.
    pub vcpu: Option<u32>,
}

impl Reporting {
    /// Whether a page is poisoned, or in a memslot hole, which stands for a poisoned page.
    pub(super) fn is_poisoned(&self, gpa: u64) -> bool {
        self.memslot_holes.contains(gpa) || matches!(self.ram.probe(gpa, 1), Err(AccessError::Poisoned(_)))
    }

    /// Records a detected error whose page was replaced before the error arrived here: by a reset, after which the guest that runs
    /// now has a fresh page, or after another report of the same error.
    pub(super) fn record_replaced(&self, state: &mut State, error: &MemoryError) {
        self.journal.note(Note::MemoryError { error: *error, response: Response::Ignore });
        state.responder.record_restored(error, self.now_ns());
    }

    /// Replaces a poisoned page of reserved memory by one with the same contents. Returns false if the page is the guest's own, or
    /// cannot be replaced: then the response is the plan's.
    pub(super) fn restored(&self, state: &mut State, error: &MemoryError) -> bool {
        let log2_page = log2(self.ram.backing().page_size());
        let pages = Span::around(error.gpa, error.span.log2_len.max(log2_page));
        if !state.platform.contains(pages) || state.unrepairable.contains(&pages) {
            return false;
        }
        // Another vCPU may have accessed it first: then it is replaced already, and this one accesses it again. After
        // KVM_EXIT_ARM_SEA a page that can be read says nothing: the host may not have isolated it, and has it mapped.
        if error.origin != Origin::ArmSea && !self.is_poisoned(error.gpa) {
            return true;
        }
        self.journal.note(Note::MemoryError { error: *error, response: Response::Ignore });
        if let Err(cause) = state.platform.replace(&self.ram, pages) {
            tracing::error!(%cause, gpa = pages.gpa, "a poisoned page of reserved memory cannot be replaced");
            state.unrepairable.push(pages);
            self.journal.note(Note::NotRepaired(pages));
            return false;
        }
        state.responder.record_restored(error, self.now_ns());
        match self.memslot_holes.hole_at(error.gpa) {
            None => self.journal.note(Note::Repaired(pages)),
            // Memslots are changed while no vCPU runs, by the main thread.
            Some(Hole { span, .. }) => {
                if let (Some(vcpu), Some(executor)) = (error.vcpu, &state.executor) {
                    executor.control.hold(vcpu);
                }
                state.restored_holes.push(RestoredHole { span, vcpu: error.vcpu });
            }
        }
        true
    }

    /// Takes the memslot holes in memory that was restored: the main thread fills them, and calls [`filled`](Self::filled).
    #[must_use]
    pub fn take_restored_holes(&self) -> Vec<RestoredHole> {
        std::mem::take(&mut self.lock().restored_holes)
    }

    /// A hole was filled, or could not be: then it counts as a poisoned page that cannot be replaced. Its vCPU is released.
    pub fn filled(&self, hole: RestoredHole, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {
                self.memslot_holes.remove(hole.span);
                self.journal.note(Note::Repaired(hole.span));
            }
            Err(error) => self.not_repaired(hole.span, &error),
        }
        if let (Some(vcpu), Some(executor)) = (hole.vcpu, &self.lock().executor) {
            executor.control.release(vcpu);
        }
    }

    /// A device gave pages back to the host, which the guest does not use: those that were poisoned are fresh ones now, whatever
    /// `ras.repair` says. Called on the device's thread, before the guest can use them again.
    pub fn discarded(&self, gpa: u64, len: u64) {
        let mut state = self.lock();
        let entries = state.responder.ledger().within(gpa, len).iter();
        let is_discarded = |span: &Span| span.gpa >= gpa && span.bytes() <= len - (span.gpa - gpa);
        let poisoned =
            entries.filter(|entry| entry.is_poisoned()).map(|entry| entry.span).filter(is_discarded);
        let poisoned: Vec<Span> = poisoned.collect();
        // A memslot hole is filled by the main thread. Until then the guest cannot use the page.
        let (mut holes, repaired): (Vec<_>, Vec<_>) =
            poisoned.into_iter().partition(|&span| self.memslot_holes.overlaps(span));
        // Filled once: what the guest writes there afterwards stays.
        holes.retain(|hole| !state.discarded_holes.contains(hole));
        state.discarded_holes.extend(holes);
        drop(state);
        repaired.into_iter().for_each(|span| self.repaired(span));
    }

    /// Allocates memory for the errors to come, so that none has to while a vCPU waits.
    pub fn reserve(&self) {
        let mut state = self.lock();
        state.responder.reserve();
        state.restored_holes.reserve(super::WAITING_CAPACITY);
        state.unrepairable.reserve(super::WAITING_CAPACITY);
    }
}
