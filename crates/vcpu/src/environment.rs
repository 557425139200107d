//! What surrounds a vCPU: devices, the handler of memory errors, and an observer.

use std::sync::Arc;

use ras_core::vcpu_state::VcpuState;

use crate::poison_access::PoisonAccess;

/// No device is mapped at the address. A read then returns all ones, and a write has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no device is mapped at the address")]
pub struct Unmapped;

/// The I/O bus: devices at ports (x86_64) and at guest physical addresses. All vCPUs share it and call it concurrently. By default
/// there is no device.
pub trait IoBus: Send + Sync {
    /// Reads 1, 2 or 4 bytes from a port.
    ///
    /// # Errors
    /// Returns an error, and leaves `data` as it is, if no device is mapped at the port.
    fn port_in(&self, port: u16, data: &mut [u8]) -> Result<(), Unmapped> {
        let _ = (port, data);
        Err(Unmapped)
    }

    /// Writes 1, 2 or 4 bytes to a port.
    ///
    /// # Errors
    /// Returns an error if no device is mapped at the port.
    fn port_out(&self, port: u16, data: &[u8]) -> Result<(), Unmapped> {
        let _ = (port, data);
        Err(Unmapped)
    }

    /// Reads 1 to 8 bytes from a GPA that no memory slot contains.
    ///
    /// # Errors
    /// Returns an error, and leaves `data` as it is, if no device is mapped at the address.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) -> Result<(), Unmapped> {
        let _ = (gpa, data);
        Err(Unmapped)
    }

    /// Writes 1 to 8 bytes to a GPA that no memory slot contains.
    ///
    /// # Errors
    /// Returns an error if no device is mapped at the address.
    fn mmio_write(&self, gpa: u64, data: &[u8]) -> Result<(), Unmapped> {
        let _ = (gpa, data);
        Err(Unmapped)
    }

    /// aarch64: KVM_EXIT_SYSTEM_EVENT, by which the guest requests power-off or reset, or reports a crash. `kind` is one of
    /// KVM_SYSTEM_EVENT_*. The requested run state is read again afterwards.
    fn system_event(&self, kind: u32) {
        let _ = kind;
    }
}

/// Handles accesses of vCPUs to poisoned memory. Its methods are called by the vCPU threads, concurrently.
///
/// `state` reads registers of the calling vCPU. It costs a few ioctls, so call it only if they are needed. A method requests what the vCPU
/// does next through the [`Control`](crate::Control) before it returns: it [injects](crate::Control::inject) an exception,
/// [holds](crate::Control::hold) the vCPU outside the guest, or [sets](crate::Control::set) the run state. Otherwise the vCPU executes
/// the same access again.
///
/// Between the exit and the next entry the run loop allocates nothing and blocks on nothing; an implementation of
/// [`consumed`](Self::consumed) and [`pre_entry`](Self::pre_entry) should do the same, and leave I/O to another thread.
pub trait MemoryErrorHandler: Send + Sync {
    /// A vCPU consumed a memory error: it accessed poisoned memory.
    fn consumed(&self, vcpu: u32, access: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>);

    /// A vCPU accessed `gpa`, where there is neither a memory slot nor a device, or executes an instruction there that KVM cannot
    /// emulate.
    ///
    /// Returns true if the address is poisoned memory: then the handler has raised the fault on this thread, within
    /// [`capture_action_required`](guest_memory::sigbus::capture_action_required) by [`raise`](guest_memory::sigbus::raise). The run
    /// loop cancels the access and calls [`consumed`](Self::consumed). Returns false for any other address.
    fn unmapped_access(&self, gpa: u64) -> bool {
        let _ = gpa;
        false
    }

    /// A vCPU is about to enter the guest. Called before every entry: the place to notify a vCPU of a detected error, which needs its
    /// registers.
    fn pre_entry(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        let _ = (vcpu, state);
    }

    /// A vCPU has left its run loop. Its state shows whether it has handled what it was notified of.
    fn stopped(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        let _ = (vcpu, state);
    }

    /// Called about once a millisecond for each held vCPU, to check whether to release it.
    fn poll(&self) {}
}

/// Observes the start of vCPUs. Its methods are called by the vCPU threads.
pub trait VcpuObserver: Send + Sync {
    /// A vCPU is about to enter the guest for the first time.
    fn vcpu_started(&self, vcpu: u32) {
        let _ = vcpu;
    }

    /// The first exit of a vCPU that was not caused by a signal, before it is handled. `exit` is [`Exit::name`](crate::Exit::name).
    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        let _ = (vcpu, exit);
    }
}

/// Observes nothing.
impl VcpuObserver for () {}

/// What the vCPUs of a machine share.
#[derive(Clone)]
pub struct VcpuEnvironment {
    /// Devices.
    pub io: Arc<dyn IoBus>,
    /// Handles accesses to poisoned memory.
    pub memory_errors: Arc<dyn MemoryErrorHandler>,
    /// Observes the start of vCPUs.
    pub observer: Arc<dyn VcpuObserver>,
}

impl std::fmt::Debug for VcpuEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VcpuEnvironment").finish_non_exhaustive()
    }
}
