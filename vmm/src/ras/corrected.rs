//! Corrected errors: nothing is poisoned, and the guest may be notified.

use ras_core::{CorrectedErrors, Kind, MemoryError, Origin, Severity, Span};

use super::Reporting;
use crate::journal::Note;

impl Reporting {
    /// Whether the guest has a source of corrected errors.
    #[must_use]
    pub fn has_corrected_source(&self) -> bool {
        self.corrected_response.writes_record()
    }

    /// Reports a corrected error in the page of that address. Called on the main thread.
    pub fn corrected(&self, gpa: u64, origin: Origin) {
        let error = MemoryError {
            span: Span::around(gpa, 12),
            gpa,
            kind: Kind::Corrected,
            severity: Severity::Corrected,
            vcpu: None,
            origin,
            time_ns: self.now_ns(),
        };
        let mut state = self.lock();
        self.journal.note(Note::MemoryError { error, response: self.corrected_response });
        self.step(&mut state, None, |responder, context, sink| responder.report(&error, context, sink));
    }

    /// Their numbers so far.
    #[must_use]
    pub fn corrected_errors(&self) -> CorrectedErrors {
        self.lock().responder.corrected_errors()
    }
}
