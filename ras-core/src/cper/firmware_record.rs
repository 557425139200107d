//! Records that firmware keeps in a form of its own.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Section;
use super::reading::Remaining;
use crate::decode_error::DecodeError;
use crate::guid::Guid;

/// Section type of firmware's records.
pub const KIND: Guid =
    Guid::new(0x8121_2a96, 0x09ed, 0x4996, [0x94, 0x71, 0x8d, 0x72, 0x9c, 0x8e, 0x69, 0xed]);

/// The start of a Firmware Error Record Reference (UEFI 2.10, N.2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FirmwareRecordHeader {
    /// 0 IPF SAL record, 1 and 2 records of a system on chip.
    pub kind: u8,
    /// Says which of the identifiers follow: 0 the short, 1 none, 2 and later both.
    pub revision: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<FirmwareRecordHeader>() == 8);

/// A firmware's record: the same to write and as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareRecord<'a> {
    header: &'a FirmwareRecordHeader,
    id: Option<&'a U64>,
    guid: Option<&'a Guid>,
    record: &'a [u8],
}

impl<'a> FirmwareRecord<'a> {
    /// Reads one; also the way to make one, from its bytes.
    ///
    /// # Errors
    /// When the bytes are too few for its revision; offsets in errors count from `offset`.
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

    /// Its first bytes.
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

    /// The record itself.
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
