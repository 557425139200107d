//! A device and its driver, with memory of 1 MiB.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Once;

use devices::virtio::VirtioDevice;
use guest_memory::{Backing, GuestRam, sigbus};
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::driver::*;

/// The most elements of a queue that programs use, unless they write its registers themselves.
pub(crate) const MAX_SIZE: u16 = 16;
/// The most queues.
pub(crate) const MAX_QUEUES: u16 = 6;
/// From here on, memory can become inaccessible.
pub(crate) const POISON: u64 = 0x8_0000;
/// Indirect tables, of 64 KiB.
pub(crate) const TABLES: u64 = 0x2_0000;
/// Buffers, of 64 KiB.
pub(crate) const DATA: u64 = 0x3_0000;

/// Turns after which a device is taken to be busy without end. The programs have work for some hundred.
const MAX_TURNS: u32 = 20_000;

pub(crate) struct Machine {
    pub(crate) driver: Driver,
    is_shared: bool,
    queues: Vec<Queue>,
}

/// What the driver remembers of a queue.
#[derive(Clone, Copy)]
struct Queue {
    /// Elements, as they were last written: at least 1.
    size: u16,
    /// What the driver has made available, modulo 2^16.
    available: u16,
    /// What it has seen used, modulo 2^16.
    used: u16,
}

impl Queue {
    fn new(size: u32) -> Self {
        Queue { size: u16::try_from(size).unwrap_or(u16::MAX).max(1), available: 0, used: 0 }
    }
}

/// The GPAs of a queue's descriptors, available ring and used ring.
pub(crate) fn parts(queue: u16) -> [u64; 3] {
    let base = 0x1000 * (1 + u64::from(queue));
    [base, base + 0x400, base + 0x800]
}

impl Machine {
    pub(super) fn new(model: impl VirtioDevice + 'static, queues: u16, is_shared: bool) -> Self {
        if is_shared {
            install_handler();
        }
        let backing = if is_shared { Backing::Memfd } else { Backing::Anonymous };
        let ram = GuestRam::allocate(&[(0, MEMORY)], backing).expect("memory");
        let mut driver = Driver::with_memory(model, ram);
        driver.transport.without_threads();
        Machine { driver, is_shared, queues: vec![Queue::new(MAX_SIZE.into()); queues.into()] }
    }

    /// Has the device do all that it can.
    pub(crate) fn run(&mut self) {
        assert!(self.driver.transport.run_queues(MAX_TURNS), "the device is busy without end");
    }

    /// Reads registers of any width.
    pub(super) fn read(&mut self, offset: u64, len: usize) {
        self.driver.transport.mmio_read(MmioAddress(0), offset, &mut vec![0; len]);
    }

    /// Writes registers of any width.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.driver.transport.mmio_write(MmioAddress(0), offset, bytes);
    }

    /// Writes to memory, as far as there is some.
    pub(super) fn poke(&self, at: u64, bytes: &[u8]) {
        let _ = self.driver.ram.write(at, bytes);
    }

    /// Makes memory inaccessible, from [`POISON`] on, or accessible again. A truncated memfd stands for poisoned memory: the signal is the
    /// same but for its code.
    pub(super) fn poison(&self, poisoned: bool) {
        if self.is_shared {
            self.driver.ram.memory().iter().for_each(|region| {
                let file = region.file_offset().expect("a file").file();
                file.set_len(if poisoned { POISON } else { MEMORY }).expect("a length");
            });
        }
    }

    /// Every step from a reset up to DRIVER_OK, with features of those that are offered. Returns whether the device works.
    pub(crate) fn start(&mut self, features: u64, sizes: &[u32]) -> bool {
        self.driver.write(STATUS, 0);
        assert_eq!(self.driver.read(STATUS), 0, "a reset clears the status");
        let offered = self.driver.offered();
        assert!(self.driver.agree(offered & features | VERSION_1), "offered features are accepted");
        for (queue, &size) in (0..).zip(sizes) {
            self.set_up(queue, size, parts(queue));
            self.driver.write(QUEUE_READY, 1);
        }
        self.driver.go();
        self.run();
        self.driver.read(STATUS) & NEEDS_RESET == 0
    }

    /// Clears a queue and writes its registers.
    pub(super) fn set_up(&mut self, queue: u16, size: u32, parts: [u64; 3]) {
        if let Some(known) = self.queues.get_mut(usize::from(queue)) {
            *known = Queue::new(size);
        }
        for part in parts {
            self.poke(part, &[0; 4]);
        }
        self.driver.write(QUEUE_SEL, queue.into());
        self.driver.write(QUEUE_SIZE, size);
        for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
            self.driver.write_wide(register, part);
        }
    }

    /// Writes a descriptor.
    pub(super) fn descriptor(&self, table: u64, index: u16, at: u64, len: u32, flags: u16, next: u16) {
        let bytes =
            [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        self.poke(table.wrapping_add(16 * u64::from(index)), &bytes);
    }

    /// Puts a head into the available ring, and moves its index by `jump`.
    pub(crate) fn offer(&mut self, queue: u16, head: u16, jump: u16) {
        let Some(Queue { size, available, .. }) = self.queues.get_mut(usize::from(queue)) else { return };
        let at = parts(queue)[1];
        let slot = u64::from(*available % *size);
        *available = available.wrapping_add(jump);
        let index = *available;
        self.poke(at + 4 + 2 * slot, &head.to_le_bytes());
        self.poke(at + 2, &index.to_le_bytes());
    }

    pub(crate) fn notify(&mut self, queue: u16) {
        self.driver.write(QUEUE_NOTIFY, queue.into());
        self.run();
    }

    /// Resets the device and starts it for a driver that follows the rules.
    pub(super) fn begin_rules(&mut self) {
        self.poison(false);
        self.poke(0, &[0; 0x1_0000]);
        let sizes = vec![u32::from(MAX_SIZE); self.queues.len()];
        assert!(self.start(u64::MAX, &sizes), "the device works after a reset");
    }

    /// As a driver that follows the rules: makes buffers available, from a descriptor on.
    pub(crate) fn make_available(&mut self, queue: u16, first: u16, buffers: &[Buffer]) {
        for (index, &Buffer(start, len, is_written)) in (first..).zip(buffers) {
            let is_last = usize::from(index - first) + 1 == buffers.len();
            let flags = if is_written { WRITE } else { 0 } | if is_last { 0 } else { NEXT };
            self.descriptor(parts(queue)[0], index, start, len, flags, index + 1);
        }
        self.offer(queue, first, 1);
        self.notify(queue);
    }

    /// The next used chain: its head, and the number of written bytes. `None` if there is none.
    pub(crate) fn used(&mut self, queue: u16) -> Option<(u32, u32)> {
        let at = parts(queue)[2];
        let Queue { size, used, .. } = &mut self.queues[usize::from(queue)];
        if self.driver.ram.load_u16(at + 2).expect("memory") == *used {
            return None;
        }
        let slot = at + 4 + 8 * u64::from(*used % *size);
        *used = used.wrapping_add(1);
        Some((self.driver.word(slot), self.driver.word(slot + 4)))
    }
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn install_handler() {
    static INSTALLED: Once = Once::new();
    // SAFETY: the function only returns a number.
    INSTALLED.call_once(|| unsafe { sigbus::install(|_| 99) }.expect("a handler"));
}

/// The number that the next descriptor of this process gets.
pub(super) fn free_descriptor() -> i32 {
    File::open("/dev/null").expect("/dev/null").as_raw_fd()
}
