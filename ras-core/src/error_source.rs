//! Error sources: what HEST lists.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::generic_address::GenericAddress;
use crate::notification::{Notification, NotificationStructure};
use crate::record_area::Slot;

/// A generic hardware error source with an acknowledge register (GHESv2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ErrorSource {
    /// Its id, unlike any other's: Linux gives up registering sources when it meets one twice.
    pub id: u16,
    /// How the guest is told.
    pub notification: Notification,
}

/// Generic Hardware Error Source version 2 (ACPI 6.5, 18.3.2.8), as it stands in HEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GenericErrorSourceV2 {
    /// 10.
    pub kind: U16,
    /// [`ErrorSource::id`].
    pub source_id: U16,
    /// The source that this one assists; 0xffff: none.
    pub related_source_id: U16,
    /// Reserved.
    pub flags: u8,
    /// 1: in use.
    pub enabled: u8,
    /// Records that the operating system shall make room for.
    pub records_to_preallocate: U32,
    /// Most entries in one block.
    pub max_sections_per_record: U32,
    /// Most bytes of raw data. No block of ours has any; a reader that sizes its buffer by this gets a whole block.
    pub max_raw_data_length: U32,
    /// The cell that holds the block's address: one indirection.
    pub error_status_address: GenericAddress,
    /// How the guest is told.
    pub notification: NotificationStructure,
    /// Most bytes of a block.
    pub error_status_block_length: U32,
    /// The acknowledge register: the guest writes (register & preserve) | write when it is done with a record.
    pub read_ack_register: GenericAddress,
    /// Bits that it leaves alone.
    pub read_ack_preserve: U64,
    /// Bits that it sets.
    pub read_ack_write: U64,
}

const _: () = assert!(size_of::<GenericErrorSourceV2>() == 92);

impl GenericErrorSourceV2 {
    /// Structure type in HEST.
    pub const KIND: u16 = 10;

    /// The source whose cell, register and block lie in `slot`.
    #[must_use]
    pub const fn new(slot: &Slot) -> Self {
        GenericErrorSourceV2 {
            kind: U16::new(Self::KIND),
            source_id: U16::new(slot.source.id),
            related_source_id: U16::new(u16::MAX),
            flags: 0,
            enabled: 1,
            records_to_preallocate: U32::new(1),
            max_sections_per_record: U32::new(crate::MAX_MEMORY_ENTRIES as u32),
            max_raw_data_length: U32::new(slot.block_len),
            error_status_address: GenericAddress::quadword(slot.cell_gpa),
            notification: slot.source.notification.structure(),
            error_status_block_length: U32::new(slot.block_len),
            read_ack_register: GenericAddress::quadword(slot.ack_gpa),
            read_ack_preserve: U64::new(!Slot::FREE),
            read_ack_write: U64::new(Slot::FREE),
        }
    }
}
