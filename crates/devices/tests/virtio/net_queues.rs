//! Queues of a driver that has several.

use std::time::{Duration, Instant};

use crate::driver::*;

/// Elements of a queue.
pub(crate) const SIZE: u16 = 16;

/// A queue of the driver.
pub(crate) struct Ring {
    /// Its index.
    index: u16,
    /// GPAs of its descriptors, available ring and used ring.
    pub(crate) parts: [u64; 3],
    available: u16,
    used: u16,
}

impl Ring {
    /// A queue in the 4 KiB from a GPA on.
    pub(crate) fn at(index: u16, base: u64) -> Self {
        Ring { index, parts: [base, base + 0x400, base + 0x800], available: 0, used: 0 }
    }

    /// Clears the queue and makes it ready.
    pub(crate) fn set_up(&mut self, driver: &mut Driver) {
        *self = Ring { available: 0, used: 0, ..*self };
        self.parts.iter().for_each(|&part| driver.put(part, &[0; 0x100]));
        driver.write(QUEUE_SEL, self.index.into());
        driver.write(QUEUE_SIZE, SIZE.into());
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
        let slot = u64::from(self.available % SIZE);
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
        let at = self.parts[2] + 4 + 8 * u64::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        (driver.word(at), driver.word(at + 4))
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
