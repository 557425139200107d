//! The guest is not notified.

use alloc::boxed::Box;

use super::{Registration, Reporter, ReporterContext};
use crate::actions::{ActionSink, ErrorEvent};
use crate::memory_error::MemoryError;
use crate::response::Response;

pub(super) const REGISTRATION: Registration = Registration {
    carries: |response| matches!(response, Response::Ignore),
    build: |_| Ok(Box::new(Ignore)),
};

/// Leaves detected errors to the ledger, and corrected ones to the hardware.
#[derive(Clone, Copy, Debug)]
pub struct Ignore;

impl Reporter for Ignore {
    fn report(&mut self, error: &MemoryError, _context: &ReporterContext, sink: &mut dyn ActionSink) {
        sink.event(ErrorEvent::Handled { span: error.span, response: Response::Ignore });
    }
}
