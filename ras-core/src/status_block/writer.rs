//! A writer of status blocks that allocates no memory.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::wire::{DataEntryHeader, StatusBlockHeader, block_status, valid};
use crate::cper::Section;
use crate::fru_text::FruText;
use crate::guid::Guid;
use crate::severity::Severity;
use crate::timestamp::Timestamp;

/// The header fields of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Severity.
    pub severity: Severity,
    /// Flags: [`section_flags`](super::section_flags).
    pub flags: u8,
    /// FRU id.
    pub fru_id: Option<Guid>,
    /// FRU text.
    pub fru_text: Option<FruText>,
    /// Timestamp.
    pub time: Option<Timestamp>,
}

/// The entry does not fit into the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {needed} bytes does not fit into the {available} bytes that are left of the block")]
pub struct BufferTooSmall {
    /// Length of the entry in bytes.
    pub needed: usize,
    /// Bytes that are left of the block.
    pub available: usize,
}

/// Writes a status block into `bytes`, entry by entry. Its counts, lengths and severity follow from its entries.
///
/// A guest may read a block at any time: copy the bytes after the first four to it, then the first four.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    header: &'a mut [u8],
    entries: &'a mut [u8],
    used: usize,
    uncorrectable: u32,
    correctable: u32,
    count: u32,
    severity: Severity,
}

impl<'a> BlockWriter<'a> {
    /// An empty block.
    ///
    /// # Errors
    /// Returns an error if `bytes` is shorter than its header: 20 bytes.
    pub fn new(bytes: &'a mut [u8]) -> Result<Self, BufferTooSmall> {
        let header_len = size_of::<StatusBlockHeader>();
        let available = bytes.len();
        let (header, entries) =
            bytes.split_at_mut_checked(header_len).ok_or(BufferTooSmall { needed: header_len, available })?;
        Ok(BlockWriter {
            header,
            entries,
            used: 0,
            uncorrectable: 0,
            correctable: 0,
            count: 0,
            severity: Severity::Informational,
        })
    }

    /// Adds an entry of revision 3.0.
    ///
    /// # Errors
    /// Returns an error, and leaves the block unchanged, if the entry does not fit or the block has the largest number of entries.
    pub fn push(
        &mut self,
        heading: &Heading,
        section: &(impl Section + ?Sized),
    ) -> Result<(), BufferTooSmall> {
        let mut payload_len = 0;
        section.parts(&mut |part| payload_len += part.len());
        let needed = size_of::<DataEntryHeader>() + size_of::<Timestamp>() + payload_len;
        let free = self.entries.get_mut(self.used..).unwrap_or_default();
        let available = if self.count < block_status::MAX_COUNT { free.len() } else { 0 };
        if needed > available {
            return Err(BufferTooSmall { needed, available });
        }
        // Held by every length of a slice that a block's own 32-bit length can count, and refused beyond.
        let Ok(error_data_length) = u32::try_from(payload_len) else {
            return Err(BufferTooSmall { needed, available });
        };

        let header = DataEntryHeader {
            section_type: section.kind(),
            severity: U32::new(heading.severity.number()),
            revision: U16::new(DataEntryHeader::WITH_TIMESTAMP),
            validation: flag(heading.fru_id.is_some(), valid::FRU_ID)
                | flag(heading.fru_text.is_some(), valid::FRU_TEXT)
                | flag(heading.time.is_some(), valid::TIMESTAMP),
            flags: heading.flags,
            error_data_length: U32::new(error_data_length),
            fru_id: heading.fru_id.unwrap_or(Guid::ZERO),
            fru_text: heading.fru_text.unwrap_or(FruText::EMPTY),
        };
        let mut rest = free;
        copy(&mut rest, header.as_bytes());
        copy(&mut rest, heading.time.unwrap_or(Timestamp::NONE).as_bytes());
        section.parts(&mut |part| copy(&mut rest, part));

        self.used += needed;
        self.count += 1;
        self.severity = self.severity.worse(heading.severity);
        match heading.severity {
            Severity::Recoverable | Severity::Fatal => self.uncorrectable += 1,
            Severity::Corrected => self.correctable += 1,
            Severity::Informational => {}
        }
        Ok(())
    }

    /// Completes the block and returns its length in bytes. A block without entries has the status of an empty one.
    #[must_use = "that many bytes have to be copied to the guest"]
    pub fn finish(self) -> usize {
        let status =
            block_status::of(self.uncorrectable, self.correctable) | self.count << block_status::COUNT_SHIFT;
        let header = StatusBlockHeader {
            block_status: U32::new(status),
            raw_data_offset: U32::ZERO,
            raw_data_length: U32::ZERO,
            data_length: U32::new(self.used as u32),
            severity: U32::new(self.severity.number()),
        };
        self.header.copy_from_slice(header.as_bytes());
        size_of::<StatusBlockHeader>() + self.used
    }
}

const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Copies `part` to the front of `rest` and advances it. Bytes that do not fit are dropped.
fn copy(rest: &mut &mut [u8], part: &[u8]) {
    let (front, behind) = core::mem::take(rest).split_at_mut_checked(part.len()).unwrap_or_default();
    front.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
    *rest = behind;
}
