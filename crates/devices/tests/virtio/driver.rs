//! A driver, as small as it can be: it sets a device up by its registers and puts requests into a ring of its own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devices::virtio::VirtioDevice;
use devices::virtio_mmio::MmioTransport;
use devices::{InterruptLine, PoisonObserver};
use guest_memory::{Backing, GuestRam};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

pub(crate) const MEMORY: u64 = 1 << 20;
/// VendorID that the transport is given.
pub(crate) const VENDOR: u32 = 0x1234_5678;
/// Where a driver's parts of queue 0 are.
pub(crate) const DESCRIPTORS: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x3000;
pub(crate) const USED: u64 = 0x4000;
/// Free for buffers.
pub(crate) const BUFFERS: u64 = 0x1_0000;

// Registers (VIRTIO 1.2, table 4.1).
pub(crate) const DEVICE_FEATURES: u64 = 0x10;
pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x14;
pub(crate) const DRIVER_FEATURES: u64 = 0x20;
pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x24;
pub(crate) const QUEUE_SEL: u64 = 0x30;
pub(crate) const QUEUE_SIZE_MAX: u64 = 0x34;
pub(crate) const QUEUE_SIZE: u64 = 0x38;
pub(crate) const QUEUE_READY: u64 = 0x44;
pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
pub(crate) const INTERRUPT_ACK: u64 = 0x64;
pub(crate) const STATUS: u64 = 0x70;
pub(crate) const QUEUE_DESCRIPTORS: u64 = 0x80;
pub(crate) const QUEUE_DRIVER: u64 = 0x90;
pub(crate) const QUEUE_DEVICE: u64 = 0xa0;
pub(crate) const CONFIG: u64 = 0x100;

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
pub(crate) const INDIRECT: u64 = 1 << 28;

/// A buffer: where, how many bytes, and whether the device writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer(pub(crate) u64, pub(crate) u32, pub(crate) bool);

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT_TABLE: u16 = 4;

/// Pages that a device told of: GPA and log2 of bytes.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<(u64, u8)>>);

impl PoisonObserver for Told {
    fn touched(&self, gpa: u64, log2_len: u8) {
        self.0.lock().expect("no panic").push((gpa, log2_len));
    }
}

pub(crate) struct Driver {
    pub(crate) transport: MmioTransport,
    pub(crate) ram: GuestRam,
    pub(crate) memory: GuestMemoryMmap,
    /// What the device told of poisoned pages.
    pub(crate) told: Arc<Told>,
    pub(crate) edges: EventFd,
    size: u16,
    made_available: u16,
    pub(crate) seen_used: u16,
}

impl Driver {
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::in_memory(device, Backing::Anonymous)
    }

    pub(crate) fn in_memory(device: impl VirtioDevice + 'static, backing: Backing) -> Self {
        let ram = GuestRam::allocate(&[(0, MEMORY)], backing).expect("memory");
        let memory = ram.memory().clone();
        let told = Arc::new(Told::default());
        let line = InterruptLine::new().expect("an eventfd");
        let edges = line.event().try_clone().expect("an eventfd");
        let transport = MmioTransport::new(Box::new(device), ram.clone(), line, told.clone(), VENDOR);
        Driver { transport, ram, memory, told, edges, size: 16, made_available: 0, seen_used: 0 }
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0xee; 4];
        self.transport.mmio_read(MmioAddress(0), offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.transport.mmio_write(MmioAddress(0), offset, &value.to_le_bytes());
    }

    pub(crate) fn write_wide(&mut self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }

    pub(crate) fn offered(&mut self) -> u64 {
        [0, 1].into_iter().fold(0, |features, half| {
            self.write(DEVICE_FEATURES_SEL, half);
            features | u64::from(self.read(DEVICE_FEATURES)) << (32 * half)
        })
    }

    /// Up to FEATURES_OK, and whether the device takes them.
    pub(crate) fn agree(&mut self, features: u64) -> bool {
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        for half in [0, 1] {
            self.write(DRIVER_FEATURES_SEL, half);
            self.write(DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.read(STATUS) & FEATURES_OK != 0
    }

    pub(crate) fn set_up_queue(&mut self, size: u32, parts: [u64; 3]) {
        self.write(QUEUE_SEL, 0);
        self.write(QUEUE_SIZE, size);
        for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
            self.write_wide(register, part);
        }
        self.write(QUEUE_READY, 1);
    }

    pub(crate) fn go(&mut self) {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Everything up to DRIVER_OK, from a reset on.
    pub(crate) fn start(&mut self, features: u64) {
        self.write(STATUS, 0);
        assert!(self.agree(VERSION_1 | features));
        self.memory.write_slice(&[0; 0x6000], GuestAddress(0)).expect("memory");
        (self.made_available, self.seen_used) = (0, 0);
        self.set_up_queue(self.size.into(), [DESCRIPTORS, AVAILABLE, USED]);
        self.go();
        assert_eq!(self.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    pub(crate) fn descriptor(&self, table: u64, index: u16, start: u64, len: u32, flags: u16, next: u16) {
        let at = GuestAddress(table + 16 * u64::from(index));
        let words = [start.to_le_bytes().to_vec(), len.to_le_bytes().to_vec(), flags.to_le_bytes().to_vec()];
        let bytes = [words.concat(), next.to_le_bytes().to_vec()].concat();
        self.memory.write_slice(&bytes, at).expect("memory");
    }

    /// A chain of these buffers, from the first descriptor of a table on.
    pub(crate) fn chain(&self, table: u64, buffers: &[Buffer]) {
        for (index, &Buffer(start, len, written)) in (0..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = if written { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.descriptor(table, index, start, len, flags, index + 1);
        }
    }

    /// Makes the chain that begins with a descriptor available, and says so.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.made_available % self.size);
        self.memory.write_obj(head, GuestAddress(AVAILABLE + 4 + 2 * slot)).expect("memory");
        self.made_available = self.made_available.wrapping_add(1);
        self.memory.write_obj(self.made_available, GuestAddress(AVAILABLE + 2)).expect("memory");
        self.write(QUEUE_NOTIFY, 0);
    }

    /// The next chain that the device has used: its head, and the bytes that the device says it wrote.
    pub(crate) fn used(&mut self) -> (u32, u32) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.used_index() == self.seen_used {
            assert!(Instant::now() < until, "the device does not answer");
            std::thread::sleep(Duration::from_micros(50));
        }
        let at = USED + 4 + 8 * u64::from(self.seen_used % self.size);
        self.seen_used = self.seen_used.wrapping_add(1);
        let word = |at| self.memory.read_obj(GuestAddress(at)).expect("memory");
        (word(at), word(at + 4))
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).expect("memory")
    }

    /// Waits for a bit of the device's status.
    pub(crate) fn await_status(&mut self, bit: u32) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.read(STATUS) & bit == 0 {
            assert!(Instant::now() < until, "status {bit:#x} does not come");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}
