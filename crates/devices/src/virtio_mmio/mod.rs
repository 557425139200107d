//! The transport: registers in memory, version 2 (VIRTIO 1.2, 4.2).
//!
//! Registers take aligned accesses of 32 bits; others read as 0 and write nothing. The device's configuration, from 0x100
//! on, takes any. What a driver may not write, or not now, is as if it had not been written:
//!
//! | register | taken |
//! |---|---|
//! | DriverFeatures | until FEATURES_OK |
//! | QueueSize, QueueAddress | after FEATURES_OK and until DRIVER_OK, of a queue that is not ready |
//! | QueueReady | after FEATURES_OK and until DRIVER_OK |
//! | QueueNotify | from DRIVER_OK on |
//! | Status | bits in their order, each once; 0 always, and takes all back |
//!
//! A driver that sets FEATURES_OK with features that were not offered, or without VIRTIO_F_VERSION_1, reads it back as 0.
//! One whose queues are not in memory at DRIVER_OK, or whose rings make no sense later, reads DEVICE_NEEDS_RESET.

mod interrupt;
mod kind;
mod queue_setup;
mod registers;

use std::sync::Arc;

use guest_memory::GuestRam;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use self::interrupt::MmioInterrupt;
pub use self::kind::node;
use self::queue_setup::QueueSetup;
use self::registers::{CONFIG, Half, MAGIC, Register, VERSION};
use crate::line::InterruptLine;
use crate::poison_observer::PoisonObserver;
use crate::virtio::{Activation, Interrupt, VirtioDevice};

/// The features that the transport and the rings offer for every device.
const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// The bits of the status that a driver sets, each after the one that it needs (VIRTIO 1.2, 3.1.1).
const STEPS: [(u32, u32); 4] = [
    (VIRTIO_CONFIG_S_ACKNOWLEDGE, 0),
    (VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE),
    (VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER),
    (VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK),
];

/// The registers of a transport, and the device behind them.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    observer: Arc<dyn PoisonObserver>,
    interrupt: Arc<MmioInterrupt>,
    vendor_id: u32,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
}

impl MmioTransport {
    /// Creates a transport for a device that accesses `ram`. Interrupts are raised on `line`, poisoned pages that the device
    /// touches are reported to `observer`, and VendorID reads as `vendor_id`.
    #[must_use]
    pub fn new(
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        line: InterruptLine,
        observer: Arc<dyn PoisonObserver>,
        vendor_id: u32,
    ) -> Self {
        MmioTransport {
            queues: queue_setups(&*device),
            device,
            ram,
            observer,
            interrupt: Arc::new(MmioInterrupt::new(line)),
            vendor_id,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
        }
    }

    fn read(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device.device_type(),
            Register::VendorId => self.vendor_id,
            Register::DeviceFeatures => {
                Half::selected(self.device_features_sel).map_or(0, |half| half.of(self.offered()))
            }
            Register::QueueSizeMax => self.queue().map_or(0, |queue| queue.max.into()),
            Register::QueueReady => self.queue().map_or(0, |queue| queue.ready.into()),
            Register::InterruptStatus => self.interrupt.status(),
            Register::Status if self.interrupt.is_reset_needed() => self.status | VIRTIO_CONFIG_S_NEEDS_RESET,
            Register::Status => self.status,
            Register::SharedMemory => u32::MAX,
            Register::ConfigGeneration => self.interrupt.config_generation(),
            Register::DeviceFeaturesSel
            | Register::DriverFeatures
            | Register::DriverFeaturesSel
            | Register::QueueSel
            | Register::QueueSize
            | Register::QueueNotify
            | Register::InterruptAck
            | Register::QueueAddress(..) => 0,
        }
    }

    fn write(&mut self, register: Register, value: u32) {
        match register {
            Register::DeviceFeaturesSel => self.device_features_sel = value,
            Register::DriverFeaturesSel => self.driver_features_sel = value,
            Register::DriverFeatures => self.take_features(value),
            Register::QueueSel => self.queue_sel = value,
            Register::QueueSize => self.set_up_queue(|queue| queue.size = value),
            Register::QueueAddress(part, half) => {
                self.set_up_queue(|queue| half.put(value, queue.address(part)));
            }
            Register::QueueReady => {
                if let Some(queue) = self.changeable_queue() {
                    queue.ready = value & 1 != 0;
                }
            }
            Register::QueueNotify if self.has(VIRTIO_CONFIG_S_DRIVER_OK) => {
                if let Ok(queue) = u16::try_from(value) {
                    self.device.notify(queue);
                }
            }
            Register::InterruptAck => self.interrupt.acknowledge(value),
            Register::Status if value == 0 => self.reset(),
            Register::Status => self.advance(value),
            Register::QueueNotify
            | Register::MagicValue
            | Register::Version
            | Register::DeviceId
            | Register::VendorId
            | Register::DeviceFeatures
            | Register::QueueSizeMax
            | Register::InterruptStatus
            | Register::SharedMemory
            | Register::ConfigGeneration => {}
        }
    }

    fn offered(&self) -> u64 {
        FEATURES | self.device.features()
    }

    fn has(&self, bit: u32) -> bool {
        self.status & bit != 0
    }

    fn take_features(&mut self, value: u32) {
        if self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        // Of features from 64 on none are offered: there is nothing to take.
        if let Some(half) = Half::selected(self.driver_features_sel) {
            half.put(value, &mut self.driver_features);
        }
    }

    fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn changeable_queue(&mut self) -> Option<&mut QueueSetup> {
        let now = self.has(VIRTIO_CONFIG_S_FEATURES_OK) && !self.has(VIRTIO_CONFIG_S_DRIVER_OK);
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?).filter(|_| now)
    }

    fn set_up_queue(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if let Some(queue) = self.changeable_queue().filter(|queue| !queue.ready) {
            change(queue);
        }
    }

    /// Takes the bits of the status that may be set now.
    fn advance(&mut self, value: u32) {
        for (bit, needs) in STEPS {
            if value & bit == 0 || self.has(bit) || self.status & needs != needs {
                continue;
            }
            match bit {
                VIRTIO_CONFIG_S_FEATURES_OK if !self.is_agreed() => continue,
                VIRTIO_CONFIG_S_DRIVER_OK => self.activate(),
                _ => {}
            }
            self.status |= bit;
        }
        self.status |= value & VIRTIO_CONFIG_S_FAILED;
    }

    fn is_agreed(&self) -> bool {
        let taken = self.driver_features;
        taken & !self.offered() == 0 && taken & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let features = self.driver_features;
        let event_index = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let queues = self.queues.iter().map(|queue| queue.build(self.ram.memory(), event_index)).collect();
        let activated = match queues {
            Ok(queues) => {
                let (ram, observer) = (self.ram.clone(), Arc::clone(&self.observer));
                let interrupt = Arc::<MmioInterrupt>::clone(&self.interrupt);
                self.device
                    .activate(Activation { ram, observer, features, queues, interrupt })
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = activated {
            tracing::warn!(device = self.device.device_type(), error, "a virtio device cannot be started");
            self.interrupt.needs_reset();
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.interrupt.reset();
        self.status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.queues = queue_setups(&*self.device);
    }
}

/// The queues of a device that is reset.
fn queue_setups(device: &dyn VirtioDevice) -> Vec<QueueSetup> {
    device.queue_max_sizes().iter().map(|&max| QueueSetup::new(max)).collect()
}

impl MutDeviceMmio for MmioTransport {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.device.read_config(offset, data);
        } else if let (Some(register), 4) = (Register::at(offset), data.len()) {
            data.copy_from_slice(&self.read(register).to_le_bytes());
        }
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            // A driver writes to the configuration after the features are negotiated only (VIRTIO 1.2, 3.1.1).
            if self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
                self.device.write_config(offset, data);
            }
        } else if let (Some(register), Ok(value)) = (Register::at(offset), data.try_into()) {
            self.write(register, u32::from_le_bytes(value));
        }
    }
}
