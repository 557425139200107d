//! Queues of a driver that has several.

use std::time::{Duration, Instant};

use devices::virtio::VirtioDevice;

use crate::driver::*;

/// Elements of a queue.
pub(crate) const SIZE: u16 = 16;

/// A queue of the driver.
pub(crate) struct Ring {
    /// Its index.
    index: u16,
    /// GPAs of its descriptors, available ring and used ring.
    pub(crate) parts: [u64; 3],
    size: u16,
    available: u16,
    used: u16,
}

impl Ring {
    /// A queue in the 4 KiB from a GPA on.
    pub(crate) fn at(index: u16, base: u64) -> Self {
        Self::of_parts(index, [base, base + 0x400, base + 0x800])
    }

    fn of_parts(index: u16, parts: [u64; 3]) -> Self {
        Ring { index, parts, size: SIZE, available: 0, used: 0 }
    }

    /// A queue of this many elements in place of [`SIZE`].
    pub(crate) fn of_size(self, size: u16) -> Self {
        Ring { size, ..self }
    }

    /// Clears the queue and makes it ready.
    pub(crate) fn set_up(&mut self, driver: &mut Driver) {
        *self = Ring { available: 0, used: 0, ..*self };
        self.parts.iter().for_each(|&part| driver.put(part, &[0; 0x100]));
        driver.write(QUEUE_SEL, self.index.into());
        driver.write(QUEUE_SIZE, self.size.into());
        for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(self.parts) {
            driver.write_wide(register, part);
        }
        driver.write(QUEUE_READY, 1);
    }

    /// Makes a chain of buffers available, from a descriptor on, and notifies the device.
    pub(crate) fn offer(&mut self, driver: &mut Driver, first: u16, buffers: &[Buffer]) {
        for (index, &Buffer(start, len, written)) in (first..).zip(buffers) {
            let is_last = usize::from(index - first) + 1 == buffers.len();
            let flags = if written { WRITE } else { 0 } | if is_last { 0 } else { NEXT };
            driver.descriptor(self.parts[0], index, start, len, flags, index + 1);
        }
        self.offer_head(driver, first);
    }

    /// Makes the chain that begins with a descriptor available, and notifies the device.
    pub(crate) fn offer_head(&mut self, driver: &mut Driver, head: u16) {
        let slot = u64::from(self.available % self.size);
        self.available = self.available.wrapping_add(1);
        driver.put(self.parts[1] + 4 + 2 * slot, &head.to_le_bytes());
        driver.ram.store_u16(self.parts[1] + 2, self.available).expect("memory");
        driver.write(QUEUE_NOTIFY, self.index.into());
    }

    /// Whether there is a used chain.
    pub(crate) fn has_used(&self, driver: &Driver) -> bool {
        driver.ram.load_u16(self.parts[2] + 2).expect("memory") != self.used
    }

    /// The next used chain: its head, and the number of written bytes.
    pub(crate) fn used(&mut self, driver: &Driver) -> (u32, u32) {
        until(|| self.has_used(driver));
        let at = self.parts[2] + 4 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        (driver.word(at), driver.word(at + 4))
    }
}

/// GPA of a part of a queue of [`Rings`]: descriptors, available ring and used ring are 0 to 2.
pub(crate) fn part(queue: u32, index: u64) -> u64 {
    0x1_0000 + 0x4000 * u64::from(queue) + 0x1000 * index
}

/// A driver with the rings of up to eight queues.
pub(crate) struct Rings {
    pub(crate) driver: Driver,
    rings: [Ring; 8],
}

impl Rings {
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::of(Driver::new(device))
    }

    pub(crate) fn of(driver: Driver) -> Self {
        let ring = |index: usize| Ring::of_parts(index as u16, [0, 1, 2].map(|at| part(index as u32, at)));
        Rings { driver, rings: std::array::from_fn(ring) }
    }

    /// Every step from a reset up to DRIVER_OK, with this many queues.
    pub(crate) fn start(&mut self, features: u64, queues: u32) {
        self.driver.write(STATUS, 0);
        assert!(self.driver.agree(VERSION_1 | features));
        (0..queues).for_each(|queue| self.set_up(queue));
        self.driver.go();
        assert_eq!(self.driver.read(STATUS) & NEEDS_RESET, 0);
    }

    pub(crate) fn set_up(&mut self, queue: u32) {
        self.rings[queue as usize].set_up(&mut self.driver);
    }

    /// Makes the chain that begins with a descriptor available, and notifies the device.
    pub(crate) fn offer(&mut self, queue: u32, head: u16) {
        self.rings[queue as usize].offer_head(&mut self.driver, head);
    }

    pub(crate) fn is_used(&self, queue: u32) -> bool {
        self.rings[queue as usize].has_used(&self.driver)
    }

    /// The next used chain of a queue: its head, and the number of written bytes.
    pub(crate) fn used(&mut self, queue: u32) -> (u16, u32) {
        let (head, written) = self.rings[queue as usize].used(&self.driver);
        (head as u16, written)
    }

    /// Makes a chain available, from descriptor 0 on, and waits until it is used. Returns the number of written bytes.
    pub(crate) fn request(&mut self, queue: u32, buffers: &[Buffer]) -> u32 {
        self.driver.chain(part(queue, 0), buffers);
        self.offer(queue, 0);
        let (head, written) = self.used(queue);
        assert_eq!(head, 0);
        written
    }
}

/// Waits for a condition.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_micros(50));
    }
}
