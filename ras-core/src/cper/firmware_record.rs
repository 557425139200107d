//! Firmware error records, whose format is that of the firmware.

use zerocopy::little_endian::U64;

use crate::guid::Guid;
use crate::layout::{ByteString, Kind, Part, bits, wire};

/// Section type of firmware error records.
pub(super) const KIND: Guid =
    Guid::new(0x8121_2a96, 0x09ed, 0x4996, [0x94, 0x71, 0x8d, 0x72, 0x9c, 0x8e, 0x69, 0xed]);

wire! {
    /// Firmware Error Record Reference, fixed part (UEFI 2.10, N.2.10).
    pub(super) struct FirmwareRecordHeader: 8, "length of the firmware record section" {
        kind: u8 = Kind::Named(&["IPF SAL", "system on chip, type 1", "system on chip, type 2"]);
        /// Determines which identifiers follow: 0 the short one, 1 none, 2 and later both.
        revision: u8 = Kind::Number;
        reserved: [u8; 6] = Kind::Reserved;
    }
    parts = [
        Part::If {
            number: bits!(FirmwareRecordHeader, revision),
            permits: |revision| revision != 1,
            layout: ShortId::LAYOUT,
        },
        Part::If {
            number: bits!(FirmwareRecordHeader, revision),
            permits: |revision| revision > 1,
            layout: LongId::LAYOUT,
        },
        Part::Bytes(ByteString {
            name: "record",
            what: "length of the firmware's record",
            len: None,
            valid: None,
            view: None,
        }),
    ];
}

wire! {
    /// Record identifier (UEFI 2.10, N.2.10).
    struct ShortId: 8, "length of the firmware record section" {
        id: U64 = Kind::Hex;
    }
}

wire! {
    /// Record identifier GUID extension (UEFI 2.10, N.2.10).
    struct LongId: 16, "length of the firmware record section" {
        guid: Guid = Kind::Guid;
    }
}
