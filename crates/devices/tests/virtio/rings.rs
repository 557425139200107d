//! A driver of a device with several queues: their rings at addresses of their own.

use std::time::{Duration, Instant};

use devices::virtio::VirtioDevice;

use crate::driver::*;

/// Elements of each queue.
pub(crate) const QUEUE_LEN: u16 = 16;

/// GPA of a part of a queue: descriptors, available ring and used ring are 0 to 2.
pub(crate) fn part(queue: u32, index: u64) -> u64 {
    0x1_0000 + 0x4000 * u64::from(queue) + 0x1000 * index
}

/// A driver with the rings of up to eight queues.
pub(crate) struct Rings {
    pub(crate) driver: Driver,
    offered: [u16; 8],
    seen: [u16; 8],
}

impl Rings {
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::of(Driver::new(device))
    }

    pub(crate) fn of(driver: Driver) -> Self {
        Rings { driver, offered: [0; 8], seen: [0; 8] }
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
        (self.offered[queue as usize], self.seen[queue as usize]) = (0, 0);
        self.driver.put(part(queue, 0), &[0; 0x3000]);
        self.driver.write(QUEUE_SEL, queue);
        self.driver.write(QUEUE_SIZE, QUEUE_LEN.into());
        for (index, register) in (0..).zip([QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE]) {
            self.driver.write_wide(register, part(queue, index));
        }
        self.driver.write(QUEUE_READY, 1);
    }

    /// Makes the chain that begins with a descriptor available, and notifies the device.
    pub(crate) fn offer(&mut self, queue: u32, head: u16) {
        let offered = &mut self.offered[queue as usize];
        let slot = u64::from(*offered % QUEUE_LEN);
        self.driver.put(part(queue, 1) + 4 + 2 * slot, &head.to_le_bytes());
        *offered = offered.wrapping_add(1);
        self.driver.ram.store_u16(part(queue, 1) + 2, *offered).expect("memory");
        self.driver.write(QUEUE_NOTIFY, queue);
    }

    pub(crate) fn is_used(&self, queue: u32) -> bool {
        self.driver.ram.load_u16(part(queue, 2) + 2).expect("memory") != self.seen[queue as usize]
    }

    /// The next used chain of a queue: its head, and the number of written bytes.
    pub(crate) fn used(&mut self, queue: u32) -> (u16, u32) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.is_used(queue) {
            assert!(Instant::now() < until, "the device uses no buffer of queue {queue}");
            std::thread::sleep(Duration::from_micros(50));
        }
        let seen = &mut self.seen[queue as usize];
        let at = part(queue, 2) + 4 + 8 * u64::from(*seen % QUEUE_LEN);
        *seen = seen.wrapping_add(1);
        (self.driver.word(at) as u16, self.driver.word(at + 4))
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
