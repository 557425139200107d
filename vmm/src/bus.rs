//! The I/O bus of a machine: its devices, by port and by guest physical address.

use std::sync::Arc;

use devices::{MachineControl, ResetCause};
use platform::Window;
use vcpu::{IoBus, Unmapped};
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

/// Two devices overlap.
#[derive(Debug, thiserror::Error)]
#[error("device at {0:x?}: another device is mapped there")]
pub struct Occupied(Window);

/// The devices of a machine.
pub struct MachineBus {
    io: IoManager,
    machine: Arc<dyn MachineControl>,
}

impl MachineBus {
    /// A bus without devices. `machine` carries out power-off and reset.
    #[must_use]
    pub fn new(machine: Arc<dyn MachineControl>) -> Self {
        MachineBus { io: IoManager::new(), machine }
    }

    /// Maps a device at ports.
    ///
    /// # Errors
    /// Returns an error if another device is mapped at one of them.
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

    /// Maps a device at GPAs.
    ///
    /// # Errors
    /// Returns an error if another device is mapped at one of them.
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

/// KVM_SYSTEM_EVENT_SHUTDOWN (linux/kvm.h).
const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
/// KVM_SYSTEM_EVENT_RESET.
const SYSTEM_EVENT_RESET: u32 = 2;

/// `IoManager` returns an error if no device contains the whole access.
impl IoBus for MachineBus {
    fn port_in(&self, port: u16, data: &mut [u8]) -> Result<(), Unmapped> {
        self.io.pio_read(PioAddress(port), data).map_err(|_| Unmapped)
    }

    fn port_out(&self, port: u16, data: &[u8]) -> Result<(), Unmapped> {
        self.io.pio_write(PioAddress(port), data).map_err(|_| Unmapped)
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) -> Result<(), Unmapped> {
        self.io.mmio_read(MmioAddress(gpa), data).map_err(|_| Unmapped)
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) -> Result<(), Unmapped> {
        self.io.mmio_write(MmioAddress(gpa), data).map_err(|_| Unmapped)
    }

    fn system_event(&self, kind: u32) {
        match kind {
            SYSTEM_EVENT_SHUTDOWN => self.machine.power_off(),
            SYSTEM_EVENT_RESET => self.machine.reset(ResetCause::Psci),
            other => tracing::error!(kind = other, "KVM_EXIT_SYSTEM_EVENT of a kind that is not handled"),
        }
    }
}
