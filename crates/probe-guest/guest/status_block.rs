//! Generic Error Status Blocks and their entries (ACPI 6.5, 18.3.2.7.1), validated as Linux's GHES driver does.

use crate::failure::Failure;
use crate::wire::{Field, read_at, wire};

wire! {
    /// Generic Error Status Block without what follows it (table 18.11).
    struct Head: 20 {
        status: u32,
        raw_data_offset: u32,
        raw_data_len: u32,
        data_len: u32,
        severity: u32,
    }
}

wire! {
    /// Generic Error Data Entry of revision 2 without its payload (table 18.12).
    struct EntryHead: 64 {
        section_type: [u8; 16],
        severity: u32,
        revision: u16,
        _validation: u8,
        _flags: u8,
        payload_len: u32,
        _fru_id: [u8; 16],
        _fru_text: [u8; 20],
    }
}

/// Bytes of the timestamp between header and payload, present since revision 3.
const TIMESTAMP: usize = 8;
/// Maximum length of a block in bytes, regardless of the HEST.
const MAX_BLOCK_LEN: u32 = 64 << 10;

/// Severity of an error (tables 18.11 and 18.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Recoverable,
    Fatal,
    Corrected,
    Informational,
}

impl Severity {
    fn of(number: u32) -> Result<Self, Failure> {
        match number {
            0 => Ok(Severity::Recoverable),
            1 => Ok(Severity::Fatal),
            2 => Ok(Severity::Corrected),
            3 => Ok(Severity::Informational),
            _ => Err(Failure::with("status block: severity", u64::from(number))),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Severity::Recoverable => "recoverable",
            Severity::Fatal => "fatal",
            Severity::Corrected => "corrected",
            Severity::Informational => "informational",
        }
    }

    /// Whether memory that is reported with it is poisoned.
    pub(crate) fn is_uncorrected(self) -> bool {
        matches!(self, Severity::Recoverable | Severity::Fatal)
    }
}

/// A block that is not empty and whose lengths are consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    pub(crate) severity: Severity,
    /// Number of entries.
    pub(crate) count: usize,
    entries: &'a [u8],
}

/// An entry of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// GUID of the section type.
    pub(crate) section_type: [u8; 16],
    pub(crate) severity: Severity,
    pub(crate) payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads the block at the start of `bytes`, which limit its length.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        let head = read_at::<Head>(bytes, 0).ok_or(Failure::new("status block: too short"))?;
        if head.status == 0 {
            return Err(Failure::new("status block: empty"));
        }
        let limit = u64::from(MAX_BLOCK_LEN).min(bytes.len() as u64);
        let entries_end = Head::SIZE as u64 + u64::from(head.data_len);
        let len = match head.raw_data_len {
            0 => entries_end,
            len => u64::from(head.raw_data_offset) + u64::from(len),
        };
        if len < Head::SIZE as u64 || len > limit {
            return Err(Failure::with("status block: length", len));
        }
        if head.data_len != 0 && (head.data_len as usize) < EntryHead::SIZE {
            return Err(Failure::with("status block: data length", u64::from(head.data_len)));
        }
        if head.raw_data_len != 0 && u64::from(head.raw_data_offset) < entries_end {
            return Err(Failure::with(
                "status block: raw data in its entries at",
                u64::from(head.raw_data_offset),
            ));
        }
        let entries = bytes
            .get(Head::SIZE..entries_end as usize)
            .ok_or(Failure::with("status block: data length", u64::from(head.data_len)))?;
        let mut count = 0;
        for entry in walk(entries) {
            entry?;
            count += 1;
        }
        Ok(Block { severity: Severity::of(head.severity)?, count, entries })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        // `read` validated all entries.
        walk(self.entries).map_while(Result::ok)
    }
}

/// The entries, which fill `entries` completely. Ends after an error.
fn walk<'a>(entries: &'a [u8]) -> impl Iterator<Item = Result<Entry<'a>, Failure>> + use<'a> {
    let mut rest = entries;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = Head::SIZE + entries.len() - rest.len();
        let entry = next_entry(&mut rest, offset as u64);
        if entry.is_err() {
            rest = &[];
        }
        Some(entry)
    })
}

fn next_entry<'a>(rest: &mut &'a [u8], offset: u64) -> Result<Entry<'a>, Failure> {
    let broken = Failure::with("status block: broken entry at offset", offset);
    let head = read_at::<EntryHead>(rest, 0).ok_or(broken)?;
    // The major revision is the upper byte.
    let payload_at = EntryHead::SIZE + if head.revision >> 8 >= 3 { TIMESTAMP } else { 0 };
    let from = rest.get(payload_at..).ok_or(broken)?;
    let (payload, after) = from.split_at_checked(head.payload_len as usize).ok_or(broken)?;
    *rest = after;
    Ok(Entry { section_type: head.section_type, severity: Severity::of(head.severity)?, payload })
}
