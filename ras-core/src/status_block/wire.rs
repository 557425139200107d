//! The wire structures of a block and of its entries.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::fru_text::FruText;
use crate::guid::Guid;
use crate::severity::Severity;

/// Generic Error Status Block, fixed part (ACPI 6.5, 18.3.2.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StatusBlockHeader {
    /// [`block_status`]; zero: the block is empty. Written last, so that a guest never reads an incomplete block.
    pub block_status: U32,
    /// Offset of the raw data in the block.
    pub raw_data_offset: U32,
    /// Length of the raw data in bytes.
    pub raw_data_length: U32,
    /// Length of all entries in bytes.
    pub data_length: U32,
    /// [`Severity`] of the most severe entry.
    pub severity: U32,
}

const _: () = assert!(size_of::<StatusBlockHeader>() == 20);

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
    pub const NAMES: [&str; 4] =
        ["uncorrectable", "correctable", "multiple-uncorrectable", "multiple-correctable"];
}

/// Generic Error Data Entry, revision 2.1, without its payload (ACPI 6.5, 18.3.2.7.1). In revision 3.0 a
/// [`Timestamp`](crate::Timestamp) follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DataEntryHeader {
    /// Section type of the payload.
    pub section_type: Guid,
    /// [`Severity`].
    pub severity: U32,
    /// [`DataEntryHeader::WITHOUT_TIMESTAMP`] or [`DataEntryHeader::WITH_TIMESTAMP`].
    pub revision: U16,
    /// [`valid`]: which of the fields below are valid.
    pub validation: u8,
    /// [`section_flags`].
    pub flags: u8,
    /// Length of the payload in bytes.
    pub error_data_length: U32,
    /// FRU id.
    pub fru_id: Guid,
    /// FRU text.
    pub fru_text: FruText,
}

const _: () = assert!(size_of::<DataEntryHeader>() == 64);

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
    /// Every bit that has a meaning.
    pub(crate) const ALL: u8 = FRU_ID | FRU_TEXT | TIMESTAMP;
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
    pub const NAMES: [&str; 8] = [
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
