//! A split virtqueue (VIRTIO 1.2, 2.7) whose three parts are a page each, and the requests in it.
//!
//! The driver accesses the parts by words of 64 bits, each of which may fail because its page is poisoned.

#![expect(unsafe_code, reason = "memory that a device accesses too")]

use std::sync::atomic::{Ordering, fence};

use crate::access;
use crate::memory::Memory;

/// Requests in flight.
pub(super) const SLOTS: usize = 8;
/// Entries of the queue: three descriptors for each request.
pub(super) const SIZE: u16 = 32;
/// Pages of headers and status bytes, and of data.
pub(super) const DATA_PAGES: usize = 2;

const SECTOR: usize = 512;
/// The sectors that are written: a few for each slot.
const SECTORS_PER_SLOT: u64 = 16;

/// Flags of descriptors (2.7.5) and of the available ring (2.7.6).
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const NO_INTERRUPT: u64 = 1;

/// Types and states of block requests (5.2.6).
const IN: u64 = 0;
const OUT: u64 = 1;
const STATUS_PENDING: u8 = 0xff;
const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;

/// What came out of the used ring.
pub(super) enum Completion {
    /// The number of requests that succeeded.
    Requests(u64),
    IoError,
    /// Something that no correct device does.
    Wrong(String),
    /// This process accessed a poisoned page.
    Consumed,
}

/// An access of this process to a poisoned page.
pub(super) struct Poisoned;

/// A virtqueue.
pub(super) struct Virtqueue<'a> {
    memory: &'a Memory,
    /// The page of the descriptors; the available ring and the used ring follow.
    first: usize,
    /// The page of headers and status bytes; that of the data follows.
    data: usize,
    control_address: u64,
    data_address: u64,
    available: u16,
    used: u16,
    slots: [Slot; SLOTS],
}

/// A request's state.
#[derive(Clone, Copy, Default)]
struct Slot {
    in_flight: bool,
    /// Requests that this slot has made: a write and a read of what was written, by turns.
    count: u64,
}

impl Slot {
    fn is_write(self) -> bool {
        self.count.is_multiple_of(2)
    }

    fn sector(self, slot: usize) -> u64 {
        slot as u64 * SECTORS_PER_SLOT + self.count / 2 % SECTORS_PER_SLOT
    }

    /// What is written to every word of the sector, and read back.
    fn pattern(self, slot: usize) -> u64 {
        Memory::pattern(slot) ^ (self.count / 2)
    }
}

impl<'a> Virtqueue<'a> {
    /// An empty virtqueue in three pages of `memory`.
    pub(super) fn new(
        memory: &'a Memory,
        first: usize,
        data: usize,
        physical_address: &dyn Fn(u64) -> Result<u64, String>,
    ) -> Result<Self, String> {
        let queue = Self {
            memory,
            first,
            data,
            control_address: physical_address(memory.address(data))?,
            data_address: physical_address(memory.address(data + 1))?,
            available: 0,
            used: 0,
            slots: [Slot::default(); SLOTS],
        };
        for part in 0..3 {
            for word in 0..memory.page_len() / 8 {
                queue.store(part, word, 0).map_err(|Poisoned| "a new virtqueue has a poisoned page")?;
            }
        }
        Ok(queue)
    }

    /// Makes requests of all free slots available.
    pub(super) fn submit(&mut self) -> Result<(), Poisoned> {
        for slot in 0..SLOTS {
            if !self.slots[slot].in_flight {
                self.prepare(slot)?;
                self.slots[slot].in_flight = true;
                self.enqueue(slot)?;
            }
        }
        self.publish()
    }

    /// Makes a request available again, whatever state it is in: only for the device to access the virtqueue.
    pub(super) fn publish_anything(&mut self) {
        // Each of these may fail, as this process has consumed an error already.
        let _ = self.prepare(0);
        let _ = self.enqueue(0);
        let _ = self.publish();
    }

    /// Takes completed requests from the used ring.
    pub(super) fn poll(&mut self) -> Completion {
        let mut count = 0;
        loop {
            match self.completed() {
                Err(Poisoned) => return Completion::Consumed,
                Ok(None) => return Completion::Requests(count),
                Ok(Some(slot)) if slot < SLOTS => {
                    let state = self.slots[slot];
                    match self.status(slot) {
                        STATUS_OK if state.is_write() || self.holds(slot, state.pattern(slot)) => {}
                        STATUS_OK => {
                            return Completion::Wrong(format!("data of sector {}", state.sector(slot)));
                        }
                        STATUS_IOERR => return Completion::IoError,
                        other => return Completion::Wrong(format!("status {other:#x} of a request")),
                    }
                    self.slots[slot] = Slot { in_flight: false, count: state.count + 1 };
                    count += 1;
                }
                Ok(Some(slot)) => return Completion::Wrong(format!("used element of request {slot}")),
            }
        }
    }

    /// Writes a request's header, data and descriptors.
    fn prepare(&self, slot: usize) -> Result<(), Poisoned> {
        let state = self.slots[slot];
        let pattern = if state.is_write() { state.pattern(slot) } else { 0 };
        let header = self.memory.page(self.data).wrapping_add(slot * 16).cast::<u64>();
        let data = self.memory.page(self.data + 1).wrapping_add(slot * SECTOR).cast::<u64>();
        // SAFETY: all of it lies in the two pages of data, and the device accesses none of it before the request is available.
        unsafe {
            header.write_volatile(if state.is_write() { OUT } else { IN });
            header.add(1).write_volatile(state.sector(slot));
            (0..SECTOR / 8).for_each(|word| data.add(word).write_volatile(pattern));
            self.status_byte(slot).write_volatile(STATUS_PENDING);
        }
        let data_flags = if state.is_write() { NEXT } else { NEXT | WRITE };
        let descriptors = [
            (self.control_address + slot as u64 * 16, 16, NEXT),
            (self.data_address + (slot * SECTOR) as u64, SECTOR as u64, data_flags),
            (self.control_address + (STATUS_OFFSET + slot) as u64, 1, WRITE),
        ];
        for (index, (address, len, flags)) in descriptors.into_iter().enumerate() {
            let descriptor = slot * 3 + index;
            let next = if flags & NEXT == 0 { 0 } else { descriptor as u64 + 1 };
            self.store(DESCRIPTORS, descriptor * 2, address)?;
            self.store(DESCRIPTORS, descriptor * 2 + 1, len | flags << 32 | next << 48)?;
        }
        Ok(())
    }

    /// Puts a request's first descriptor into the available ring: 16 bits each, after flags and index.
    fn enqueue(&mut self, slot: usize) -> Result<(), Poisoned> {
        let at = 2 + usize::from(self.available % SIZE);
        let (word, shift) = (at / 4, at % 4 * 16);
        let others = self.load(AVAILABLE, word)? & !(0xffff << shift);
        self.available = self.available.wrapping_add(1);
        self.store(AVAILABLE, word, others | (slot as u64 * 3) << shift)
    }

    /// Writes the index of the available ring, after all that it makes available.
    fn publish(&self) -> Result<(), Poisoned> {
        fence(Ordering::SeqCst);
        let entries = self.load(AVAILABLE, 0)? & !0xffff_ffff;
        self.store(AVAILABLE, 0, entries | u64::from(self.available) << 16 | NO_INTERRUPT)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// The slot of the next completed request: elements of 64 bits, identifier and length, from bit 32 on.
    fn completed(&mut self) -> Result<Option<usize>, Poisoned> {
        let index = (self.load(USED, 0)? >> 16) as u16;
        if index == self.used {
            return Ok(None);
        }
        fence(Ordering::SeqCst);
        let identifier = self.load(USED, usize::from(self.used % SIZE))? >> 32;
        self.used = self.used.wrapping_add(1);
        Ok(Some(identifier as usize / 3))
    }

    fn status_byte(&self, slot: usize) -> *mut u8 {
        self.memory.page(self.data).wrapping_add(STATUS_OFFSET + slot)
    }

    fn status(&self, slot: usize) -> u8 {
        // SAFETY: the byte lies in the page; the device has written it before the used ring.
        unsafe { self.status_byte(slot).read_volatile() }
    }

    fn holds(&self, slot: usize, pattern: u64) -> bool {
        let data = self.memory.page(self.data + 1).wrapping_add(slot * SECTOR).cast::<u64>();
        // SAFETY: the sector lies in the page; the device has written it before the used ring.
        (0..SECTOR / 8).all(|word| unsafe { data.add(word).read_volatile() } == pattern)
    }

    fn load(&self, part: usize, word: usize) -> Result<u64, Poisoned> {
        access::load(self.memory, self.first + part, word).ok_or(Poisoned)
    }

    fn store(&self, part: usize, word: usize, value: u64) -> Result<(), Poisoned> {
        if access::store(self.memory, self.first + part, word, value) { Ok(()) } else { Err(Poisoned) }
    }
}

/// The parts, by the order of their pages.
const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 1;
const USED: usize = 2;

/// Where the status bytes lie in the page of the headers.
const STATUS_OFFSET: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Backing;

    /// A device that completes what is available.
    #[test]
    fn requests_go_through_the_virtqueue() {
        let memory = Memory::new(&Backing::Anonymous, 3 + DATA_PAGES).unwrap();
        let mut queue = Virtqueue::new(&memory, 0, 3, &Ok).unwrap();
        for round in 0..5 {
            assert!(queue.submit().is_ok());
            let available = queue.available;
            assert_eq!(available, (round + 1) * SLOTS as u16);
            assert!(matches!(queue.poll(), Completion::Requests(0)));
            let mut used = queue.load(USED, 0).ok().unwrap() & !0xffff_0000;
            for (slot, entry) in (0..SLOTS).zip((available - SLOTS as u16)..) {
                let id = slot as u64 * 3;
                let at = 2 + usize::from(entry % SIZE);
                assert_eq!(queue.load(AVAILABLE, at / 4).ok().unwrap() >> (at % 4 * 16) & 0xffff, id);
                // SAFETY: memory of the test.
                unsafe { queue.status_byte(slot).write_volatile(STATUS_OK) };
                if !queue.slots[slot].is_write() {
                    let data = memory.page(4).wrapping_add(slot * SECTOR).cast::<u64>();
                    let pattern = queue.slots[slot].pattern(slot);
                    // SAFETY: as above.
                    (0..SECTOR / 8).for_each(|word| unsafe { data.add(word).write_volatile(pattern) });
                }
                let word = usize::from(entry % SIZE);
                if word == 0 {
                    used = used & 0xffff_ffff | id << 32;
                } else {
                    let low = queue.load(USED, word).ok().unwrap() & 0xffff_ffff;
                    assert!(queue.store(USED, word, low | id << 32).is_ok());
                }
            }
            assert!(queue.store(USED, 0, used | u64::from(available) << 16).is_ok());
            assert!(matches!(queue.poll(), Completion::Requests(count) if count == SLOTS as u64));
        }
        assert!(queue.slots.iter().all(|slot| slot.count == 5));
    }
}
