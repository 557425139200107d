//! Accesses to guest memory that end in an error where a page is not there ([`crate::recoverable`]).

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::ram::GuestRam;
use crate::recoverable::{self, Stopped};

/// Why an access to guest memory ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The guest has no memory there.
    #[error("{len} bytes at {gpa:#x} are not memory")]
    NotMemory {
        /// GPA of the first byte that is not memory.
        gpa: u64,
        /// Bytes that were still to be accessed.
        len: u64,
    },
    /// A load or store of 2, 4 or 8 bytes that is not aligned to its size.
    #[error("{len} bytes at {gpa:#x} are not aligned")]
    Unaligned {
        /// GPA.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// The host has lost the page.
    #[error(transparent)]
    Poisoned(#[from] PoisonedPage),
    /// The host has no page to put there: the file behind it was cut short, or its pool is empty.
    #[error("the host has no page for {gpa:#x} (SIGBUS, si_code {code})")]
    Host {
        /// GPA of the byte at which the access stopped.
        gpa: u64,
        /// `si_code`: BUS_ADRERR is 2.
        code: i32,
    },
}

/// A page that the host has lost, as an access met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host has lost the page at {gpa:#x} (2^{log2_len} bytes)")]
pub struct PoisonedPage {
    /// GPA in it: that of the byte at which the access stopped.
    pub gpa: u64,
    /// log2 of how many bytes are lost.
    pub log2_len: u8,
}

/// Contiguous bytes of a region.
struct Piece {
    host: *mut u8,
    /// Bytes, at least 1.
    len: usize,
}

impl GuestRam {
    /// Copies from guest memory. It may cross from one run of memory to the next where they touch.
    ///
    /// # Errors
    /// At the first byte that cannot be had. Those before it are copied.
    pub fn read(&self, gpa: u64, to: &mut [u8]) -> Result<(), AccessError> {
        self.for_pieces(gpa, to.len(), |piece, done| {
            let to = to[done..done + piece.len].as_mut_ptr();
            copy(to, piece.host, piece.len)
        })
    }

    /// Copies to guest memory. It may cross from one run of memory to the next where they touch.
    ///
    /// # Errors
    /// At the first byte that cannot be had. Those before it are copied.
    pub fn write(&self, gpa: u64, from: &[u8]) -> Result<(), AccessError> {
        self.for_pieces(gpa, from.len(), |piece, done| {
            let from = from[done..done + piece.len].as_ptr();
            copy(piece.host, from, piece.len)
        })
    }

    /// Loads 8 aligned bytes at once, with acquire ordering.
    ///
    /// # Errors
    /// Where they are not aligned or cannot be had.
    #[expect(unsafe_code, reason = "guest memory is reached by pointers")]
    pub fn load_u64(&self, gpa: u64) -> Result<u64, AccessError> {
        let host = self.aligned(gpa, 8)?;
        // SAFETY: mapped for as long as `self` lives, and aligned.
        unsafe { recoverable::load_u64(host.cast()) }.map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Stores 8 aligned bytes at once, with release ordering.
    ///
    /// # Errors
    /// Where they are not aligned or cannot be had.
    #[expect(unsafe_code, reason = "guest memory is reached by pointers")]
    pub fn store_u64(&self, gpa: u64, value: u64) -> Result<(), AccessError> {
        let host = self.aligned(gpa, 8)?;
        // SAFETY: mapped to be written for as long as `self` lives, and aligned.
        unsafe { recoverable::store_u64(host.cast(), value) }
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Stores 4 aligned bytes at once, with release ordering.
    ///
    /// # Errors
    /// Where they are not aligned or cannot be had.
    #[expect(unsafe_code, reason = "guest memory is reached by pointers")]
    pub fn store_u32(&self, gpa: u64, value: u32) -> Result<(), AccessError> {
        let host = self.aligned(gpa, 4)?;
        // SAFETY: mapped to be written for as long as `self` lives, and aligned.
        unsafe { recoverable::store_u32(host.cast(), value) }
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Loads a 16-bit little-endian value in one access, with acquire ordering.
    ///
    /// # Errors
    /// Returns an error if the GPA is not a multiple of 2, is not memory, or its page is poisoned or absent.
    #[expect(unsafe_code, reason = "guest memory is reached by pointers")]
    pub fn load_u16(&self, gpa: u64) -> Result<u16, AccessError> {
        let host = self.aligned(gpa, 2)?;
        // SAFETY: mapped for as long as `self` lives, and aligned.
        unsafe { recoverable::load_u16(host.cast()) }
            .map(u16::from_le)
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Stores a 16-bit little-endian value in one access, with release ordering.
    ///
    /// # Errors
    /// Returns an error if the GPA is not a multiple of 2, is not memory, or its page is poisoned or absent.
    #[expect(unsafe_code, reason = "guest memory is reached by pointers")]
    pub fn store_u16(&self, gpa: u64, value: u16) -> Result<(), AccessError> {
        let host = self.aligned(gpa, 2)?;
        // SAFETY: mapped to be written for as long as `self` lives, and aligned.
        unsafe { recoverable::store_u16(host.cast(), value.to_le()) }
            .map_err(|stopped| self.explain(gpa, host, &stopped))
    }

    /// Reads a byte of every page: that they are there now, and not that they stay.
    ///
    /// # Errors
    /// At the first page that cannot be had.
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

    /// Has `access` done for each region that the bytes are in, with how many bytes come before.
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

    /// The bytes from a GPA on that are in one region, `most` of them at most.
    fn piece(&self, gpa: u64, most: usize) -> Option<Piece> {
        let region = self.memory().find_region(GuestAddress(gpa))?;
        let offset = gpa - region.start_addr().0;
        let host = region.get_host_address(MemoryRegionAddress(offset)).ok()?;
        let len = usize::try_from(region.len() - offset).ok()?.min(most);
        Some(Piece { host, len })
    }

    /// Where aligned bytes are.
    fn aligned(&self, gpa: u64, len: u64) -> Result<*mut u8, AccessError> {
        if !gpa.is_multiple_of(len) {
            return Err(AccessError::Unaligned { gpa, len });
        }
        // Regions are of whole pages: the rest is there where the first byte is.
        let piece = self.piece(gpa, len as usize).ok_or(AccessError::NotMemory { gpa, len })?;
        Ok(piece.host)
    }

    /// What stopped an access that began at a GPA and its place.
    fn explain(&self, gpa: u64, host: *mut u8, stopped: &Stopped) -> AccessError {
        let (signal, done) = (&stopped.signal, stopped.done as u64);
        if !signal.is_poisoned() {
            return AccessError::Host { gpa: gpa + done, code: signal.code };
        }
        // The page that the signal names, should the processor have stopped a few bytes before it.
        let stopped_at = host as u64 + done;
        let page = signal.hva & 1_u64.checked_shl(signal.log2_len.into()).map_or(0, |len| !(len - 1));
        let at = self.guest_address(stopped_at.max(page)).unwrap_or(gpa + done);
        AccessError::Poisoned(PoisonedPage { gpa: at, log2_len: signal.log2_len })
    }
}

#[expect(unsafe_code, reason = "guest memory is reached by pointers")]
fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Stopped> {
    // SAFETY: one is `len` bytes of a slice, the other `len` bytes of a region, mapped for as long as its `GuestRam`
    // lives; no slice of this process is guest memory.
    unsafe { recoverable::copy(to, from, len) }
}
