//! Firmware error records, whose format is that of the firmware.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Section;
use super::reading::Remaining;
use crate::decode_error::DecodeError;
use crate::guid::Guid;

/// Section type of firmware error records.
pub const KIND: Guid =
    Guid::new(0x8121_2a96, 0x09ed, 0x4996, [0x94, 0x71, 0x8d, 0x72, 0x9c, 0x8e, 0x69, 0xed]);

/// Firmware Error Record Reference, fixed part (UEFI 2.10, N.2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FirmwareRecordHeader {
    /// Type: 0 IPF SAL record, 1 and 2 records of a system on chip.
    pub kind: u8,
    /// Determines which identifiers follow: 0 the short one, 1 none, 2 and later both.
    pub revision: u8,
    /// Reserved: zero.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<FirmwareRecordHeader>() == 8);

/// A firmware error record, to write or decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareRecord<'a> {
    header: &'a FirmwareRecordHeader,
    id: Option<&'a U64>,
    guid: Option<&'a Guid>,
    record: &'a [u8],
}

impl<'a> FirmwareRecord<'a> {
    /// Decodes one; also the way to build one from its bytes.
    ///
    /// # Errors
    /// Returns an error if there are too few bytes for its revision. Offsets in errors are relative to `offset`.
    pub fn read(bytes: &'a [u8], offset: usize) -> Result<Self, DecodeError> {
        let mut remaining = Remaining { bytes, offset };
        let header: &FirmwareRecordHeader = remaining.take("length of the firmware record section")?;
        let id = match header.revision {
            1 => None,
            _ => Some(remaining.take("length of the firmware record section")?),
        };
        let guid = match header.revision {
            0 | 1 => None,
            _ => Some(remaining.take("length of the firmware record section")?),
        };
        Ok(FirmwareRecord { header, id, guid, record: remaining.bytes })
    }

    /// The fixed part.
    #[must_use]
    pub fn header(&self) -> &'a FirmwareRecordHeader {
        self.header
    }

    /// The short identifier.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        self.id.map(|id| id.get())
    }

    /// The long identifier.
    #[must_use]
    pub fn guid(&self) -> Option<Guid> {
        self.guid.copied()
    }

    /// The firmware's own record.
    #[must_use]
    pub fn record(&self) -> &'a [u8] {
        self.record
    }
}

impl Section for FirmwareRecord<'_> {
    fn kind(&self) -> Guid {
        KIND
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.header.as_bytes());
        sink(self.id.map_or(&[], |id| id.as_bytes()));
        sink(self.guid.map_or(&[], |guid| guid.bytes()));
        sink(self.record);
    }
}
