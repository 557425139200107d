//! Pages that the guest was left without on purpose: the honest model of a page that the host has unmapped, on any KVM.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ras_core::Span;

/// Pages that are in no memory slot. Whoever changes the slots writes it down here, while no vCPU is in the guest.
#[derive(Debug, Default)]
pub struct MemslotHoles(Mutex<Vec<Span>>);

impl MemslotHoles {
    /// These pages are in no slot from now on.
    pub fn punch_hole(&self, span: Span) {
        self.lock().push(span);
    }

    /// They are in one again.
    pub fn fill_hole(&self, span: Span) {
        self.lock().retain(|memslot_holes| !span.contains(memslot_holes.gpa));
    }

    /// All are in one again.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Whether that page is one of them.
    #[must_use]
    pub fn contains(&self, gpa: u64) -> bool {
        self.around(gpa).is_some()
    }

    /// The span that was left out together with that page.
    #[must_use]
    pub fn around(&self, gpa: u64) -> Option<Span> {
        self.lock().iter().copied().find(|span| span.contains(gpa))
    }

    /// Whether any page of that span is one of them.
    #[must_use]
    pub fn overlaps(&self, span: Span) -> bool {
        self.lock()
            .iter()
            .any(|memslot_holes| memslot_holes.contains(span.gpa) || span.contains(memslot_holes.gpa))
    }

    /// Those within that span.
    #[must_use]
    pub fn within(&self, span: Span) -> Vec<Span> {
        self.lock().iter().copied().filter(|memslot_holes| span.contains(memslot_holes.gpa)).collect()
    }

    /// All of them.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
