//! The descriptors of a request (VIRTIO 1.2, 2.7.5), read by accesses that survive a poisoned page.
//!
//! A chain that makes no sense ends early: it leads out of its table, goes round in circles, is of more than 4 GiB, or has
//! a table of buffers that is none (2.7.5.3).

use guest_memory::{AccessError, GuestRam};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// `struct virtq_desc` (VIRTIO 1.2, 2.7.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Descriptor {
    address: U64,
    len: U32,
    flags: U16,
    next: U16,
}

const SIZE: u64 = 16;
const _: () = assert!(size_of::<Descriptor>() as u64 == SIZE);

impl Descriptor {
    /// GPA of the buffer.
    pub(crate) fn address(&self) -> u64 {
        self.address.get()
    }

    /// Bytes of the buffer.
    pub(crate) fn len(&self) -> u32 {
        self.len.get()
    }

    /// Whether the device writes it.
    pub(crate) fn is_writable(&self) -> bool {
        self.has(VRING_DESC_F_WRITE)
    }

    /// Whether another one follows.
    pub(crate) fn has_next(&self) -> bool {
        self.has(VRING_DESC_F_NEXT)
    }

    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags.get()) & flag != 0
    }
}

/// Descriptors one after the other.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    ram: &'a GuestRam,
    /// GPA of the table.
    table: u64,
    /// Its elements.
    elements: u16,
    is_indirect: bool,
    /// Where the next one is; none at the end.
    next: Option<u16>,
    /// How many more there can be before the chain goes round in circles.
    left: u16,
    /// Bytes of all buffers.
    bytes: u32,
}

impl<'a> Chain<'a> {
    /// The chain that begins at an element of a queue's table.
    pub(crate) fn new(ram: &'a GuestRam, table: u64, elements: u16, head: u16) -> Self {
        Chain { ram, table, elements, is_indirect: false, next: Some(head), left: elements, bytes: 0 }
    }

    /// The next buffer; none where the chain ends or makes no sense.
    ///
    /// # Errors
    /// Where the host has lost the descriptor, or has no memory for it.
    pub(crate) fn next(&mut self) -> Result<Option<Descriptor>, AccessError> {
        while let Some(descriptor) = self.read_next()? {
            if !descriptor.has(VRING_DESC_F_INDIRECT) {
                return Ok(self.take(descriptor));
            }
            if !self.enter_table(&descriptor) {
                break;
            }
        }
        Ok(None)
    }

    fn read_next(&mut self) -> Result<Option<Descriptor>, AccessError> {
        // Where anything comes between, the chain has ended.
        let next = self.next.take().filter(|&index| index < self.elements && self.left > 0);
        let place = next.and_then(|index| self.table.checked_add(SIZE * u64::from(index)));
        let Some(place) = place else { return Ok(None) };
        self.left -= 1;
        let mut descriptor = Descriptor::new_zeroed();
        match self.ram.read(place, descriptor.as_mut_bytes()) {
            Ok(()) => Ok(Some(descriptor)),
            Err(AccessError::NotMemory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes on from a descriptor, unless all buffers up to it are more than 4 GiB.
    fn take(&mut self, descriptor: Descriptor) -> Option<Descriptor> {
        self.bytes = self.bytes.checked_add(descriptor.len())?;
        self.next = descriptor.has_next().then(|| descriptor.next.get());
        Some(descriptor)
    }

    /// Goes on in the table that a descriptor names. False where it is none: a table in a table there is not.
    fn enter_table(&mut self, descriptor: &Descriptor) -> bool {
        let len = u64::from(descriptor.len());
        let elements = u16::try_from(len / SIZE).ok().filter(|_| len.is_multiple_of(SIZE));
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
