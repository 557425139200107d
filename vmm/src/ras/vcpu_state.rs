//! What waits for the state of a vCPU, which its own thread reads before it enters the guest.

use std::sync::atomic::Ordering;

use ras_core::vcpu_state::VcpuState;

use super::{NO_VCPU, Reporting};

impl Reporting {
    /// Reports the next error that waits for the state of vCPU 0, which is about to enter the guest. The error keeps waiting
    /// while the vCPU has a machine check to take, or the guest has not read a bank: both would be overwritten.
    pub fn pre_entry(&self, vcpu: u32, read_state: &mut dyn FnMut() -> Option<VcpuState>) {
        if self.awaited_vcpu.load(Ordering::Acquire) == vcpu {
            self.observe(vcpu, read_state);
        }
        if vcpu != 0 || !self.needs_vcpu_state.load(Ordering::Acquire) {
            return;
        }
        let vcpu_state = read_state();
        if matches!(vcpu_state, Some(VcpuState::X86_64(state)) if state.in_progress || state.detected_unread)
        {
            return;
        }
        let mut state = self.lock();
        if state.executor.as_ref().is_some_and(|executor| executor.control.has_exception(vcpu)) {
            return;
        }
        // One at a time: the next one waits until the vCPU has taken this one.
        if let Some(error) = state.waiting_for_state.pop_front() {
            self.step(&mut state, vcpu_state, |responder, context, sink| {
                responder.respond(&error, context, sink)
            });
        }
        self.needs_vcpu_state.store(!state.waiting_for_state.is_empty(), Ordering::Release);
    }

    /// Passes the state of the vCPU that the responder awaits to it. A machine check that the vCPU has not taken yet has not ended.
    fn observe(&self, vcpu: u32, read_state: &mut dyn FnMut() -> Option<VcpuState>) {
        let mut state = self.lock();
        self.awaited_vcpu.store(NO_VCPU, Ordering::Release);
        let vcpu_state = read_state();
        let has_exception =
            state.executor.as_ref().is_some_and(|executor| executor.control.has_exception(vcpu));
        if !has_exception || matches!(vcpu_state, Some(VcpuState::X86_64(state)) if state.in_progress) {
            self.step(&mut state, vcpu_state, |responder, context, sink| {
                responder.observe(vcpu, context, sink)
            });
        }
    }

    /// Whether the state of a vCPU is needed, which has to exit for that.
    #[must_use]
    pub fn needs_vcpu_state(&self) -> bool {
        self.needs_vcpu_state.load(Ordering::Acquire) || self.awaited_vcpu.load(Ordering::Acquire) != NO_VCPU
    }
}
