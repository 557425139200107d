//! [`Reporting`] as the vCPUs' handler of memory errors.

use ras_core::vcpu_state::VcpuState;
use vcpu::{MemoryErrorHandler, PoisonAccess};

use super::Reporting;

impl MemoryErrorHandler for Reporting {
    fn consumed(&self, vcpu: u32, access: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>) {
        Reporting::consumed(self, vcpu, access, state);
    }

    fn unmapped_access(&self, gpa: u64) -> bool {
        self.accessed_poison(gpa)
    }

    fn pre_entry(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        Reporting::pre_entry(self, vcpu, state);
    }

    fn stopped(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        Reporting::stopped(self, vcpu, state);
    }

    fn poll(&self) {
        self.tick();
    }
}
