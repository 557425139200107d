//! A minimal driver: it configures a device by its registers and puts requests into a ring of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use devices::virtio::VirtioDevice;
use devices::virtio_block::DiskOptions;
use devices::virtio_mmio::MmioTransport;
use devices::{InterruptLine, PoisonFlag, PoisonObserver};
use guest_memory::{Backing, GuestRam};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;
use vmm_sys_util::eventfd::EventFd;

pub(crate) const MEMORY: u64 = 1 << 20;
/// VendorID that the transport is given.
pub(crate) const VENDOR: u32 = 0x1234_5678;
/// The parts of queue 0.
pub(crate) const DESCRIPTORS: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x3000;
pub(crate) const USED: u64 = 0x4000;
/// Unused memory for buffers.
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
pub(crate) const CONFIG_GENERATION: u64 = 0xfc;
pub(crate) const CONFIG: u64 = 0x100;

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
pub(crate) const INDIRECT: u64 = 1 << 28;

/// A disk that can be written.
pub(crate) const WRITABLE: DiskOptions =
    DiskOptions { read_only: false, format: None, direct: false, discard: true };
/// A disk that can only be read.
pub(crate) const READ_ONLY: DiskOptions = DiskOptions { read_only: true, ..WRITABLE };

/// A buffer: where, how many bytes, and whether the device writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer(pub(crate) u64, pub(crate) u32, pub(crate) bool);

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT_TABLE: u16 = 4;

/// The poisoned pages that a device reported, as GPA and log2 of bytes, the ranges that it gave back to the host, and how often it needed
/// a reset.
#[derive(Default)]
pub(crate) struct Reported {
    pub(crate) touched: Mutex<Vec<(u64, u8)>>,
    pub(crate) discarded: Mutex<Vec<(u64, u64)>>,
    pub(crate) resets_needed: AtomicUsize,
    /// Whether memory is poisoned, if the device may know.
    pub(crate) poisoned: OnceLock<PoisonFlag>,
}

impl PoisonObserver for Reported {
    fn touched(&self, gpa: u64, log2_len: u8) {
        self.touched.lock().expect("no panic").push((gpa, log2_len));
    }

    fn needs_reset(&self) {
        self.resets_needed.fetch_add(1, Ordering::SeqCst);
    }

    fn discarded(&self, gpa: u64, len: u64) {
        self.discarded.lock().expect("no panic").push((gpa, len));
    }

    fn poisoned(&self) -> Option<&PoisonFlag> {
        self.poisoned.get()
    }
}

pub(crate) struct Driver {
    pub(crate) transport: MmioTransport,
    pub(crate) ram: GuestRam,
    pub(crate) reported: Arc<Reported>,
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
        Self::with_memory(device, ram)
    }

    pub(crate) fn with_memory(device: impl VirtioDevice + 'static, ram: GuestRam) -> Self {
        let reported = Arc::new(Reported::default());
        let line = InterruptLine::new().expect("an eventfd");
        let edges = line.event().try_clone().expect("an eventfd");
        let transport = MmioTransport::new(Box::new(device), ram.clone(), line, reported.clone(), VENDOR);
        let transport = transport.expect("eventfds");
        Driver { transport, ram, reported, edges, size: 16, made_available: 0, seen_used: 0 }
    }

    /// Writes to memory.
    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.ram.write(at, bytes).expect("memory");
    }

    /// Reads from memory.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(at, &mut bytes).expect("memory");
        bytes
    }

    pub(crate) fn byte(&self, at: u64) -> u8 {
        self.bytes(at, 1)[0]
    }

    pub(crate) fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.ram.read(at, &mut bytes).expect("memory");
        u32::from_le_bytes(bytes)
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

    /// Every step up to FEATURES_OK. Returns whether the device accepts the features.
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

    /// Every step from a reset up to DRIVER_OK.
    pub(crate) fn start(&mut self, features: u64) {
        self.write(STATUS, 0);
        assert!(self.agree(VERSION_1 | features));
        self.clear_queue();
        self.set_up_queue(self.size.into(), [DESCRIPTORS, AVAILABLE, USED]);
        self.go();
        assert_eq!(self.read(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Clears the memory of queue 0, and the driver's indices of it.
    pub(crate) fn clear_queue(&mut self) {
        self.put(0, &[0; 0x6000]);
        (self.made_available, self.seen_used) = (0, 0);
    }

    pub(crate) fn descriptor(&self, table: u64, index: u16, start: u64, len: u32, flags: u16, next: u16) {
        let words = [start.to_le_bytes().to_vec(), len.to_le_bytes().to_vec(), flags.to_le_bytes().to_vec()];
        let bytes = [words.concat(), next.to_le_bytes().to_vec()].concat();
        self.put(table + 16 * u64::from(index), &bytes);
    }

    /// A chain of these buffers, from the first descriptor of a table on.
    pub(crate) fn chain(&self, table: u64, buffers: &[Buffer]) {
        for (index, &Buffer(start, len, written)) in (0..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = if written { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.descriptor(table, index, start, len, flags, index + 1);
        }
    }

    /// Makes the chain that begins with a descriptor available, and notifies the device.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.made_available % self.size);
        self.put(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes());
        self.made_available = self.made_available.wrapping_add(1);
        self.ram.store_u16(AVAILABLE + 2, self.made_available).expect("memory");
        self.write(QUEUE_NOTIFY, 0);
    }

    /// The next used chain: its head, and the number of written bytes.
    pub(crate) fn used(&mut self) -> (u32, u32) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.used_index() == self.seen_used {
            assert!(Instant::now() < until, "the device uses no buffer");
            std::thread::sleep(Duration::from_micros(50));
        }
        let at = USED + 4 + 8 * u64::from(self.seen_used % self.size);
        self.seen_used = self.seen_used.wrapping_add(1);
        (self.word(at), self.word(at + 4))
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.ram.load_u16(USED + 2).expect("memory")
    }

    /// Waits for a bit of the device's status.
    pub(crate) fn await_status(&mut self, bit: u32) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.read(STATUS) & bit == 0 {
            assert!(Instant::now() < until, "status bit {bit:#x} is not set");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}
