//! The buffers of a request in guest memory.

use std::collections::VecDeque;

use guest_memory::AccessError;

use super::chain::Chain;
use super::memory::DeviceMemory;
use super::queue::Queue;

/// Why bytes could not be copied from or to the buffers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The buffers are too short.
    #[error("its buffers are {missing} bytes too short")]
    Short {
        /// Bytes that are missing.
        missing: usize,
    },
    /// A buffer is not memory, is poisoned, or has no page of the host.
    #[error(transparent)]
    Memory(#[from] AccessError),
}

/// The buffers of one request. How a driver divides a request into buffers has no meaning (VIRTIO 1.2, 2.7.4).
pub struct Request<'a> {
    /// The device-readable buffers.
    pub readable: Buffers<'a>,
    /// The device-writable buffers.
    pub writable: Buffers<'a>,
    /// Whether the chain has an end, and its device-readable buffers come first (VIRTIO 1.2, 2.7.5 and 2.7.4.2).
    pub well_formed: bool,
}

impl<'a> Request<'a> {
    /// Reads the descriptors of the chain at `head`. Its buffers are 4 GiB at most.
    ///
    /// # Errors
    /// Returns an error if a descriptor cannot be read: its buffers, and where a status would go, are unknown then.
    pub(super) fn read(memory: &'a DeviceMemory, queue: &Queue, head: u16) -> Result<Self, AccessError> {
        let mut chain = Chain::new(memory, queue.layout().descriptors, queue.size(), head);
        let mut readable = Buffers::new(memory);
        let mut writable = Buffers::new(memory);
        let (mut ended, mut ordered) = (false, true);
        while let Some(descriptor) = chain.next()? {
            // A malformed chain stops behind a descriptor that has a next one.
            ended = !descriptor.has_next();
            if descriptor.is_writable() {
                writable.push(descriptor.address(), descriptor.len());
            } else {
                ordered &= writable.is_empty();
                readable.push(descriptor.address(), descriptor.len());
            }
        }
        Ok(Request { readable, writable, well_formed: ended && ordered })
    }
}

/// A sequence of buffers. What was copied is removed from its front.
pub struct Buffers<'a> {
    memory: &'a DeviceMemory,
    segments: Segments,
}

/// A sequence of buffers apart from its memory: what a device keeps of a request that it completes later.
#[derive(Debug, Default)]
pub struct Segments {
    /// GPA and bytes of each, never empty.
    parts: VecDeque<(u64, u32)>,
    /// Bytes of all parts.
    len: u64,
}

impl<'a> Buffers<'a> {
    fn new(memory: &'a DeviceMemory) -> Self {
        Segments::default().in_memory(memory)
    }

    fn push(&mut self, start: u64, len: u32) {
        self.segments.push(start, len);
    }

    /// Bytes that are left.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.segments.len
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffers apart from their memory.
    #[must_use]
    pub fn into_segments(self) -> Segments {
        self.segments
    }

    /// The GPA and bytes of each of the buffers that are left, as the guest gave them.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u32)> {
        self.segments.parts.iter().copied()
    }

    /// Removes the last byte and returns it as buffers of its own. `None` if there is none.
    pub fn split_last(&mut self) -> Option<Buffers<'a>> {
        let (start, len) = self.segments.parts.pop_back()?;
        self.segments.len -= u64::from(len);
        let before = len.checked_sub(1)?;
        let mut last = Buffers::new(self.memory);
        // A buffer that ends past the last address has no last byte.
        last.push(start.checked_add(before.into())?, 1);
        self.push(start, before);
        Some(last)
    }

    /// Fills `to` from the next bytes.
    ///
    /// # Errors
    /// Returns an error if the buffers are too short, or a byte cannot be read.
    pub fn read(&mut self, mut to: &mut [u8]) -> Result<(), CopyError> {
        while !to.is_empty() {
            let (start, len) = self.contiguous(to.len())?;
            let (now, later) = to.split_at_mut(len);
            self.memory.read(start, now)?;
            self.segments.advance(len);
            to = later;
        }
        Ok(())
    }

    /// Copies `from` to the next bytes.
    ///
    /// # Errors
    /// Returns an error if the buffers are too short, or a byte cannot be written. The bytes before it are written then.
    pub fn write(&mut self, mut from: &[u8]) -> Result<(), CopyError> {
        while !from.is_empty() {
            let (start, len) = self.contiguous(from.len())?;
            let (now, later) = from.split_at(len);
            self.memory.write(start, now)?;
            self.segments.advance(len);
            from = later;
        }
        Ok(())
    }

    /// GPA and number of the next contiguous bytes: 1 to `max`.
    fn contiguous(&self, max: usize) -> Result<(u64, usize), CopyError> {
        let &(start, len) = self.segments.parts.front().ok_or(CopyError::Short { missing: max })?;
        Ok((start, max.min(len as usize)))
    }
}

impl Segments {
    /// The buffers in their memory.
    #[must_use]
    pub fn in_memory(self, memory: &DeviceMemory) -> Buffers<'_> {
        Buffers { memory, segments: self }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes the first bytes and returns them: all if there are fewer than `len`.
    #[must_use]
    pub fn split_to(&mut self, mut len: u64) -> Segments {
        let mut first = Segments::default();
        while let Some(&(start, part)) = self.parts.front().filter(|_| len > 0) {
            let part = u32::try_from(len).map_or(part, |len| len.min(part));
            first.push(start, part);
            self.advance(part as usize);
            len -= u64::from(part);
        }
        first
    }

    fn push(&mut self, start: u64, len: u32) {
        if len > 0 {
            self.parts.push_back((start, len));
            self.len += u64::from(len);
        }
    }

    /// Removes bytes of the first part. The rest of one that ends past the last address is removed too.
    fn advance(&mut self, bytes: usize) {
        if let Some((start, len)) = self.parts.pop_front() {
            let left = len.saturating_sub(bytes as u32);
            self.len -= u64::from(len - left);
            match start.checked_add(bytes as u64) {
                Some(start) if left > 0 => self.parts.push_front((start, left)),
                _ => self.len -= u64::from(left),
            }
        }
    }
}
