//! Parts of a file with error records, recognised by their start.

use alloc::vec::Vec;

use zerocopy::FromBytes;

use crate::cper::record::{Record, RecordHeader, RecordSection, SectionDescriptor};
use crate::cper::section_name;
use crate::decode_error::{DecodeError, Expected};
use crate::severity::Severity;
use crate::status_block::{DataEntryHeader, StatusBlock, StatusBlockHeader};

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// Offset in the file.
    pub(crate) offset: usize,
    pub(crate) content: Content<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// A status block, and the first of its lengths that is inconsistent.
    Block(StatusBlock<'a>, Option<DecodeError>),
    /// A record, and the lengths of its header that are inconsistent. Before it, in efivarfs: the attributes of its variable.
    Record(Option<u32>, Record<'a>, Vec<DecodeError>),
    /// A section that follows its descriptor.
    Section(RecordSection<'a>),
    /// That number of zeros.
    Zeros(usize),
    /// Other bytes, and why they are not a status block, or the record whose signature they have.
    Unknown(&'a [u8], DecodeError),
}

/// Length of the attributes before the data of an EFI variable in efivarfs.
const ATTRIBUTES_LEN: usize = 4;

impl Part<'_> {
    pub(crate) fn is_record(&self) -> bool {
        matches!(self.content, Content::Block(..) | Content::Record(..) | Content::Section(..))
    }
}

impl<'a> Content<'a> {
    /// What `bytes` start with; they lie at `offset` of the file. The first block of a file needs no entry.
    pub(super) fn at_start_of(bytes: &'a [u8], offset: usize, is_first: bool) -> Self {
        Self::record(bytes)
            .or_else(|| Self::zeros_before_record(bytes))
            .or_else(|| Self::section_of_known_type(bytes))
            .or_else(|| Self::block(bytes, is_first))
            .or_else(|| Self::section_of_unknown_type(bytes))
            .or_else(|| Self::zeros(bytes, offset))
            .unwrap_or_else(|| Self::unknown(bytes))
    }

    /// Its length in bytes: never zero.
    pub(super) fn len(&self) -> usize {
        match self {
            Content::Block(block, _) => block.len(),
            Content::Record(attributes, record, _) => record.len() + attributes.map_or(0, |_| ATTRIBUTES_LEN),
            Content::Section(section) => size_of::<SectionDescriptor>() + section.bytes.len(),
            Content::Zeros(len) => *len,
            Content::Unknown(bytes, _) => bytes.len(),
        }
    }

    fn record(bytes: &'a [u8]) -> Option<Self> {
        if let Ok((record, problems)) = Record::read_damaged(bytes) {
            return Some(Content::Record(None, record, problems));
        }
        let (attributes, behind) = bytes.split_first_chunk::<ATTRIBUTES_LEN>()?;
        let attributes = u32::from_le_bytes(*attributes);
        let (record, problems) = Record::read_damaged(behind).ok()?;
        // Attributes are bits 0 to 7; a variable has at least one of them.
        (1..=0xff).contains(&attributes).then_some(Content::Record(Some(attributes), record, problems))
    }

    fn section_of_known_type(bytes: &'a [u8]) -> Option<Self> {
        let (descriptor, behind) = SectionDescriptor::ref_from_prefix(bytes).ok()?;
        section_name(descriptor.section_type)?;
        Some(Self::section(descriptor, behind))
    }

    /// As nothing else marks it, it must be consistent.
    fn section_of_unknown_type(bytes: &'a [u8]) -> Option<Self> {
        let (descriptor, behind) = SectionDescriptor::ref_from_prefix(bytes).ok()?;
        let is_consistent = descriptor.offset.get() as usize == size_of::<SectionDescriptor>()
            && (1..=behind.len()).contains(&(descriptor.length.get() as usize))
            && descriptor.reserved == 0
            && Severity::from_number(descriptor.severity.get()).is_some();
        is_consistent.then(|| Self::section(descriptor, behind))
    }

    /// The section behind its descriptor, whose offset may be that in the record that it was cut from.
    fn section(descriptor: &'a SectionDescriptor, behind: &'a [u8]) -> Self {
        let len = descriptor.length.get();
        let whole = behind.get(..len as usize);
        let problem = whole.is_none().then_some(DecodeError {
            offset: core::mem::offset_of!(SectionDescriptor, length),
            what: "length of the section",
            found: len.into(),
            expected: Expected::AtMost(behind.len() as u64),
        });
        Content::Section(RecordSection { descriptor, bytes: whole.unwrap_or(behind), problem })
    }

    /// A block with an entry, or with raw data alone. If its lengths are inconsistent, or if it has no entry, then at least its other
    /// values must be those of a block. Only the first may have neither.
    fn block(bytes: &'a [u8], is_first: bool) -> Option<Self> {
        let (header, _) = StatusBlockHeader::ref_from_prefix(bytes).ok()?;
        let is_plausible = header.severity().is_some();
        if !is_plausible && !is_first {
            return None;
        }
        let (block, problem) = StatusBlock::read_damaged(bytes).ok()?;
        let accepted = match (block.entries().next(), problem) {
            (Some(_), None) => true,
            (Some(entry), Some(_)) => {
                let revisions = DataEntryHeader::WITHOUT_TIMESTAMP..=DataEntryHeader::WITH_TIMESTAMP;
                is_plausible && entry.severity().is_some() && revisions.contains(&entry.header.revision.get())
            }
            (None, None) => {
                let has_content = is_first || !block.raw_data.is_empty();
                is_plausible && has_content && header.block_status.get() != 0
            }
            (None, Some(_)) => false,
        };
        accepted.then_some(Content::Block(block, problem))
    }

    fn zeros_before_record(bytes: &'a [u8]) -> Option<Self> {
        let zeros = leading_zeros(bytes);
        let is_record = zeros > 0 && bytes.get(zeros..).is_some_and(RecordHeader::is_at_start_of);
        is_record.then_some(Content::Zeros(zeros))
    }

    /// Zeros up to the next part.
    fn zeros(bytes: &'a [u8], offset: usize) -> Option<Self> {
        let zeros = leading_zeros(bytes);
        if zeros == bytes.len() {
            return Some(Content::Zeros(zeros));
        }
        // Blocks are aligned. The first fields of a block may be zeros: a guest that has read one clears its status.
        let aligned = (offset + zeros) / 4 * 4;
        let start =
            (0..=3).rev().filter_map(|fields| aligned.checked_sub(4 * fields)?.checked_sub(offset)).find(
                |start| *start > 0 && bytes.get(*start..).is_some_and(|at| Self::block(at, false).is_some()),
            );
        // A section's descriptor may start with a zero as well.
        let len = start.or_else(|| aligned.checked_sub(offset))?;
        (len > 0).then_some(Content::Zeros(len))
    }

    /// Everything up to the next record.
    fn unknown(bytes: &'a [u8]) -> Self {
        let next = bytes.get(1..).and_then(RecordHeader::find).map_or(bytes.len(), |next| next + 1);
        let error = if bytes.starts_with(&RecordHeader::SIGNATURE) {
            Record::read(bytes).err()
        } else {
            StatusBlock::read(bytes).err()
        };
        // An empty block that is none by its severity.
        let error = error.unwrap_or(DecodeError {
            offset: core::mem::offset_of!(StatusBlockHeader, severity),
            what: "severity",
            found: StatusBlockHeader::ref_from_prefix(bytes)
                .map_or(0, |(header, _)| header.severity.get().into()),
            expected: Expected::AtMost(Severity::Informational.number().into()),
        });
        Content::Unknown(bytes.get(..next).unwrap_or(bytes), error)
    }
}

fn leading_zeros(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte == 0).count()
}
