//! Memory between guest memory and a disk's file.
//!
//! The kernel transfers to and from this memory only: a poisoned page of the guest fails the copy that touches it
//! ([`DeviceMemory`](crate::virtio::DeviceMemory)), and not a system call in the middle of a transfer. A request that is
//! abandoned leaves guest memory alone, whatever the kernel does afterwards.

/// Alignment of a buffer, in bytes: what O_DIRECT needs at most.
pub(super) const ALIGNMENT: usize = 4096;
/// The most bytes of a buffer.
pub(super) const MAX_LEN: usize = 64 << 10;

/// A buffer. Its memory stays where it is, also when the buffer is moved.
#[derive(Debug, Default)]
pub(super) struct Bounce {
    /// Never shrinks: the queue replaces it when it is idle.
    memory: Box<[u8]>,
    /// Where the aligned bytes start.
    start: usize,
    len: usize,
}

impl Bounce {
    /// Changes the number of bytes, to [`MAX_LEN`] at most. Their content is arbitrary.
    pub(super) fn resize(&mut self, len: usize) {
        let len = len.min(MAX_LEN);
        if self.start + len > self.memory.len() {
            self.memory = vec![0; len.next_multiple_of(ALIGNMENT) + ALIGNMENT].into_boxed_slice();
            self.start = self.memory.as_ptr().align_offset(ALIGNMENT);
        }
        self.len = len;
    }

    /// Whether it has memory.
    pub(super) fn is_allocated(&self) -> bool {
        !self.memory.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_grow() {
        let mut buffer = Bounce::default();
        assert!(buffer.bytes().is_empty());
        for len in [1, 512, 4096, 4097, 0, MAX_LEN, 512] {
            buffer.resize(len);
            assert_eq!(buffer.bytes_mut().len(), len);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
        buffer.resize(MAX_LEN + 1);
        assert_eq!(buffer.bytes().len(), MAX_LEN);
    }
}
