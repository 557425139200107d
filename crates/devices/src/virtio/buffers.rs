//! The buffers of a request in guest memory, and the only two ways by which their bytes are copied.

use std::collections::VecDeque;

use guest_memory::{AccessError, GuestRam};

use super::chain::Chain;

/// Bytes that could not be copied from or to guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The buffers are shorter.
    #[error("its buffers have {missing} bytes too few")]
    Short {
        /// Bytes that are missing.
        missing: usize,
    },
    /// A buffer is not memory, or not any more: the host has lost it, or has no page for it.
    #[error(transparent)]
    Memory(#[from] AccessError),
}

/// Copies from guest memory. Whoever takes bytes out of a driver's buffers does it here.
fn copy_from_guest(ram: &GuestRam, from: u64, to: &mut [u8]) -> Result<(), CopyError> {
    Ok(ram.read(from, to)?)
}

/// Copies to guest memory. Whoever puts bytes into a driver's buffers does it here.
fn copy_to_guest(ram: &GuestRam, from: &[u8], to: u64) -> Result<(), CopyError> {
    Ok(ram.write(to, from)?)
}

/// The buffers of one request. How a driver divides a request into buffers says nothing (VIRTIO 1.2, 2.7.4).
pub(crate) struct Request<'a> {
    /// What the device reads.
    pub(crate) readable: Buffers<'a>,
    /// What the device writes.
    pub(crate) writable: Buffers<'a>,
    /// Whether the chain had an end, and buffers to read before those to write (VIRTIO 1.2, 2.7.5 and 2.7.4.2).
    pub(crate) well_formed: bool,
}

impl<'a> Request<'a> {
    /// Collects the buffers of a chain. They are 4 GiB at most.
    ///
    /// # Errors
    /// Where a descriptor cannot be read: then nothing says which buffers there are, nor where a status would go.
    pub(crate) fn of(mut chain: Chain<'a>, ram: &'a GuestRam) -> Result<Self, AccessError> {
        let mut readable = Buffers::new(ram);
        let mut writable = Buffers::new(ram);
        let (mut ended, mut ordered) = (false, true);
        while let Some(descriptor) = chain.next()? {
            // The chain stops early where it leads nowhere, round in circles or to more than 4 GiB.
            ended = !descriptor.has_next();
            if descriptor.is_writable() {
                writable.push(descriptor.address(), descriptor.len());
            } else {
                ordered &= writable.parts.is_empty();
                readable.push(descriptor.address(), descriptor.len());
            }
        }
        Ok(Request { readable, writable, well_formed: ended && ordered })
    }
}

/// Buffers one after the other, of which those that were copied are gone.
pub(crate) struct Buffers<'a> {
    ram: &'a GuestRam,
    parts: VecDeque<(u64, u32)>,
    /// Bytes of all parts.
    len: u64,
}

impl<'a> Buffers<'a> {
    fn new(ram: &'a GuestRam) -> Self {
        Buffers { ram, parts: VecDeque::new(), len: 0 }
    }

    fn push(&mut self, start: u64, len: u32) {
        if len > 0 {
            self.parts.push_back((start, len));
            self.len += u64::from(len);
        }
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Takes the last byte away, as buffers of their own. None where there is none.
    pub(crate) fn split_last(&mut self) -> Option<Buffers<'a>> {
        let (start, len) = self.parts.pop_back()?;
        self.len -= u64::from(len);
        let before = len.checked_sub(1)?;
        let mut last = Buffers::new(self.ram);
        // A buffer that ends beyond all addresses has no last byte.
        last.push(start.checked_add(before.into())?, 1);
        self.push(start, before);
        Some(last)
    }

    /// Fills `to` from the next bytes.
    ///
    /// # Errors
    /// Where there are not so many, or some cannot be had.
    pub(crate) fn read(&mut self, mut to: &mut [u8]) -> Result<(), CopyError> {
        while !to.is_empty() {
            let (start, len) = self.next(to.len())?;
            let (now, later) = to.split_at_mut(len);
            copy_from_guest(self.ram, start, now)?;
            self.advance(len);
            to = later;
        }
        Ok(())
    }

    /// Puts `from` into the next bytes.
    ///
    /// # Errors
    /// Where there are not so many, or some cannot be had; those before are written then.
    pub(crate) fn write(&mut self, mut from: &[u8]) -> Result<(), CopyError> {
        while !from.is_empty() {
            let (start, len) = self.next(from.len())?;
            let (now, later) = from.split_at(len);
            copy_to_guest(self.ram, now, start)?;
            self.advance(len);
            from = later;
        }
        Ok(())
    }

    /// The next contiguous bytes, `most` of them at most and one at least.
    fn next(&self, most: usize) -> Result<(u64, usize), CopyError> {
        let &(start, len) = self.parts.front().ok_or(CopyError::Short { missing: most })?;
        Ok((start, most.min(len as usize)))
    }

    /// Drops bytes of the first part.
    fn advance(&mut self, bytes: usize) {
        if let Some((start, len)) = self.parts.pop_front() {
            let left = len.saturating_sub(bytes as u32);
            self.len -= u64::from(len - left);
            if let (Some(start), true) = (start.checked_add(bytes as u64), left > 0) {
                self.parts.push_front((start, left));
            }
        }
    }
}
