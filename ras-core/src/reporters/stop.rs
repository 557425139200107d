//! The VM is stopped.

use alloc::boxed::Box;

use super::{Registration, Reporter, ReporterContext};
use crate::actions::{Action, ActionSink, ErrorEvent, StopReason, StopReport};
use crate::memory_error::MemoryError;
use crate::response::Response;

pub(super) const REGISTRATION: Registration =
    Registration { carries: |response| matches!(response, Response::Stop), build: |_| Ok(Box::new(Stop)) };

/// Stops the VM at the first error.
#[derive(Clone, Copy, Debug)]
pub struct Stop;

impl Reporter for Stop {
    fn report(&mut self, error: &MemoryError, _context: &ReporterContext, sink: &mut dyn ActionSink) {
        stop(*error, StopReason::Planned, sink);
    }
}

/// Stops the VM because of an error in the guest's memory.
pub(crate) fn stop(error: MemoryError, reason: StopReason, sink: &mut dyn ActionSink) {
    sink.event(ErrorEvent::Handled { span: error.span, response: Response::Stop });
    // A VMM can always stop.
    let _ = sink.act(Action::Stop { report: StopReport { reason, error: Some(error) } });
}
