//! Pages that were removed from the guest's memslots. An access to one exits to the VMM, as an access to a page that the host
//! has unmapped does, on any KVM.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ras_core::Span;

/// The holes in the guest's memslots. Code that changes the memslots updates it, while no vCPU runs.
#[derive(Debug, Default)]
pub struct MemslotHoles(Mutex<Vec<Span>>);

impl MemslotHoles {
    /// Adds a hole.
    pub fn insert(&self, span: Span) {
        self.lock().push(span);
    }

    /// Removes all holes that start in `span`.
    pub fn remove(&self, span: Span) {
        self.lock().retain(|hole| !span.contains(hole.gpa));
    }

    /// Removes all holes.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Whether `gpa` is in a hole.
    #[must_use]
    pub fn contains(&self, gpa: u64) -> bool {
        self.hole_at(gpa).is_some()
    }

    /// The hole that contains `gpa`. `None` if there is none.
    #[must_use]
    pub fn hole_at(&self, gpa: u64) -> Option<Span> {
        self.lock().iter().copied().find(|hole| hole.contains(gpa))
    }

    /// Whether any page of `span` is in a hole.
    #[must_use]
    pub fn overlaps(&self, span: Span) -> bool {
        self.lock().iter().any(|hole| hole.contains(span.gpa) || span.contains(hole.gpa))
    }

    /// The holes that start in `span`.
    #[must_use]
    pub fn within(&self, span: Span) -> Vec<Span> {
        self.lock().iter().copied().filter(|hole| span.contains(hole.gpa)).collect()
    }

    /// All holes.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
