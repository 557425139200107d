//! The bytes of a block and of its entries' headers.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::fru_text::FruText;
use crate::guid::Guid;
use crate::severity::Severity;

/// Generic Error Status Block, without what follows it (ACPI 6.5, 18.3.2.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StatusBlockHeader {
    /// [`block_status`]; zero: nothing to read here. Written last, so that a guest that looks meanwhile finds nothing.
    pub block_status: U32,
    /// Where raw data starts, from the block's start.
    pub raw_data_offset: U32,
    /// Bytes of raw data.
    pub raw_data_length: U32,
    /// Bytes of all entries.
    pub data_length: U32,
    /// [`Severity`]: that of the worst entry.
    pub severity: U32,
}

const _: () = assert!(size_of::<StatusBlockHeader>() == 20);

impl StatusBlockHeader {
    /// Entries, as the block counts them. Readers go by the data's length instead: other VMMs leave it zero.
    #[must_use]
    pub const fn entry_count(&self) -> u32 {
        self.block_status.get() >> block_status::COUNT_SHIFT & block_status::MAX_COUNT
    }

    /// The severity; none where the number is none.
    #[must_use]
    pub const fn severity(&self) -> Option<Severity> {
        Severity::from_number(self.severity.get())
    }
}

/// Bits of [`StatusBlockHeader::block_status`].
pub mod block_status {
    /// An uncorrectable error is in the block.
    pub const UNCORRECTABLE: u32 = 1 << 0;
    /// A correctable error is.
    pub const CORRECTABLE: u32 = 1 << 1;
    /// More than one uncorrectable error.
    pub const MULTIPLE_UNCORRECTABLE: u32 = 1 << 2;
    /// More than one correctable error.
    pub const MULTIPLE_CORRECTABLE: u32 = 1 << 3;
    /// First bit of the entry count.
    pub const COUNT_SHIFT: u32 = 4;
    /// The most that ten bits can count.
    pub const MAX_COUNT: u32 = (1 << 10) - 1;

    /// The names of the bits that are set, from the lowest up.
    pub fn names(status: u32) -> impl Iterator<Item = &'static str> {
        const NAMES: [&str; 4] =
            ["uncorrectable", "correctable", "multiple-uncorrectable", "multiple-correctable"];
        (0..4).zip(NAMES).filter(move |(bit, _)| status >> bit & 1 != 0).map(|(_, name)| name)
    }
}

/// Generic Error Data Entry, revision 2.1, without its payload (ACPI 6.5, 18.3.2.7.1). Revision 3.0 has a
/// [`Timestamp`](crate::Timestamp) behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DataEntryHeader {
    /// What the payload is.
    pub section_type: Guid,
    /// [`Severity`].
    pub severity: U32,
    /// [`DataEntryHeader::WITHOUT_TIMESTAMP`] or [`DataEntryHeader::WITH_TIMESTAMP`].
    pub revision: U16,
    /// [`valid`]: which of the fields below hold something.
    pub validation: u8,
    /// [`section_flags`].
    pub flags: u8,
    /// Bytes of the payload.
    pub error_data_length: U32,
    /// The part that broke.
    pub fru_id: Guid,
    /// The part that broke, in words.
    pub fru_text: FruText,
}

const _: () = assert!(size_of::<DataEntryHeader>() == 64);

impl DataEntryHeader {
    /// Revision 2.1: 64 bytes before the payload.
    pub const WITHOUT_TIMESTAMP: u16 = 0x0201;
    /// Revision 3.0: 72 bytes before the payload.
    pub const WITH_TIMESTAMP: u16 = 0x0300;

    /// Whether a timestamp lies between header and payload.
    #[must_use]
    pub const fn has_timestamp(&self) -> bool {
        self.revision.get() >= Self::WITH_TIMESTAMP
    }
}

/// Bits of [`DataEntryHeader::validation`].
pub mod valid {
    /// The part's id.
    pub const FRU_ID: u8 = 1 << 0;
    /// Its text.
    pub const FRU_TEXT: u8 = 1 << 1;
    /// The time, since revision 3.0.
    pub const TIMESTAMP: u8 = 1 << 2;
}

/// Bits of an entry's flags, the same in a record's section descriptor (UEFI 2.10, N.2.2).
pub mod section_flags {
    /// The section is the one to look at first.
    pub const PRIMARY: u8 = 1 << 0;
    /// The error was not contained: it may have reached disks or networks.
    pub const CONTAINMENT_WARNING: u8 = 1 << 1;
    /// The component was reset and must be set up again.
    pub const RESET: u8 = 1 << 2;
    /// So many corrected errors that the resource should be given up: Linux then takes the page out of use.
    pub const THRESHOLD_EXCEEDED: u8 = 1 << 3;
    /// The component could not be asked.
    pub const RESOURCE_NOT_ACCESSIBLE: u8 = 1 << 4;
    /// Contained, not corrected, and not consumed yet.
    pub const LATENT: u8 = 1 << 5;
    /// Came from somewhere else.
    pub const PROPAGATED: u8 = 1 << 6;
    /// More errors than could be logged.
    pub const OVERFLOW: u8 = 1 << 7;

    /// The names of the bits that are set, from the lowest up.
    pub fn names(flags: u8) -> impl Iterator<Item = &'static str> {
        const NAMES: [&str; 8] = [
            "primary",
            "containment-warning",
            "reset",
            "threshold-exceeded",
            "resource-not-accessible",
            "latent",
            "propagated",
            "overflow",
        ];
        (0..8).zip(NAMES).filter(move |(bit, _)| flags >> bit & 1 != 0).map(|(_, name)| name)
    }
}
