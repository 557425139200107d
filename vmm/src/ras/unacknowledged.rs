//! Errors that the guest has not acknowledged: those that are overdue, and the one that it may have died of.

use std::sync::atomic::Ordering;

use ras_core::Response;
use ras_core::actions::Unacknowledged;
use ras_core::vcpu_state::VcpuState;
use serde_json::{Value, json};

use super::Reporting;

impl Reporting {
    /// The records that the guest has not acknowledged in time. If a vCPU consumed the error of one, its guest may hang.
    #[must_use]
    pub fn overdue(&self) -> Vec<Value> {
        let overdue: Vec<_> = self.lock().responder.overdue().collect();
        let as_json = |Unacknowledged { source, span, consumed_by, .. }| json!({ "source": source, "gpa": span.gpa, "span": span.bytes(), "consumed_by": consumed_by });
        overdue.into_iter().map(as_json).collect()
    }

    /// A vCPU has left its run loop. A machine check that it has not taken yet has not ended.
    pub fn stopped(&self, vcpu: u32, read_state: &mut dyn FnMut() -> Option<VcpuState>) {
        if ![self.consumed_response, self.detected_response].contains(&Response::Mce) {
            return;
        }
        let mut state = self.lock();
        if state.executor.as_ref().is_some_and(|executor| executor.control.has_exception(vcpu)) {
            return;
        }
        let vcpu_state = read_state();
        // One in progress is no news: the guest is not going to end it.
        if matches!(vcpu_state, Some(VcpuState::X86_64(state)) if !state.in_progress) {
            self.step(&mut state, vcpu_state, |responder, context, sink| {
                responder.observe(vcpu, context, sink)
            });
        }
    }

    /// The error that the guest of this boot has not acknowledged, after its vCPUs have [stopped](Self::stopped).
    #[must_use]
    pub fn unacknowledged(&self) -> Option<Unacknowledged> {
        let mut found = None;
        self.step(&mut self.lock(), None, |responder, context, _| found = responder.unacknowledged(context));
        found
    }

    /// Counts an end of the guest with an error that it had not acknowledged.
    pub fn died_after_error(&self) {
        self.deaths_after_error.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the guest has ended so.
    #[must_use]
    pub fn deaths_after_error(&self) -> u64 {
        self.deaths_after_error.load(Ordering::Relaxed)
    }
}
