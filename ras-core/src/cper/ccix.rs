//! Errors of CCIX components.

use zerocopy::little_endian::{U16, U32, U64};

use crate::guid::Guid;
use crate::layout::{ByteString, Kind, Part, wire};

/// Section type of CCIX protocol error records.
pub(super) const KIND: Guid =
    Guid::new(0x9133_5ef6, 0xebfb, 0x4478, [0xa6, 0xa6, 0x88, 0xb7, 0x28, 0xcf, 0x75, 0xd7]);

wire! {
    /// CCIX PER Log Error Section, fixed part (UEFI 2.10, N.2.12).
    pub(super) struct CcixError: 16, "length of the CCIX PER log error section" {
        length: U32 = Kind::Computed;
        validation: U64 = Kind::Validation;
        source_id: u8 ?0 = Kind::Number;
        port_id: u8 ?1 = Kind::Number;
        reserved: U16 = Kind::Reserved;
    }
    total = length;
    parts = [
        // In the format of the CCIX Base Specification 1.0, 7.3.2.
        Part::Bytes(ByteString {
            name: "per_log",
            what: "length of the PER log",
            len: None,
            valid: Some((2, "invalid_per_log_bytes")),
            view: None,
        }),
    ];
}
