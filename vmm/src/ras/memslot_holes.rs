//! Pages that were removed from the guest's memslots. An access to one exits to the VMM, as an access to a page that the host
//! has unmapped does, on any KVM.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ras_core::{Origin, Severity, Span};

/// Pages that were removed from the memslots, and the error that they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The pages.
    pub span: Span,
    /// Who injected the error: [`Origin::Injected`] or [`Origin::Einj`].
    pub origin: Origin,
    /// The severity of the error.
    pub severity: Severity,
}

/// The hole of an injection request.
impl From<Span> for Hole {
    fn from(span: Span) -> Self {
        Hole { span, origin: Origin::Injected, severity: Severity::Recoverable }
    }
}

/// The holes in the guest's memslots. Code that changes the memslots updates it, while no vCPU runs.
#[derive(Debug, Default)]
pub struct MemslotHoles(Mutex<Vec<Hole>>);

impl MemslotHoles {
    /// Adds a hole.
    pub fn insert(&self, hole: impl Into<Hole>) {
        self.lock().push(hole.into());
    }

    /// Removes all holes that start in `span`.
    pub fn remove(&self, span: Span) {
        self.lock().retain(|hole| !span.contains(hole.span.gpa));
    }

    /// Removes all holes but these.
    pub fn retain(&self, is_kept: impl Fn(Span) -> bool) {
        self.lock().retain(|hole| is_kept(hole.span));
    }

    /// Whether `gpa` is in a hole.
    #[must_use]
    pub fn contains(&self, gpa: u64) -> bool {
        self.hole_at(gpa).is_some()
    }

    /// The hole that contains `gpa`. `None` if there is none.
    #[must_use]
    pub fn hole_at(&self, gpa: u64) -> Option<Hole> {
        self.lock().iter().copied().find(|hole| hole.span.contains(gpa))
    }

    /// The severity of an error at `gpa`: what its hole says, and recoverable elsewhere.
    #[must_use]
    pub fn severity_at(&self, gpa: u64) -> Severity {
        self.hole_at(gpa).map_or(Severity::Recoverable, |hole| hole.severity)
    }

    /// Whether any page of `span` is in a hole.
    #[must_use]
    pub fn overlaps(&self, span: Span) -> bool {
        self.lock().iter().any(|hole| hole.span.contains(span.gpa) || span.contains(hole.span.gpa))
    }

    /// The holes that start in `span`.
    #[must_use]
    pub fn within(&self, span: Span) -> Vec<Span> {
        let holes = self.lock();
        holes.iter().map(|hole| hole.span).filter(|hole| span.contains(hole.gpa)).collect()
    }

    /// All holes.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.lock().iter().map(|hole| hole.span).collect()
    }

    /// All holes, and what they stand for.
    #[must_use]
    pub fn all(&self) -> Vec<Hole> {
        self.lock().clone()
    }

    /// The number of holes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.lock().len()
    }

    /// The number of holes for errors of that origin.
    #[must_use]
    pub fn count(&self, origin: Origin) -> usize {
        self.lock().iter().filter(|hole| hole.origin == origin).count()
    }

    /// Sets the severity of the error in the hole that contains `gpa`.
    pub fn set_severity(&self, gpa: u64, severity: Severity) {
        if let Some(hole) = self.lock().iter_mut().find(|hole| hole.span.contains(gpa)) {
            hole.severity = severity;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Hole>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
