//! The devices of a machine at their addresses.

use std::sync::{Arc, OnceLock};

use devices::{MachineControl, ResetCause};
use platform::Window;
use ras_core::vcpu_state::VcpuState;
use vcpu::{Bus, PoisonAccess};
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

use crate::journal::{Journal, Note};
use crate::ras::Reporting;
use crate::timings::{Phase, Timings};

/// A device that two share one address with.
#[derive(Debug, thiserror::Error)]
#[error("no device can be put at {0:x?}: another is there")]
pub struct Occupied(Window);

/// The machine as its vCPUs reach it.
pub struct MachineBus {
    io: IoManager,
    journal: Arc<Journal>,
    timings: Arc<Timings>,
    machine: Arc<dyn MachineControl>,
    reporting: Arc<Reporting>,
    first_exit: OnceLock<()>,
}

impl MachineBus {
    /// A machine without devices.
    #[must_use]
    pub fn new(
        journal: Arc<Journal>,
        timings: Arc<Timings>,
        machine: Arc<dyn MachineControl>,
        reporting: Arc<Reporting>,
    ) -> Self {
        MachineBus { io: IoManager::new(), journal, timings, machine, reporting, first_exit: OnceLock::new() }
    }

    /// Puts a device at ports.
    ///
    /// # Errors
    /// Where another device is there.
    pub fn add_ports(
        &mut self,
        base: u16,
        len: u16,
        device: Arc<dyn DevicePio + Send + Sync>,
    ) -> Result<(), Occupied> {
        let occupied = || Occupied(Window::Ports { base, len });
        let range = PioRange::new(PioAddress(base), len).map_err(|_| occupied())?;
        self.io.register_pio(range, device).map_err(|_| occupied())
    }

    /// Puts a device at GPAs.
    ///
    /// # Errors
    /// Where another device is there.
    pub fn add_mmio(
        &mut self,
        base: u64,
        len: u64,
        device: Arc<dyn DeviceMmio + Send + Sync>,
    ) -> Result<(), Occupied> {
        let occupied = || Occupied(Window::Mmio { base, len });
        let range = MmioRange::new(MmioAddress(base), len).map_err(|_| occupied())?;
        self.io.register_mmio(range, device).map_err(|_| occupied())
    }
}

/// What a read gives where nothing answers.
const FLOATING: u8 = 0xff;

/// KVM_SYSTEM_EVENT_SHUTDOWN (linux/kvm.h).
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
/// KVM_SYSTEM_EVENT_RESET.
const SYSTEM_EVENT_RESET: u32 = 2;

impl Bus for MachineBus {
    fn port_in(&self, port: u16, data: &mut [u8]) {
        if self.io.pio_read(PioAddress(port), data).is_err() {
            tracing::trace!(port, len = data.len(), "read of a port that nothing answers");
            data.fill(FLOATING);
        }
    }

    fn port_out(&self, port: u16, data: &[u8]) {
        if self.io.pio_write(PioAddress(port), data).is_err() {
            tracing::trace!(port, ?data, "write to a port that nothing answers");
        }
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        if self.io.mmio_read(MmioAddress(gpa), data).is_err() && !self.reporting.accessed_poison(gpa) {
            tracing::debug!(gpa, len = data.len(), "read of an address that nothing answers");
            data.fill(FLOATING);
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if self.io.mmio_write(MmioAddress(gpa), data).is_err() && !self.reporting.accessed_poison(gpa) {
            tracing::debug!(gpa, ?data, "write to an address that nothing answers");
        }
    }

    fn undecoded_access(&self, gpa: u64) -> bool {
        self.reporting.accessed_poison(gpa)
    }

    fn memory_error(&self, vcpu: u32, lost: PoisonAccess, state: &mut dyn FnMut() -> Option<VcpuState>) {
        self.reporting.consumed(vcpu, lost, state);
    }

    fn ask(&self, vcpu: u32, state: &mut dyn FnMut() -> Option<VcpuState>) {
        self.reporting.pre_entry(vcpu, state);
    }

    fn flush(&self) {
        self.reporting.flush();
    }

    fn attend(&self) {
        self.reporting.tick();
    }

    fn system_event(&self, kind: u32) {
        match kind {
            SYSTEM_EVENT_SHUTDOWN => self.machine.power_off(),
            SYSTEM_EVENT_RESET => self.machine.reset(ResetCause::Psci),
            other => {
                tracing::error!(kind = other, "the guest reports a state of its machine that nothing handles")
            }
        }
    }

    fn vcpu_started(&self, vcpu: u32) {
        if vcpu == 0 {
            self.timings.mark(Phase::FirstRun);
        }
        self.journal.write(Note::VcpuStarted(vcpu));
    }

    fn first_exit(&self, vcpu: u32, exit: &'static str) {
        if self.first_exit.set(()).is_ok() {
            self.timings.mark(Phase::FirstExit);
            self.journal.write(Note::FirstExit { vcpu, exit });
        }
    }
}
