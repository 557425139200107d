//! Machine checks whose handler may not have ended.

use crate::actions::Unacknowledged;
use crate::memory_error::{MemoryError, Span};
use crate::queue::Queue;
use crate::severity::Severity;

/// The vCPUs that were notified of a consumed error, until they are observed without a machine check in progress. A vCPU that does not fit
/// is not observed.
#[derive(Clone, Debug)]
pub(super) struct InProgress<const N: usize>(Queue<Check, N>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Check {
    vcpu: u32,
    /// What it consumed.
    span: Span,
    severity: Severity,
    /// When it is to be observed.
    observe_ns: u64,
    overdue: bool,
}

impl<const N: usize> Default for InProgress<N> {
    fn default() -> Self {
        InProgress(Queue::new())
    }
}

impl<const N: usize> InProgress<N> {
    /// All vCPUs take part in one more machine check: no other is overdue before this one can be.
    pub(super) fn postpone(&mut self, observe_ns: u64) {
        for check in self.0.iter_mut().filter(|check| !check.overdue) {
            check.observe_ns = observe_ns;
        }
    }

    /// A vCPU was notified: an earlier machine check of it has ended.
    pub(super) fn start(&mut self, vcpu: u32, error: &MemoryError, observe_ns: u64) {
        self.end(vcpu);
        // An error means that there are too many.
        let _ = self.0.push(Check {
            vcpu,
            span: error.span,
            severity: error.severity,
            observe_ns,
            overdue: false,
        });
    }

    /// A vCPU has none in progress.
    pub(super) fn end(&mut self, vcpu: u32) {
        self.0.take_first(|check| check.vcpu == vcpu);
    }

    /// A vCPU still has one in progress, and is to be observed again. Returns it the first time.
    pub(super) fn continues(&mut self, vcpu: u32, observe_ns: u64) -> Option<Unacknowledged> {
        let check = self.0.iter_mut().find(|check| check.vcpu == vcpu)?;
        check.observe_ns = observe_ns;
        let is_known = core::mem::replace(&mut check.overdue, true);
        (!is_known).then(|| check.as_unacknowledged())
    }

    /// A vCPU that is to be observed.
    pub(super) fn due(&self, now_ns: u64) -> Option<u32> {
        self.0.iter().find(|check| now_ns >= check.observe_ns).map(|check| check.vcpu)
    }

    /// The first.
    pub(super) fn first(&self) -> Option<Unacknowledged> {
        self.0.iter().next().map(Check::as_unacknowledged)
    }

    /// The first that is overdue.
    pub(super) fn overdue(&self) -> Option<Unacknowledged> {
        self.0.iter().find(|check| check.overdue).map(Check::as_unacknowledged)
    }
}

impl Check {
    fn as_unacknowledged(&self) -> Unacknowledged {
        let Check { vcpu, span, severity, .. } = *self;
        Unacknowledged { source: None, span, severity, consumed_by: Some(vcpu) }
    }
}
