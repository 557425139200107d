//! Accesses to guest memory that return an error if a page is poisoned or missing ([`crate::recoverable`]).

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::ram::GuestRam;
use crate::recoverable::{self, Stopped};

/// Why an access to guest memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The guest has no memory at the address.
    #[error("{len} bytes at GPA {gpa:#x} are not guest memory")]
    NotMemory {
        /// GPA of the first byte that is not memory.
        gpa: u64,
        /// Bytes of the access from there on.
        len: u64,
    },
    /// A load or store of 2, 4 or 8 bytes is not naturally aligned.
    #[error("access of {len} bytes at GPA {gpa:#x} is not aligned")]
    Unaligned {
        /// GPA.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// The page is poisoned.
    #[error(transparent)]
    Poisoned(#[from] PoisonedPage),
    /// The host cannot provide a page: the backing file was truncated, or the hugetlb pool is empty.
    #[error("the host has no page for GPA {gpa:#x} (SIGBUS, si_code {code})")]
    Host {
        /// GPA of the byte at which the access stopped.
        gpa: u64,
        /// `si_code`: BUS_ADRERR is 2.
        code: i32,
    },
}

/// A poisoned page that an access touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("poisoned page at GPA {gpa:#x} (2^{log2_len} bytes)")]
pub struct PoisonedPage {
    /// GPA in the page: that of the byte at which the access stopped.
    pub gpa: u64,
    /// Base-two logarithm of the poisoned bytes (`si_addr_lsb`).
    pub log2_len: u8,
}

/// Contiguous bytes of one region.
struct Piece {
    host: *mut u8,
    /// Bytes, at least 1.
    len: usize,
}

impl GuestRam {
    /// Copies from guest memory. The bytes may span adjacent regions.
    ///
    /// # Errors
    /// Returns an error for the first byte that cannot be accessed. All bytes before it are copied.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn read(&self, gpa: u64, to: &mut [u8]) -> Result<(), AccessError> {
        self.for_pieces(gpa, to.len(), |piece, done| {
            let to = &mut to[done..done + piece.len];
            // SAFETY: `to` has `piece.len` bytes; the piece is as many bytes of guest memory, mapped while `self` is borrowed. They
            // do not overlap: no slice of this process is guest memory.
            unsafe { recoverable::copy(to.as_mut_ptr(), piece.host, piece.len) }
        })
    }

    /// Copies to guest memory. The bytes may span adjacent regions.
    ///
    /// # Errors
    /// Returns an error for the first byte that cannot be accessed. All bytes before it are copied.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn write(&self, gpa: u64, from: &[u8]) -> Result<(), AccessError> {
        self.for_pieces(gpa, from.len(), |piece, done| {
            let from = &from[done..done + piece.len];
            // SAFETY: as in `read`, with the directions exchanged; guest memory is mapped writable.
            unsafe { recoverable::copy(piece.host, from.as_ptr(), piece.len) }
        })
    }

    /// Loads 8 aligned bytes in one access, with acquire ordering.
    ///
    /// # Errors
    /// Returns an error if the address is not aligned or cannot be accessed.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn load_u64(&self, gpa: u64) -> Result<u64, AccessError> {
        let host = self.aligned(gpa, 8)?;
        // SAFETY: the address is guest memory, mapped while `self` is borrowed, and aligned.
        unsafe { recoverable::load_u64(host.cast()) }.map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Stores 8 aligned bytes in one access, with release ordering.
    ///
    /// # Errors
    /// Returns an error if the address is not aligned or cannot be accessed.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn store_u64(&self, gpa: u64, value: u64) -> Result<(), AccessError> {
        let host = self.aligned(gpa, 8)?;
        // SAFETY: the address is guest memory, mapped writable while `self` is borrowed, and aligned.
        unsafe { recoverable::store_u64(host.cast(), value) }
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Stores 4 aligned bytes in one access, with release ordering.
    ///
    /// # Errors
    /// Returns an error if the address is not aligned or cannot be accessed.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn store_u32(&self, gpa: u64, value: u32) -> Result<(), AccessError> {
        let host = self.aligned(gpa, 4)?;
        // SAFETY: the address is guest memory, mapped writable while `self` is borrowed, and aligned.
        unsafe { recoverable::store_u32(host.cast(), value) }
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Loads a 16-bit little-endian value in one access, with acquire ordering.
    ///
    /// # Errors
    /// Returns an error if the address is not aligned or cannot be accessed.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn load_u16(&self, gpa: u64) -> Result<u16, AccessError> {
        let host = self.aligned(gpa, 2)?;
        // SAFETY: the address is guest memory, mapped while `self` is borrowed, and aligned.
        unsafe { recoverable::load_u16(host.cast()) }
            .map(u16::from_le)
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Stores a 16-bit little-endian value in one access, with release ordering.
    ///
    /// # Errors
    /// Returns an error if the address is not aligned or cannot be accessed.
    #[expect(unsafe_code, reason = "guest memory is accessed through pointers")]
    pub fn store_u16(&self, gpa: u64, value: u16) -> Result<(), AccessError> {
        let host = self.aligned(gpa, 2)?;
        // SAFETY: the address is guest memory, mapped writable while `self` is borrowed, and aligned.
        unsafe { recoverable::store_u16(host.cast(), value.to_le()) }
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Reads one byte of every page, to check that each can be accessed now.
    ///
    /// # Errors
    /// Returns an error for the first page that cannot be accessed.
    pub fn probe(&self, gpa: u64, len: u64) -> Result<(), AccessError> {
        let page_size = rustix::param::page_size() as u64;
        let Some(last) = len.checked_sub(1) else { return Ok(()) };
        let last = gpa.checked_add(last).ok_or(AccessError::NotMemory { gpa, len })?;
        let mut at = gpa;
        loop {
            self.read(at, &mut [0])?;
            match (at & !(page_size - 1)).checked_add(page_size) {
                Some(next) if next <= last => at = next,
                _ => return Ok(()),
            }
        }
    }

    /// Calls `access` for the part of the bytes in each region, with the count of bytes before that part.
    fn for_pieces(
        &self,
        gpa: u64,
        len: usize,
        mut access: impl FnMut(&Piece, usize) -> Result<(), Stopped>,
    ) -> Result<(), AccessError> {
        let mut done = 0;
        while done < len {
            let left = len - done;
            let at = gpa.checked_add(done as u64).ok_or(AccessError::NotMemory { gpa, len: left as u64 })?;
            let piece = self.piece(at, left).ok_or(AccessError::NotMemory { gpa: at, len: left as u64 })?;
            access(&piece, done).map_err(|stopped| self.explain(at, piece.host, &stopped))?;
            done += piece.len;
        }
        Ok(())
    }

    /// Up to `max_len` bytes from a GPA on that are in one region.
    fn piece(&self, gpa: u64, max_len: usize) -> Option<Piece> {
        let region = self.memory().find_region(GuestAddress(gpa))?;
        let offset = gpa - region.start_addr().0;
        let host = region.get_host_address(MemoryRegionAddress(offset)).ok()?;
        let len = usize::try_from(region.len() - offset).ok()?.min(max_len);
        Some(Piece { host, len })
    }

    /// The host address of aligned bytes.
    fn aligned(&self, gpa: u64, len: u64) -> Result<*mut u8, AccessError> {
        if !gpa.is_multiple_of(len) {
            return Err(AccessError::Unaligned { gpa, len });
        }
        // Regions consist of whole pages, so all the bytes are in the region of the first.
        let piece = self.piece(gpa, len as usize).ok_or(AccessError::NotMemory { gpa, len })?;
        Ok(piece.host)
    }

    /// The error of an access that began at `gpa` and `host`.
    fn explain(&self, gpa: u64, host: *mut u8, stopped: &Stopped) -> AccessError {
        let (signal, done) = (&stopped.signal, stopped.done as u64);
        if !signal.is_poisoned() {
            return AccessError::Host { gpa: gpa + done, code: signal.code };
        }
        // The processor may have stopped a few bytes before the page that the signal names.
        let stopped_at = host as u64 + done;
        let page = signal.hva & 1_u64.checked_shl(signal.log2_len.into()).map_or(0, |len| !(len - 1));
        let at = self.guest_address(stopped_at.max(page)).unwrap_or(gpa + done);
        AccessError::Poisoned(PoisonedPage { gpa: at, log2_len: signal.log2_len })
    }
}
