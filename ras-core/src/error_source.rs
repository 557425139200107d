//! Error sources: the entries of HEST.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::generic_address::GenericAddress;
use crate::notification::{Notification, NotificationStructure};
use crate::record_area::RecordSlot;

/// A generic hardware error source with an acknowledge register (GHESv2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ErrorSource {
    /// Its id, unique among all sources: Linux stops registering sources at a duplicate.
    pub id: u16,
    /// How the guest is notified.
    pub notification: Notification,
}

/// Generic Hardware Error Source version 2 (ACPI 6.5, 18.3.2.8), the entry of HEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GenericErrorSourceV2 {
    /// Structure type: 10.
    pub kind: U16,
    /// [`ErrorSource::id`].
    pub source_id: U16,
    /// The source that this one is related to; 0xffff: none.
    pub related_source_id: U16,
    /// Reserved.
    pub flags: u8,
    /// 1: enabled.
    pub enabled: u8,
    /// Number of records that the operating system should preallocate.
    pub records_to_preallocate: U32,
    /// Largest number of entries in one block.
    pub max_sections_per_record: U32,
    /// Largest number of bytes of raw data. Blocks of this crate have none; a reader that sizes its buffer by it can hold a whole block.
    pub max_raw_data_length: U32,
    /// The cell that holds the block's address.
    pub error_status_address: GenericAddress,
    /// How the guest is notified.
    pub notification: NotificationStructure,
    /// Largest number of bytes of a block.
    pub error_status_block_length: U32,
    /// The acknowledge register: the guest writes (register & preserve) | write when it has handled a record.
    pub read_ack_register: GenericAddress,
    /// Bits that the guest preserves.
    pub read_ack_preserve: U64,
    /// Bits that the guest sets.
    pub read_ack_write: U64,
}

const _: () = assert!(size_of::<GenericErrorSourceV2>() == 92);

impl ErrorSource {
    /// The id of the source of corrected errors. No other errors are reported by it.
    pub const CORRECTED: u16 = 2;
}

impl GenericErrorSourceV2 {
    /// Structure type in HEST.
    pub const KIND: u16 = 10;

    /// The entry of the source whose cell, register and block are in `slot`.
    #[must_use]
    pub const fn new(slot: &RecordSlot) -> Self {
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
            read_ack_preserve: U64::new(!RecordSlot::FREE),
            read_ack_write: U64::new(RecordSlot::FREE),
        }
    }
}
