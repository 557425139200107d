//! A reader of status blocks that copies nothing.

use zerocopy::FromBytes;

use super::wire::{DataEntryHeader, StatusBlockHeader, valid};
use crate::cper::RawSection;
use crate::decode_error::{DecodeError, Expected};
use crate::fru_text::FruText;
use crate::guid::Guid;
use crate::severity::Severity;
use crate::timestamp::Timestamp;

/// A decoded status block. Values other than lengths are not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusBlock<'a> {
    /// Its header.
    pub header: &'a StatusBlockHeader,
    /// Raw data; empty in blocks of this crate.
    pub raw_data: &'a [u8],
    bytes: &'a [u8],
    entries: &'a [u8],
    /// Between entries and raw data.
    gap: &'a [u8],
}

/// An entry of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its offset in the block.
    pub offset: usize,
    /// Its header.
    pub header: &'a DataEntryHeader,
    /// The timestamp, valid or not, of entries since revision 3.0.
    pub timestamp: Option<&'a Timestamp>,
    /// Its payload.
    pub payload: &'a [u8],
    /// What is before its payload.
    head: &'a [u8],
}

impl<'a> StatusBlock<'a> {
    /// Decodes the block at the start of `bytes`; more may follow it. Its lengths are consistent.
    ///
    /// # Errors
    /// Returns an error if a length is inconsistent with another or with `bytes`.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (block, problem) = StatusBlock::read_damaged(bytes)?;
        problem.map_or(Ok(block), Err)
    }

    /// Decodes what there is of the block at the start of `bytes`: the entries before the first inconsistent length, which is returned
    /// beside them.
    ///
    /// # Errors
    /// Returns an error if `bytes` is shorter than a header.
    pub(crate) fn read_damaged(bytes: &'a [u8]) -> Result<(Self, Option<DecodeError>), DecodeError> {
        let (header, behind) = StatusBlockHeader::ref_from_prefix(bytes)
            .map_err(|_| too_short(0, "length of the block", bytes.len(), size_of::<StatusBlockHeader>()))?;
        let (entries, beyond) = match behind.get(..header.data_length.get() as usize) {
            Some(entries) => (entries, None),
            None => {
                let problem = DecodeError {
                    offset: core::mem::offset_of!(StatusBlockHeader, data_length),
                    what: "data length",
                    found: header.data_length.get().into(),
                    expected: Expected::AtMost(behind.len() as u64),
                };
                (behind, Some(problem))
            }
        };
        let (gap, raw_data, bad_raw_data) = match raw_data(header, entries.len(), bytes) {
            Ok((gap, raw_data)) => (gap, raw_data, None),
            Err(problem) => (&[][..], &[][..], Some(problem)),
        };

        let mut block = StatusBlock { header, raw_data, bytes, entries, gap };
        let bad_entry = block.walk().find_map(Result::err);
        let problem = beyond.or(bad_raw_data).or(bad_entry);
        if beyond.or(bad_entry).is_some() {
            // What follows the last good entry is not this block's.
            let good: usize = block.entries().map(|entry| entry.len()).sum();
            let entries = entries.get(..good).unwrap_or_default();
            block = StatusBlock { raw_data: &[], entries, gap: &[], ..block };
        }
        Ok((block, problem))
    }

    /// Its entries, in their order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        // The first that cannot be decoded is behind the end of the block.
        self.walk().map_while(Result::ok)
    }

    /// Its length in bytes, with its raw data.
    pub(crate) fn len(&self) -> usize {
        size_of::<StatusBlockHeader>() + self.entries.len() + self.gap.len() + self.raw_data.len()
    }

    /// Its bytes, if its lengths are consistent; otherwise all that there are from its start on.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        let entries_end = size_of::<StatusBlockHeader>() + self.header.data_length.get() as usize;
        let end = if self.raw_data.is_empty() { entries_end } else { self.len() };
        self.bytes.get(..end).unwrap_or(self.bytes)
    }

    /// The bytes between its entries and its raw data, which belong to neither.
    pub(crate) fn gap(&self) -> &'a [u8] {
        self.gap
    }

    fn walk(&self) -> impl Iterator<Item = Result<Entry<'a>, DecodeError>> + use<'a> {
        let mut rest = self.entries;
        let end = size_of::<StatusBlockHeader>() + rest.len();
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let read = Entry::read(end - rest.len(), rest);
            rest = read.as_ref().map_or(&[], |(_, behind)| behind);
            Some(read.map(|(entry, _)| entry))
        })
    }
}

/// The bytes between the entries and the raw data, and the raw data.
///
/// # Errors
/// Returns an error if it overlaps the entries or exceeds `bytes`.
fn raw_data<'a>(
    header: &StatusBlockHeader,
    entries_len: usize,
    bytes: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    let len = header.raw_data_length.get() as usize;
    if len == 0 {
        return Ok((&[], &[]));
    }
    let offset = header.raw_data_offset.get() as usize;
    let error = |expected| DecodeError {
        offset: core::mem::offset_of!(StatusBlockHeader, raw_data_offset),
        what: "raw data offset",
        found: offset as u64,
        expected,
    };
    let end = size_of::<StatusBlockHeader>() + entries_len;
    if offset < end {
        return Err(error(Expected::AtLeast(end as u64)));
    }
    let from = bytes.get(offset..).ok_or(error(Expected::AtMost(bytes.len() as u64)))?;
    let raw_data = from.get(..len).ok_or(DecodeError {
        offset: core::mem::offset_of!(StatusBlockHeader, raw_data_length),
        what: "raw data length",
        found: len as u64,
        expected: Expected::AtMost(from.len() as u64),
    })?;
    Ok((bytes.get(end..offset).unwrap_or_default(), raw_data))
}

impl<'a> Entry<'a> {
    /// The entry at the start of `bytes`, and the bytes after it.
    fn read(offset: usize, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let too_short = |needed| too_short(offset, "length left for an entry", bytes.len(), needed);
        let (header, mut behind) =
            DataEntryHeader::ref_from_prefix(bytes).map_err(|_| too_short(size_of::<DataEntryHeader>()))?;
        let mut timestamp = None;
        if header.has_timestamp() {
            let needed = size_of::<DataEntryHeader>() + size_of::<Timestamp>();
            let (read, rest) = Timestamp::ref_from_prefix(behind).map_err(|_| too_short(needed))?;
            (timestamp, behind) = (Some(read), rest);
        }
        let payload_len = header.error_data_length.get();
        let (payload, behind) = behind.split_at_checked(payload_len as usize).ok_or(DecodeError {
            offset: offset + core::mem::offset_of!(DataEntryHeader, error_data_length),
            what: "error data length",
            found: payload_len.into(),
            expected: Expected::AtMost(behind.len() as u64),
        })?;
        let head = bytes.get(..size_of_val(header) + timestamp.map_or(0, size_of_val)).unwrap_or_default();
        Ok((Entry { offset, header, timestamp, payload, head }, behind))
    }

    /// Its length in bytes, with its header.
    fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Its severity. `None` if the number is not defined.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        Severity::from_number(self.header.severity.get())
    }

    /// FRU id, if valid.
    #[must_use]
    pub fn fru_id(&self) -> Option<Guid> {
        self.has(valid::FRU_ID).then_some(self.header.fru_id)
    }

    /// FRU text, if valid.
    #[must_use]
    pub fn fru_text(&self) -> Option<FruText> {
        self.has(valid::FRU_TEXT).then_some(self.header.fru_text)
    }

    /// Timestamp, if valid.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.timestamp.copied().filter(|_| self.has(valid::TIMESTAMP))
    }

    /// Its payload with its type.
    #[must_use]
    pub fn section(&self) -> RawSection<'a> {
        RawSection { kind: self.header.section_type, bytes: self.payload }
    }

    /// Its header with the timestamp.
    pub(crate) fn head(&self) -> &'a [u8] {
        self.head
    }

    fn has(&self, bit: u8) -> bool {
        self.header.validation & bit != 0
    }
}

fn too_short(offset: usize, what: &'static str, found: usize, needed: usize) -> DecodeError {
    DecodeError { offset, what, found: found as u64, expected: Expected::AtLeast(needed as u64) }
}
