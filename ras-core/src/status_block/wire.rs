//! The wire structures of a block and of its entries.

use zerocopy::little_endian::{U16, U32};

use crate::fru_text::FruText;
use crate::guid::Guid;
use crate::layout::{Flags, Kind, Part, bits, flags, wire};
use crate::severity::Severity;
use crate::timestamp::{TimeEncoding, Timestamp};

wire! {
    /// Generic Error Status Block, fixed part (ACPI 6.5, 18.3.2.7.1).
    pub struct StatusBlockHeader: 20, "length of the block" {
        /// [`block_status`]; zero: the block is empty. Written last, so that a guest never reads an incomplete block.
        block_status: U32 = Kind::Parts,
            block_status[0..32] = Kind::Flags(Flags {
                names: &block_status::NAMES,
                except: (block_status::MAX_COUNT << block_status::COUNT_SHIFT) as u64,
                always: true,
            }),
            entry_count[4..14] = Kind::Number;
        /// Offset of the raw data in the block.
        raw_data_offset: U32 = Kind::Reserved;
        /// Length of the raw data in bytes.
        raw_data_length: U32 = Kind::Computed;
        /// Length of all entries in bytes.
        data_length: U32 = Kind::Number;
        /// [`Severity`] of the most severe entry.
        severity: U32 = Kind::SEVERITY;
    }
}

impl StatusBlockHeader {
    /// Number of entries, according to the block status. Readers use the data length instead: other VMMs leave it zero.
    #[must_use]
    pub const fn entry_count(&self) -> u32 {
        self.block_status.get() >> block_status::COUNT_SHIFT & block_status::MAX_COUNT
    }

    /// The severity. `None` if the number is not defined.
    #[must_use]
    pub const fn severity(&self) -> Option<Severity> {
        Severity::from_number(self.severity.get())
    }
}

/// Bits of [`StatusBlockHeader::block_status`].
pub mod block_status {
    /// The block has an uncorrectable error.
    pub const UNCORRECTABLE: u32 = 1 << 0;
    /// The block has a correctable error.
    pub const CORRECTABLE: u32 = 1 << 1;
    /// More than one uncorrectable error.
    pub const MULTIPLE_UNCORRECTABLE: u32 = 1 << 2;
    /// More than one correctable error.
    pub const MULTIPLE_CORRECTABLE: u32 = 1 << 3;
    /// First bit of the entry count.
    pub const COUNT_SHIFT: u32 = 4;
    /// The largest ten-bit count.
    pub const MAX_COUNT: u32 = (1 << 10) - 1;

    /// The names of the bits, lowest first.
    pub(crate) const NAMES: [&str; 4] =
        ["uncorrectable", "correctable", "multiple-uncorrectable", "multiple-correctable"];

    /// The status of a block with that many errors of each kind, without its count.
    pub(crate) const fn of(uncorrectable: u32, correctable: u32) -> u32 {
        bits(uncorrectable, UNCORRECTABLE, MULTIPLE_UNCORRECTABLE)
            | bits(correctable, CORRECTABLE, MULTIPLE_CORRECTABLE)
    }

    /// The bits for a number of errors of one kind.
    const fn bits(errors: u32, one: u32, multiple: u32) -> u32 {
        match errors {
            0 => 0,
            1 => one,
            _ => one | multiple,
        }
    }
}

wire! {
    /// Generic Error Data Entry, revision 2.1, without its payload (ACPI 6.5, 18.3.2.7.1). In revision 3.0 a
    /// [`Timestamp`](crate::Timestamp) follows it.
    pub struct DataEntryHeader: 64, "length left for an entry" {
        /// Section type of the payload.
        section_type: Guid = Kind::Computed;
        /// [`Severity`].
        severity: U32 = Kind::SEVERITY;
        /// [`DataEntryHeader::WITHOUT_TIMESTAMP`] or [`DataEntryHeader::WITH_TIMESTAMP`].
        revision: U16 = Kind::Default(DataEntryHeader::WITH_TIMESTAMP as u64);
        /// [`valid`]: which of the fields below are valid.
        validation: u8 = Kind::Validation;
        /// [`section_flags`].
        flags: u8 = flags(&section_flags::NAMES);
        /// Length of the payload in bytes.
        error_data_length: U32 = Kind::Computed;
        /// FRU id.
        fru_id: Guid ?0 = Kind::Guid;
        /// FRU text.
        fru_text: FruText ?1 = Kind::Text;
    }
    parts = [
        Part::If {
            number: bits!(DataEntryHeader, revision),
            permits: |revision| revision >= DataEntryHeader::WITH_TIMESTAMP as u64,
            layout: EntryTimestamp::LAYOUT,
        },
    ];
}

wire! {
    /// The end of a Generic Error Data Entry since revision 3.0 (ACPI 6.5, 18.3.2.7.1).
    struct EntryTimestamp: 8, "length left for an entry" {
        timestamp: Timestamp ?2 = Kind::Time(|_| TimeEncoding::Bcd);
    }
}

impl DataEntryHeader {
    /// Revision 2.1: 64 bytes before the payload.
    pub const WITHOUT_TIMESTAMP: u16 = 0x0201;
    /// Revision 3.0: 72 bytes before the payload.
    pub const WITH_TIMESTAMP: u16 = 0x0300;

    /// Whether there is a timestamp between header and payload.
    #[must_use]
    pub const fn has_timestamp(&self) -> bool {
        self.revision.get() >= Self::WITH_TIMESTAMP
    }
}

/// Bits of [`DataEntryHeader::validation`].
pub mod valid {
    /// The FRU id.
    pub const FRU_ID: u8 = 1 << 0;
    /// The FRU text.
    pub const FRU_TEXT: u8 = 1 << 1;
    /// The timestamp, since revision 3.0.
    pub const TIMESTAMP: u8 = 1 << 2;
}

/// Bits of an entry's flags, the same in a record's section descriptor (UEFI 2.10, N.2.2).
pub mod section_flags {
    /// Primary: the section of the error itself.
    pub const PRIMARY: u8 = 1 << 0;
    /// Containment warning: the error may have reached storage or network.
    pub const CONTAINMENT_WARNING: u8 = 1 << 1;
    /// Reset: the component was reset and must be initialised again.
    pub const RESET: u8 = 1 << 2;
    /// Error threshold exceeded: the resource should no longer be used. Linux soft-offlines the page of a corrected error.
    pub const THRESHOLD_EXCEEDED: u8 = 1 << 3;
    /// Resource not accessible: the component could not be queried.
    pub const RESOURCE_NOT_ACCESSIBLE: u8 = 1 << 4;
    /// Latent error: contained, not corrected, and not consumed yet.
    pub const LATENT: u8 = 1 << 5;
    /// Propagated from another component.
    pub const PROPAGATED: u8 = 1 << 6;
    /// Overflow: more errors than could be logged.
    pub const OVERFLOW: u8 = 1 << 7;

    /// The names of the bits, lowest first.
    pub(crate) const NAMES: [&str; 8] = [
        "primary",
        "containment-warning",
        "reset",
        "threshold-exceeded",
        "resource-not-accessible",
        "latent",
        "propagated",
        "overflow",
    ];
}
