//! Status blocks of records that were made for other purposes.

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::{Content, Decoded, Part};
use crate::cper::record::{RecordHeader, RecordSection};
use crate::severity::Severity;
use crate::status_block::{DataEntryHeader, StatusBlockHeader, block_status, valid};
use crate::timestamp::{TimeEncoding, Timestamp};

/// Why a file is not a status block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotOneBlock {
    /// It has several parts.
    #[error("it has {0} status blocks, records or sections: one is possible")]
    Several(usize),
    /// A record has more sections than a block can count.
    #[error("it has {0} sections, and a status block counts up to {max}", max = block_status::MAX_COUNT)]
    TooManySections(usize),
}

impl Decoded<'_> {
    /// The status block that notifies a guest of what was decoded: a single status block as it is, with inconsistent lengths too; or one
    /// with the sections of a single CPER record, or a section, as its entries.
    ///
    /// # Errors
    /// Returns an error if there are several parts, or too many sections.
    pub fn to_block(&self) -> Result<Vec<u8>, NotOneBlock> {
        let mut records = self.parts.iter().filter(|part| part.is_record());
        match (records.next(), records.next()) {
            (Some(Part { content: Content::Block(block, _), .. }), None) => Ok(block.bytes().to_vec()),
            (Some(Part { content: Content::Record(_, record, _), .. }), None) => {
                let header = record.header;
                let sections: Vec<_> = record.sections().collect();
                of_sections(header.severity, time_of(header), &sections)
            }
            (Some(Part { content: Content::Section(section), .. }), None) => {
                of_sections(section.descriptor.severity, None, core::slice::from_ref(section))
            }
            _ => Err(NotOneBlock::Several(self.parts.iter().filter(|part| part.is_record()).count())),
        }
    }
}

/// The timestamp of a record as entries have it: in binary-coded decimals.
fn time_of(header: &RecordHeader) -> Option<Timestamp> {
    /// The bit of the timestamp in [`RecordHeader::validation`].
    const TIME_IS_VALID: u32 = 1 << 1;
    let time = header.timestamp;
    let (text, _) = time.date_and_time(header.time_encoding())?;
    let flags = u8::from(time.is_precise()) | time.reserved_flags();
    let is_valid = header.validation.get() & TIME_IS_VALID != 0;
    Timestamp::parse(&text, TimeEncoding::Bcd, flags).filter(|_| is_valid)
}

fn of_sections(
    severity: U32,
    time: Option<Timestamp>,
    sections: &[RecordSection<'_>],
) -> Result<Vec<u8>, NotOneBlock> {
    let count = u32::try_from(sections.len()).ok().filter(|count| *count <= block_status::MAX_COUNT);
    let count = count.ok_or(NotOneBlock::TooManySections(sections.len()))?;
    let mut entries = Vec::new();
    let (mut uncorrectable, mut correctable) = (0, 0);
    for RecordSection { descriptor, bytes, .. } in sections {
        match Severity::from_number(descriptor.severity.get()) {
            Some(Severity::Recoverable | Severity::Fatal) => uncorrectable += 1,
            Some(Severity::Corrected) => correctable += 1,
            Some(Severity::Informational) | None => {}
        }
        // The validation bits of id and text are the same.
        let has_fru = descriptor.validation & (valid::FRU_ID | valid::FRU_TEXT);
        let header = DataEntryHeader {
            section_type: descriptor.section_type,
            severity: descriptor.severity,
            revision: U16::new(DataEntryHeader::WITH_TIMESTAMP),
            validation: has_fru | if time.is_some() { valid::TIMESTAMP } else { 0 },
            // An entry has the lowest eight flags of a descriptor.
            flags: descriptor.flags.get() as u8,
            error_data_length: U32::new(bytes.len() as u32),
            fru_id: descriptor.fru_id,
            fru_text: descriptor.fru_text,
        };
        entries.extend_from_slice(header.as_bytes());
        entries.extend_from_slice(time.unwrap_or(Timestamp::NONE).as_bytes());
        entries.extend_from_slice(bytes);
    }
    let status = block_status::of(uncorrectable, correctable) | count << block_status::COUNT_SHIFT;
    let header = StatusBlockHeader {
        block_status: U32::new(status),
        raw_data_offset: U32::ZERO,
        raw_data_length: U32::ZERO,
        data_length: U32::new(entries.len() as u32),
        severity,
    };
    Ok([header.as_bytes(), &entries].concat())
}
