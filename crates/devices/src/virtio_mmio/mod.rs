//! The virtio-mmio transport: registers in memory, version 2 (VIRTIO 1.2, 4.2).
//!
//! Registers take aligned accesses of 32 bits; other accesses read 0 and write nothing. The device's configuration, from
//! 0x100 on, takes accesses of any width. A write to a register is ignored outside the states of this table:
//!
//! | register | written |
//! |---|---|
//! | DriverFeatures | until FEATURES_OK |
//! | QueueSize, QueueDesc, QueueDriver, QueueDevice | after FEATURES_OK, while the queue is not ready |
//! | QueueReady | after FEATURES_OK; 1 not while DEVICE_NEEDS_RESET is set |
//! | QueueNotify | always; the device looks at it after DRIVER_OK |
//! | configuration | after FEATURES_OK |
//! | Status | bits in their order, each once; 0 always, which resets the device |
//!
//! A driver that sets FEATURES_OK with features that were not offered, or without VIRTIO_F_VERSION_1, reads the bit back as 0.
//!
//! QueueReady = 0 stops a queue, also after DRIVER_OK (4.2.3.2): when the write returns, the device accesses it no more.
//! QueueReady = 1 starts it from index 0 at the addresses of that moment. DEVICE_NEEDS_RESET is set if a ready queue is not
//! valid (2.7), or if its rings turn out to be broken or inaccessible later.

mod interrupt;
mod kind;
mod queue_setup;
mod registers;

use std::io;
use std::sync::Arc;

use guest_memory::GuestRam;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::interrupt::MmioInterrupt;
pub use self::kind::node;
use self::queue_setup::QueueSetup;
use self::registers::{CONFIG, Half, MAGIC, QUEUE_NOTIFY, Register, VERSION};
use crate::kind::WriteEvent;
use crate::line::InterruptLine;
use crate::poison_observer::PoisonObserver;
use crate::virtio::{Activation, DeviceMemory, Interrupt, Queue, QueueError, VirtioDevice};

/// The bits of Status that a driver sets, each with the one that comes before it (VIRTIO 1.2, 3.1.1).
const STATUS_STEPS: [(u32, u32); 4] = [
    (VIRTIO_CONFIG_S_ACKNOWLEDGE, 0),
    (VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE),
    (VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER),
    (VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK),
];

/// The registers of a transport, and the device behind them.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: DeviceMemory,
    interrupt: Arc<MmioInterrupt>,
    vendor_id: u32,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
    /// Signalled by QueueNotify, by index of the queue.
    kicks: Arc<[Arc<EventFd>]>,
    #[cfg(feature = "testing")]
    without_threads: bool,
}

impl MmioTransport {
    /// Creates a transport for a device that accesses `ram`. Interrupts are raised on `line`, poisoned pages that the device
    /// touches and DEVICE_NEEDS_RESET are reported to `observer`, and VendorID reads as `vendor_id`.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new(
        device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        line: InterruptLine,
        observer: Arc<dyn PoisonObserver>,
        vendor_id: u32,
    ) -> io::Result<Self> {
        let queues = queue_setups(&*device);
        let kicks: io::Result<_> =
            queues.iter().map(|_| EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map(Arc::new)).collect();
        Ok(MmioTransport {
            queues,
            kicks: kicks?,
            device,
            memory: DeviceMemory::new(ram, Arc::clone(&observer)),
            interrupt: Arc::new(MmioInterrupt::new(line, observer)),
            vendor_id,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            #[cfg(feature = "testing")]
            without_threads: false,
        })
    }

    /// From the next DRIVER_OK on, has the device's queues served by [`run_queues`](Self::run_queues), and not by threads.
    #[cfg(feature = "testing")]
    pub fn without_threads(&mut self) {
        self.without_threads = true;
    }

    /// Has the device do all that it can do now. False if it is not idle after `max_turns` turns of one of its groups.
    #[cfg(feature = "testing")]
    pub fn run_queues(&mut self, max_turns: u32) -> bool {
        self.device.workers().is_none_or(|workers| workers.run_until_idle(max_turns))
    }

    /// The writes to QueueNotify, which only signal an eventfd.
    pub fn write_events(&self) -> impl Iterator<Item = WriteEvent> {
        let event =
            |(index, event)| WriteEvent { offset: QUEUE_NOTIFY, value: index, event: Arc::clone(event) };
        (0..).zip(&*self.kicks).map(event)
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
            Register::QueueSizeMax => self.queue().map_or(0, |queue| queue.max_size.into()),
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
            Register::DriverFeatures => self.set_driver_features(value),
            Register::QueueSel => self.queue_sel = value,
            Register::QueueSize => self.set_up_queue(|queue| queue.layout.size = value),
            Register::QueueAddress(part, half) => {
                self.set_up_queue(|queue| half.put(value, queue.address(part)));
            }
            Register::QueueReady => self.set_queue_ready(value & 1 != 0),
            Register::QueueNotify => self.kick(value),
            Register::InterruptAck => self.interrupt.acknowledge(value),
            Register::Status if value == 0 => self.reset(),
            Register::Status => self.advance(value),
            Register::MagicValue
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

    /// As KVM does with a write that it handles itself ([`write_events`](Self::write_events)).
    fn kick(&self, queue: u32) {
        if let Some(kick) = usize::try_from(queue).ok().and_then(|queue| self.kicks.get(queue)) {
            // Fails only if 2^64 - 2 notifications are pending: one more makes no difference.
            let _ = kick.write(1);
        }
    }

    fn offered(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | self.device.ring_features() | self.device.features()
    }

    fn has(&self, bit: u32) -> bool {
        self.status & bit != 0
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        // Features from 64 on are not offered: nothing to store.
        if let Some(half) = Half::selected(self.driver_features_sel) {
            half.put(value, &mut self.driver_features);
        }
    }

    /// Index of the selected queue. `None` if the device has no such queue.
    fn selected(&self) -> Option<u16> {
        u16::try_from(self.queue_sel).ok().filter(|&index| usize::from(index) < self.queues.len())
    }

    fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.selected()?))
    }

    /// Changes the size or an address of the selected queue, unless it is too early or the queue is ready.
    fn set_up_queue(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        let Some(index) = self.selected().filter(|_| self.has(VIRTIO_CONFIG_S_FEATURES_OK)) else { return };
        let queue = &mut self.queues[usize::from(index)];
        if !queue.ready {
            change(queue);
        }
    }

    fn set_queue_ready(&mut self, ready: bool) {
        let Some(index) = self.selected().filter(|_| self.has(VIRTIO_CONFIG_S_FEATURES_OK)) else { return };
        let before = std::mem::replace(&mut self.queues[usize::from(index)].ready, ready);
        if before == ready || !self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            return;
        }
        if !ready {
            self.device.stop_queue(index);
            return;
        }
        self.queues[usize::from(index)].ready =
            !self.interrupt.is_reset_needed() && self.restart_queue(index);
    }

    /// Starts a queue after DRIVER_OK. False if the device needs a reset instead.
    fn restart_queue(&mut self, index: u16) -> bool {
        let started = self
            .queue_at(index)
            .map_err(io::Error::other)
            .and_then(|queue| self.device.start_queue(index, queue));
        if let Err(error) = &started {
            self.fail(error);
        }
        started.is_ok()
    }

    /// Sets the bits of Status that may be set now.
    fn advance(&mut self, value: u32) {
        for (bit, needs) in STATUS_STEPS {
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

    /// Whether the driver's features are acceptable.
    fn is_agreed(&self) -> bool {
        let accepted = self.driver_features;
        accepted & !self.offered() == 0 && accepted & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let ready = (0..).zip(&self.queues).map(|(index, queue)| queue.ready.then(|| self.queue_at(index)));
        let queues: Result<Vec<_>, _> = ready.map(Option::transpose).collect();
        let activated = queues.map_err(io::Error::other).and_then(|queues| {
            let interrupt = Arc::<MmioInterrupt>::clone(&self.interrupt);
            let (memory, features) = (self.memory.clone(), self.driver_features);
            let kicks = Arc::clone(&self.kicks);
            let activation = Activation::new(memory, features, queues, interrupt, kicks);
            #[cfg(feature = "testing")]
            let activation = Activation { without_threads: self.without_threads, ..activation };
            self.device.activate(activation)
        });
        if let Err(error) = activated {
            self.fail(&error);
        }
    }

    /// The queue that the registers of that index describe.
    fn queue_at(&self, index: u16) -> Result<Queue, QueueError> {
        let QueueSetup { max_size, layout, .. } = self.queues[usize::from(index)];
        tracing::debug!(
            device = self.device.device_type(),
            queue = index,
            size = layout.size,
            descriptors = format_args!("{:#x}", layout.descriptors),
            available = format_args!("{:#x}", layout.available),
            used = format_args!("{:#x}", layout.used),
            "virtio queue ready"
        );
        Queue::new(self.memory.clone(), layout, max_size, self.driver_features)
    }

    /// Sets DEVICE_NEEDS_RESET. At most once per activation: queues are not started while it is set.
    fn fail(&self, error: &io::Error) {
        let device = self.device.device_type();
        tracing::warn!(device, %error, "virtio device needs a reset: a queue cannot be started");
        self.interrupt.needs_reset();
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
