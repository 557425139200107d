//! The start of the vCPUs, in the journal and the timings.

use std::sync::{Arc, OnceLock};

use vcpu::VcpuObserver;

use crate::journal::{Journal, Note};
use crate::timings::{Phase, Timings};

/// Records the first entry of each vCPU, and the machine's first exit.
pub struct StartupObserver {
    journal: Arc<Journal>,
    timings: Arc<Timings>,
    first_exit: OnceLock<()>,
}

impl StartupObserver {
    /// An observer of a machine that has not started.
    #[must_use]
    pub fn new(journal: Arc<Journal>, timings: Arc<Timings>) -> Self {
        StartupObserver { journal, timings, first_exit: OnceLock::new() }
    }
}

impl VcpuObserver for StartupObserver {
    fn vcpu_started(&self, vcpu: u32) {
        if vcpu == 0 {
            self.timings.mark(Phase::FirstRun);
        }
        self.journal.note(Note::VcpuStarted(vcpu));
    }

    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        if self.first_exit.set(()).is_ok() {
            self.timings.mark(Phase::FirstExit);
            self.journal.note(Note::FirstExit { vcpu, exit });
        }
    }
}
