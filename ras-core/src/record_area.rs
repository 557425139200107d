//! The record area: the part of guest memory that error records are written to.

use alloc::vec;
use alloc::vec::Vec;

use crate::error_source::ErrorSource;

/// Bytes of one status block: a page of 4 KiB of its own.
pub(crate) const BLOCK_LEN: u64 = 0x1000;
/// Bytes of one address cell and of one acknowledge register.
const WORD_LEN: u64 = 8;
/// The largest base page of a guest kernel or host. The area, and each of its three parts, starts and ends at such a page: mapping,
/// protecting or poisoning a page of one part never affects another part or the guest's own memory.
const PAGE: u64 = 0x1_0000;

/// Address cells, acknowledge registers and status blocks of the guest's error sources, at addresses that never change once the guest
/// runs: Linux maps some of them once, when its driver starts.
///
/// ```text
/// base        cells: 8 bytes per source, each the address of its block
/// base + a    acknowledge registers: 8 bytes per source, 1 while its block is free
/// base + b    status blocks: 4 KiB per source
/// ```
///
/// The memory map must mark the area as not usable (EFI: reserved or ACPI NVS, write-back; e820: reserved or ACPI NVS).
///
/// ```
/// use ras_core::{ErrorSource, Notification, RecordArea};
///
/// let sources = [ErrorSource { id: 0, notification: Notification::Sea }, ErrorSource { id: 1, notification: Notification::Gsiv }];
/// let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
/// let gsiv = area.slot(1).unwrap();
/// assert_eq!((gsiv.cell_gpa, gsiv.ack_gpa, gsiv.block_gpa), (0x4010_0008, 0x4011_0008, 0x4012_1000));
/// # Ok::<(), ras_core::LayoutError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordArea {
    base: u64,
    sources: Vec<ErrorSource>,
}

/// The addresses of one source's cell, register and block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSlot {
    /// The source.
    pub source: ErrorSource,
    /// GPA of the cell that holds `block_gpa`: 8 bytes, little endian, aligned.
    pub cell_gpa: u64,
    /// GPA of the acknowledge register: 8 bytes, little endian, aligned.
    pub ack_gpa: u64,
    /// GPA of the status block, on a page of its own.
    pub block_gpa: u64,
    /// Bytes of the status block.
    pub block_len: u32,
}

impl RecordSlot {
    /// Bit of the acknowledge register that the guest sets when it has handled a record. The VMM clears it before it writes a record.
    pub const FREE: u64 = 1;
}

/// Why an area cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// There are no sources.
    #[error("there is no error source to lay out")]
    NoSources,
    /// Two sources have the same id.
    #[error("two error sources have the id {id}")]
    DuplicateId {
        /// That id.
        id: u16,
    },
    /// The area does not start at a multiple of 64 KiB.
    #[error("the record area's address {base:#x} is not a multiple of 64 KiB")]
    Misaligned {
        /// That address.
        base: u64,
    },
    /// The area is too small for the sources.
    #[error(
        "{sources} error sources need a record area of {needed:#x} bytes, and {available:#x} are available"
    )]
    TooSmall {
        /// Number of sources.
        sources: usize,
        /// Bytes that they need.
        needed: u64,
        /// Bytes that are available.
        available: u64,
    },
    /// The area would exceed the address space.
    #[error("a record area of {needed:#x} bytes at {base:#x} exceeds the address space")]
    BeyondAddresses {
        /// Its first GPA.
        base: u64,
        /// Bytes that it needs.
        needed: u64,
    },
}

impl RecordArea {
    /// Alignment of an area's address and size: 64 KiB.
    pub const ALIGNMENT: u64 = PAGE;

    /// Lays out the sources from `base` on, in their order.
    ///
    /// # Errors
    /// Returns an error if they do not fit into `available` bytes, `base` is not a multiple of 64 KiB, two ids are equal, or there are no
    /// sources.
    pub fn lay_out(base: u64, available: u64, sources: &[ErrorSource]) -> Result<Self, LayoutError> {
        if sources.is_empty() {
            return Err(LayoutError::NoSources);
        }
        let mut ids: Vec<u16> = sources.iter().map(|source| source.id).collect();
        ids.sort_unstable();
        if let Some(&[id, _]) = ids.windows(2).find(|pair| matches!(pair, [id, next] if id == next)) {
            return Err(LayoutError::DuplicateId { id });
        }
        if !base.is_multiple_of(PAGE) {
            return Err(LayoutError::Misaligned { base });
        }
        let needed = Self::bytes_needed(sources.len());
        if needed > available {
            return Err(LayoutError::TooSmall { sources: sources.len(), needed, available });
        }
        if base.checked_add(needed).is_none() {
            return Err(LayoutError::BeyondAddresses { base, needed });
        }
        Ok(RecordArea { base, sources: sources.to_vec() })
    }

    /// Bytes that this number of sources needs. Ids are 16 bits wide: there are never more than 65,536 sources.
    #[must_use]
    pub const fn bytes_needed(sources: usize) -> u64 {
        let sources = sources as u64;
        2 * words_len(sources) + (sources * BLOCK_LEN).next_multiple_of(PAGE)
    }

    /// First GPA.
    #[must_use]
    pub fn gpa(&self) -> u64 {
        self.base
    }

    /// Size in bytes, a multiple of 64 KiB.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        Self::bytes_needed(self.sources.len())
    }

    /// The addresses of every source, in the order of HEST.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = RecordSlot> {
        let acks = self.base + words_len(self.sources.len() as u64);
        let blocks = acks + words_len(self.sources.len() as u64);
        self.sources.iter().enumerate().map(move |(index, source)| RecordSlot {
            source: *source,
            cell_gpa: self.base + index as u64 * WORD_LEN,
            ack_gpa: acks + index as u64 * WORD_LEN,
            block_gpa: blocks + index as u64 * BLOCK_LEN,
            block_len: BLOCK_LEN as u32,
        })
    }

    /// The addresses of that source. `None` if the area has no such source.
    #[must_use]
    pub fn slot(&self, id: u16) -> Option<RecordSlot> {
        self.slots().find(|slot| slot.source.id == id)
    }

    /// The contents of the area at the start and after a reset: cells that hold the blocks' addresses, and free, empty blocks.
    #[must_use]
    pub fn initial_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes() as usize];
        for slot in self.slots() {
            for (gpa, word) in [(slot.cell_gpa, slot.block_gpa), (slot.ack_gpa, RecordSlot::FREE)] {
                let cell = bytes.get_mut((gpa - self.base) as usize..).and_then(<[u8]>::first_chunk_mut);
                if let Some(cell) = cell {
                    *cell = word.to_le_bytes();
                }
            }
        }
        bytes
    }
}

/// Bytes of all the sources' cells, or of all their registers: whole pages.
const fn words_len(sources: u64) -> u64 {
    (sources * WORD_LEN).next_multiple_of(PAGE)
}
