//! The device's side of a split virtqueue (VIRTIO 1.2, 2.7).
//!
//! The driver owns the memory of a queue and may write anything to it at any time, and the host may poison any page of it at
//! any time. Every access is recoverable: both end in a [`QueueError`], after which the device needs a reset.

use std::sync::atomic::{Ordering, fence};

use guest_memory::AccessError;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY,
};
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use super::memory::DeviceMemory;

/// Where a driver placed a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Elements: a power of two, 32768 at most.
    pub size: u32,
    /// GPA of the descriptor table, a multiple of 16.
    pub descriptors: u64,
    /// GPA of the available ring, a multiple of 2.
    pub available: u64,
    /// GPA of the used ring, a multiple of 4.
    pub used: u64,
}

impl QueueLayout {
    /// GPA of the used ring's `idx` (VIRTIO 1.2, 2.7.8).
    pub(crate) fn used_index(&self) -> u64 {
        self.used + INDEX
    }
}

/// Why a queue cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The size is not a power of two, or exceeds the device's maximum.
    #[error("queue size {size} is not a power of two of at most {max}")]
    Size {
        /// Elements.
        size: u32,
        /// The device's maximum.
        max: u16,
    },
    /// A part of the queue is not aligned.
    #[error("the {part} at {gpa:#x} is not aligned to {alignment} bytes")]
    Unaligned {
        /// Name of the part.
        part: &'static str,
        /// Its GPA.
        gpa: u64,
        /// Its alignment in bytes (VIRTIO 1.2, 2.7).
        alignment: u64,
    },
    /// The driver made more buffers available than the queue has elements.
    #[error("available index {index} is more than {size} elements ahead of {next}")]
    AvailableIndex {
        /// The available ring's idx.
        index: u16,
        /// The device's own index.
        next: u16,
        /// Elements.
        size: u16,
    },
    /// The available ring names a descriptor that does not exist.
    #[error("descriptor {head} of the available ring is past the queue's {size} elements")]
    Head {
        /// The descriptor's index.
        head: u16,
        /// Elements.
        size: u16,
    },
    /// A part of the queue is not memory, is poisoned or has no page of the host.
    #[error("the queue's memory cannot be accessed: {0}")]
    Memory(#[from] AccessError),
}

/// Offset of `idx` in either ring, behind its `flags`.
const INDEX: u64 = 2;
/// Offset of `ring` in either ring.
const RING: u64 = 4;
const DESCRIPTOR_SIZE: u64 = 16;
const AVAILABLE_ELEMENT_SIZE: u64 = 2;
const USED_ELEMENT_SIZE: u64 = size_of::<UsedElement>() as u64;
/// `used_event` and `avail_event`, behind the last element of the available and the used ring.
const EVENT_SIZE: u64 = 2;

const NO_INTERRUPT: u16 = VRING_AVAIL_F_NO_INTERRUPT as u16;
const NO_NOTIFY: u16 = VRING_USED_F_NO_NOTIFY as u16;

/// `struct virtq_used_elem` (VIRTIO 1.2, 2.7.8).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct UsedElement {
    id: U32,
    len: U32,
}

const _: () = assert!(size_of::<UsedElement>() == 8);

/// A queue that the driver has made ready.
pub struct Queue {
    memory: DeviceMemory,
    layout: QueueLayout,
    size: u16,
    /// Whether VIRTIO_F_EVENT_IDX is negotiated.
    event_index: bool,
    /// Counts the available elements that were taken.
    next_available: u16,
    /// Counts the used elements that were written: the used ring's idx.
    next_used: u16,
    /// `next_used` when [`needs_interrupt`](Self::needs_interrupt) was last called.
    decided_used: u16,
}

impl Queue {
    /// The features that every queue offers: VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX.
    pub const FEATURES: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

    /// A queue of which nothing was used yet. `max_size` is the device's maximum, `features` are the negotiated features.
    ///
    /// # Errors
    /// Returns an error if the size or an alignment breaks the rules of VIRTIO 1.2, 2.7, or if part of the queue is not
    /// memory or cannot be accessed now.
    pub fn new(
        memory: DeviceMemory,
        layout: QueueLayout,
        max_size: u16,
        features: u64,
    ) -> Result<Self, QueueError> {
        let event_index = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let QueueLayout { size, descriptors, available, used } = layout;
        let elements = u16::try_from(size).ok().filter(|&size| size.is_power_of_two() && size <= max_size);
        let elements = elements.ok_or(QueueError::Size { size, max: max_size })?;
        let len = |element, header| header + element * u64::from(elements);
        for (part, gpa, alignment, len) in [
            ("descriptor table", descriptors, 16, len(DESCRIPTOR_SIZE, 0)),
            ("available ring", available, 2, len(AVAILABLE_ELEMENT_SIZE, RING + EVENT_SIZE)),
            ("used ring", used, 4, len(USED_ELEMENT_SIZE, RING + EVENT_SIZE)),
        ] {
            if !gpa.is_multiple_of(alignment) {
                return Err(QueueError::Unaligned { part, gpa, alignment });
            }
            // No address below overflows: the whole part is memory.
            memory.probe(gpa, len)?;
        }
        if event_index {
            // VIRTIO 1.2, 2.7.10.2: avail_event alone suppresses notifications.
            memory.store_u16(used, 0)?;
        }
        Ok(Queue {
            memory,
            layout,
            size: elements,
            event_index,
            next_available: 0,
            next_used: 0,
            decided_used: 0,
        })
    }

    /// Where the queue is.
    #[must_use]
    pub fn layout(&self) -> QueueLayout {
        self.layout
    }

    /// Its elements.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Counts the available elements that were taken, modulo 2^16.
    pub(crate) fn next_available(&self) -> u16 {
        self.next_available
    }

    /// Continues after somebody else has served the queue: `next_available` counts the available elements that were taken, and the used
    /// ring says how many were returned.
    ///
    /// # Errors
    /// Returns an error if the used ring cannot be read.
    pub(crate) fn resume(&mut self, next_available: u16) -> Result<(), QueueError> {
        self.next_available = next_available;
        self.next_used = self.memory.load_u16(self.layout.used_index())?;
        self.decided_used = self.next_used;
        Ok(())
    }

    /// Takes the next available descriptor chain and returns its head. `None` if the driver made no more available.
    ///
    /// # Errors
    /// Returns an error if the driver broke the ring or its memory cannot be accessed. The queue cannot be used any more.
    pub fn pop(&mut self) -> Result<Option<u16>, QueueError> {
        let next = self.next_available;
        // The acquire load orders the reads of the element and of its descriptors after it (2.7.13.3).
        let index = self.memory.load_u16(self.layout.available + INDEX)?;
        let waiting = index.wrapping_sub(next);
        if waiting > self.size {
            return Err(QueueError::AvailableIndex { index, next, size: self.size });
        }
        if waiting == 0 {
            return Ok(None);
        }
        let slot = AVAILABLE_ELEMENT_SIZE * u64::from(next % self.size);
        let head = self.memory.load_u16(self.layout.available + RING + slot)?;
        if head >= self.size {
            return Err(QueueError::Head { head, size: self.size });
        }
        self.next_available = next.wrapping_add(1);
        Ok(Some(head))
    }

    /// Gives back the last `count` chains that were taken and not returned: [`pop`](Self::pop) takes them again.
    pub fn unpop(&mut self, count: u16) {
        self.next_available = self.next_available.wrapping_sub(count);
    }

    /// Returns a chain to the driver, with the number of bytes that were written from the start of its device-writable
    /// buffers on.
    ///
    /// # Errors
    /// Returns an error if the used ring cannot be accessed. The queue cannot be used any more.
    pub fn add_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        let slot = USED_ELEMENT_SIZE * u64::from(self.next_used % self.size);
        let element = UsedElement { id: U32::new(head.into()), len: U32::new(written) };
        self.memory.write(self.layout.used + RING + slot, element.as_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        // The release store makes the element and the buffers visible before the index (2.7.8.2).
        Ok(self.memory.store_u16(self.layout.used + INDEX, self.next_used)?)
    }

    /// Whether the driver wants an interrupt for the chains that were returned since the last call (VIRTIO 1.2, 2.7.7).
    ///
    /// # Errors
    /// Returns an error if the available ring cannot be accessed. The queue cannot be used any more.
    pub fn needs_interrupt(&mut self) -> Result<bool, QueueError> {
        let before = std::mem::replace(&mut self.decided_used, self.next_used);
        if before == self.next_used {
            return Ok(false);
        }
        // The driver stores used_event or flags, then loads the used index. The index is stored before these are loaded:
        // one of the two sees the other's store.
        fence(Ordering::SeqCst);
        if self.event_index {
            let event = self.memory.load_u16(self.used_event())?;
            return Ok(is_event_passed(event, self.next_used, before));
        }
        Ok(self.memory.load_u16(self.layout.available)? & NO_INTERRUPT == 0)
    }

    /// Suppresses the driver's available buffer notifications. The driver may send some nevertheless.
    ///
    /// # Errors
    /// Returns an error if the used ring cannot be accessed. The queue cannot be used any more.
    pub fn suppress_notifications(&mut self) -> Result<(), QueueError> {
        // With VIRTIO_F_EVENT_IDX, an avail_event that the driver has passed suppresses.
        if !self.event_index {
            self.memory.store_u16(self.layout.used, NO_NOTIFY)?;
        }
        Ok(())
    }

    /// Enables the driver's notification for the next chain that it makes available. Returns whether there is one already:
    /// the driver may not send a notification for it.
    ///
    /// # Errors
    /// Returns an error if a ring cannot be accessed. The queue cannot be used any more.
    pub fn request_notifications(&mut self) -> Result<bool, QueueError> {
        if self.event_index {
            self.memory.store_u16(self.avail_event(), self.next_available)?;
        } else {
            self.memory.store_u16(self.layout.used, 0)?;
        }
        // The driver stores the available index, then loads avail_event or flags: as in `needs_interrupt`.
        fence(Ordering::SeqCst);
        Ok(self.memory.load_u16(self.layout.available + INDEX)? != self.next_available)
    }

    /// GPA of `used_event` (VIRTIO 1.2, 2.7.6).
    fn used_event(&self) -> u64 {
        self.layout.available + RING + AVAILABLE_ELEMENT_SIZE * u64::from(self.size)
    }

    /// GPA of `avail_event` (VIRTIO 1.2, 2.7.8).
    fn avail_event(&self) -> u64 {
        self.layout.used + RING + USED_ELEMENT_SIZE * u64::from(self.size)
    }
}

/// Whether an index that moved from `before` to `now` passed `event` (VIRTIO 1.2, 2.7.7.2 and 2.7.10).
fn is_event_passed(event: u16, now: u16, before: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests;
