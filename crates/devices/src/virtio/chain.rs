//! The descriptors of a request (VIRTIO 1.2, 2.7.5).
//!
//! A malformed chain ends early: one with an index past its table, a loop, more than 4 GiB of buffers, or an indirect
//! table that is not allowed (2.7.5.3) or longer than 1024 elements and than the queue.

use guest_memory::AccessError;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::memory::DeviceMemory;

/// `struct virtq_desc` (VIRTIO 1.2, 2.7.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Descriptor {
    address: U64,
    len: U32,
    flags: U16,
    next: U16,
}

const SIZE: u64 = 16;
/// The most elements of an indirect table of a queue that has fewer itself. A driver's chain is not longer than its queue
/// (2.7.5.3.1); longer tables cost the device time and memory for each request.
const MAX_INDIRECT_LEN: u16 = 1024;
const _: () = assert!(size_of::<Descriptor>() as u64 == SIZE);

impl Descriptor {
    /// GPA of the buffer.
    pub(super) fn address(&self) -> u64 {
        self.address.get()
    }

    /// Bytes of the buffer.
    pub(super) fn len(&self) -> u32 {
        self.len.get()
    }

    /// Whether the buffer is device-writable rather than device-readable.
    pub(super) fn is_writable(&self) -> bool {
        self.has(VRING_DESC_F_WRITE)
    }

    /// Whether another descriptor follows.
    pub(super) fn has_next(&self) -> bool {
        self.has(VRING_DESC_F_NEXT)
    }

    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags.get()) & flag != 0
    }
}

/// Reads the descriptors of a chain one after the other.
pub(super) struct Chain<'a> {
    memory: &'a DeviceMemory,
    /// GPA of the table.
    table: u64,
    /// Its elements.
    elements: u16,
    is_indirect: bool,
    /// Index of the next descriptor; `None` at the end.
    next: Option<u16>,
    /// How many more descriptors there can be before the chain must be a loop.
    left: u16,
    /// Bytes of the buffers up to here.
    bytes: u32,
}

impl<'a> Chain<'a> {
    /// The chain that begins at an element of a queue's descriptor table.
    pub(super) fn new(memory: &'a DeviceMemory, table: u64, elements: u16, head: u16) -> Self {
        Chain { memory, table, elements, is_indirect: false, next: Some(head), left: elements, bytes: 0 }
    }

    /// The next buffer. `None` if the chain ends or is malformed.
    ///
    /// # Errors
    /// Returns an error if the descriptor is poisoned or the host has no page for it.
    pub(super) fn next(&mut self) -> Result<Option<Descriptor>, AccessError> {
        while let Some(descriptor) = self.read_next()? {
            if !descriptor.has(VRING_DESC_F_INDIRECT) {
                return Ok(self.advance(descriptor));
            }
            if !self.enter_indirect_table(&descriptor) {
                break;
            }
        }
        Ok(None)
    }

    fn read_next(&mut self) -> Result<Option<Descriptor>, AccessError> {
        // Unless `advance` sets it again, the chain has ended.
        let next = self.next.take().filter(|&index| index < self.elements && self.left > 0);
        let place = next.and_then(|index| self.table.checked_add(SIZE * u64::from(index)));
        let Some(place) = place else { return Ok(None) };
        self.left -= 1;
        let mut descriptor = Descriptor::new_zeroed();
        match self.memory.read(place, descriptor.as_mut_bytes()) {
            Ok(()) => Ok(Some(descriptor)),
            Err(AccessError::NotMemory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Continues behind a descriptor. `None` if all buffers up to it have more than 4 GiB.
    fn advance(&mut self, descriptor: Descriptor) -> Option<Descriptor> {
        self.bytes = self.bytes.checked_add(descriptor.len())?;
        self.next = descriptor.has_next().then(|| descriptor.next.get());
        Some(descriptor)
    }

    /// Continues in an indirect table. False if the table is malformed, or the descriptor is itself in one.
    fn enter_indirect_table(&mut self, descriptor: &Descriptor) -> bool {
        let len = u64::from(descriptor.len());
        let max = self.elements.max(MAX_INDIRECT_LEN);
        let elements = u16::try_from(len / SIZE).ok();
        let elements = elements.filter(|&elements| len.is_multiple_of(SIZE) && elements <= max);
        match elements {
            Some(elements) if !self.is_indirect => {
                (self.table, self.elements, self.left) = (descriptor.address(), elements, elements);
                (self.is_indirect, self.next) = (true, Some(0));
                true
            }
            _ => false,
        }
    }
}
