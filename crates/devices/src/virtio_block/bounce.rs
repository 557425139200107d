//! Memory between guest memory and a disk's file.
//!
//! The kernel transfers to and from this memory only: a poisoned page of the guest fails the copy that touches it
//! ([`DeviceMemory`](crate::virtio::DeviceMemory)), and not a system call in the middle of a transfer. A request that is
//! abandoned leaves guest memory alone, whatever the kernel does afterwards.

use std::io;

use memmap2::MmapMut;

/// The most bytes of a buffer.
pub(super) const MAX_LEN: usize = 64 << 10;

/// What a buffer is aligned to at least: a page.
pub(super) const ALIGNMENT: usize = 4096;

/// A buffer, for O_DIRECT too, of a mapping of its own, which is the host's again when the buffer is dropped.
#[derive(Debug, Default)]
pub(super) struct Bounce {
    /// [`MAX_LEN`] bytes. They stay where they are, also when the buffer is moved.
    memory: Option<MmapMut>,
    len: usize,
}

impl Bounce {
    /// Changes the number of bytes, to [`MAX_LEN`] at most. Their content is arbitrary.
    ///
    /// # Errors
    /// Returns the error of mmap(2).
    pub(super) fn resize(&mut self, len: usize) -> io::Result<()> {
        if self.memory.is_none() {
            self.memory = Some(MmapMut::map_anon(MAX_LEN)?);
        }
        self.len = len.min(MAX_LEN);
        Ok(())
    }

    /// Whether it has memory.
    pub(super) fn is_allocated(&self) -> bool {
        self.memory.is_some()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.as_deref().and_then(|memory| memory.get(..self.len)).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().and_then(|memory| memory.get_mut(..self.len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_pages_of_any_length() {
        let mut buffer = Bounce::default();
        assert!(buffer.bytes().is_empty());
        for len in [1, 512, 4096, 4097, 0, MAX_LEN, 512] {
            buffer.resize(len).unwrap();
            assert_eq!(buffer.bytes_mut().len(), len);
            assert!(buffer.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
        buffer.resize(MAX_LEN + 1).unwrap();
        assert_eq!(buffer.bytes().len(), MAX_LEN);
    }
}
