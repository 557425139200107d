//! CPER records, as firmware and operating systems store them across a reset. Status blocks contain sections without them.

use alloc::vec::Vec;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::decode_error::{DecodeError, Expected};
use crate::fru_text::FruText;
use crate::guid::Guid;
use crate::layout::{Kind, flags, wire};
use crate::status_block::section_flags;
use crate::timestamp::{TimeEncoding, Timestamp};

wire! {
    /// Record Header (UEFI 2.10, N.2.1).
    pub struct RecordHeader: 128, "length of the record" {
        /// [`RecordHeader::SIGNATURE`].
        signature: [u8; 4] = Kind::Constant(u32::from_le_bytes(RecordHeader::SIGNATURE) as u64);
        /// Revision: 0x0100 or 0x0101.
        revision: U16 = Kind::Default(0x101);
        /// [`RecordHeader::SIGNATURE_END`].
        signature_end: U32 = Kind::Constant(RecordHeader::SIGNATURE_END as u64);
        /// Number of sections.
        section_count: U16 = Kind::Computed;
        /// [`Severity`](crate::Severity).
        severity: U32 = Kind::SEVERITY;
        /// Which of the members are valid.
        validation: U32 = Kind::Validation;
        /// Length of the record in bytes.
        record_length: U32 = Kind::Number;
        /// Time of the error.
        timestamp: Timestamp ?1 = Kind::Time(RecordHeader::time_encoding_of);
        /// Platform id.
        platform_id: Guid ?0 = Kind::Guid;
        /// Partition id.
        partition_id: Guid ?2 = Kind::Guid;
        /// Creator id.
        creator_id: Guid = Kind::Guid;
        /// How the operating system was notified of the error.
        notification_type as notification: Guid = Kind::NamedGuid(&NOTIFICATIONS);
        /// Record id, unique for its creator.
        record_id: U64 = Kind::Hex;
        /// Flags, of which UEFI names three (N.2.1, table N.2).
        flags: U32 = flags(&["recovered", "previous", "simulated"]);
        /// Persistence information, for the storage of the record.
        persistence: U64 = Kind::Hex;
        /// Reserved: zero.
        reserved: [u8; 12] = Kind::Reserved;
    }
}

impl RecordHeader {
    /// Signature at the start of a record.
    pub const SIGNATURE: [u8; 4] = *b"CPER";
    /// Second signature, "signature end".
    pub const SIGNATURE_END: u32 = u32::MAX;
    /// Creator id of the records that Windows writes (`WHEA_RECORD_CREATOR_GUID` of its `ntddk.h`).
    pub const WINDOWS_CREATOR: Guid =
        Guid::new(0xcf07_c4bd, 0xb789, 0x4e18, [0xb3, 0xc4, 0x1f, 0x73, 0x2c, 0xb5, 0x71, 0x31]);
    /// Revision of the records that Windows writes (`WHEA_ERROR_RECORD_REVISION` of its `ntddk.h`).
    pub const WINDOWS_REVISION: u16 = 0x0210;

    /// How its creator encodes the timestamp.
    #[must_use]
    pub fn time_encoding(&self) -> TimeEncoding {
        let by_windows =
            self.creator_id == Self::WINDOWS_CREATOR || self.revision.get() == Self::WINDOWS_REVISION;
        if by_windows { TimeEncoding::Binary } else { TimeEncoding::Bcd }
    }

    /// [`RecordHeader::time_encoding`] of the header at the start of `bytes`.
    fn time_encoding_of(bytes: &[u8]) -> TimeEncoding {
        RecordHeader::ref_from_prefix(bytes).map_or(TimeEncoding::Bcd, |(header, _)| header.time_encoding())
    }

    /// Whether `bytes` start with both signatures of a record.
    pub(crate) fn is_at_start_of(bytes: &[u8]) -> bool {
        let end = core::mem::offset_of!(RecordHeader, signature_end);
        bytes.starts_with(&Self::SIGNATURE)
            && bytes.get(end..).is_some_and(|end| end.starts_with(&Self::SIGNATURE_END.to_le_bytes()))
    }

    /// Offset of the first record in `bytes`, by its signatures.
    pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
        let candidates = bytes.windows(Self::SIGNATURE.len()).enumerate();
        candidates
            .filter(|(_, window)| **window == Self::SIGNATURE)
            .map(|(offset, _)| offset)
            .find(|offset| bytes.get(*offset..).is_some_and(Self::is_at_start_of))
    }
}

wire! {
    /// Section Descriptor (UEFI 2.10, N.2.2).
    pub struct SectionDescriptor: 72, "length of a section descriptor" {
        /// Offset of the section in the record.
        offset: U32 = Kind::Computed;
        /// Length of the section in bytes.
        length: U32 = Kind::Computed;
        /// Revision: 0x0300.
        revision: U16 = Kind::Default(0x300);
        /// Which of the members are valid.
        validation: u8 = Kind::Validation;
        /// Reserved: zero.
        reserved: u8 = Kind::Reserved;
        /// [`section_flags`].
        flags: U32 = flags(&section_flags::NAMES);
        /// Section type.
        section_type: Guid = Kind::Computed;
        /// FRU id.
        fru_id: Guid ?0 = Kind::Guid;
        /// [`Severity`](crate::Severity).
        severity: U32 = Kind::SEVERITY;
        /// FRU text.
        fru_text: FruText ?1 = Kind::Text;
    }
}

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its header.
    pub header: &'a RecordHeader,
    /// The descriptors of its sections.
    pub descriptors: &'a [SectionDescriptor],
    bytes: &'a [u8],
}

/// A section of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSection<'a> {
    /// Its descriptor.
    pub descriptor: &'a SectionDescriptor,
    /// Its bytes; if it exceeds the record, those that there are.
    pub bytes: &'a [u8],
    /// Why it is not decoded: it exceeds the record, or overlaps other sections.
    pub problem: Option<DecodeError>,
}

impl<'a> Record<'a> {
    /// Decodes the record at the start of `bytes`; more may follow it. Its lengths are consistent, its sections are within it, and no other
    /// record is behind them in it.
    ///
    /// # Errors
    /// Returns an error if it has no valid signature, or if a length is inconsistent with another or with `bytes`.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (record, problems) = Record::read_damaged(bytes)?;
        let mut sections = record.descriptors.iter().enumerate();
        let beyond = sections.find_map(|(index, descriptor)| record.section_bytes(index, descriptor).err());
        problems.into_iter().next().or(beyond).map_or(Ok(record), Err)
    }

    /// Decodes what there is of the record at the start of `bytes`, and lists the lengths of its header that are inconsistent. A section
    /// may exceed the record.
    ///
    /// # Errors
    /// Returns an error if there is no header with both signatures.
    pub(crate) fn read_damaged(bytes: &'a [u8]) -> Result<(Self, Vec<DecodeError>), DecodeError> {
        const HEADER_LEN: usize = size_of::<RecordHeader>();
        let (header, behind_header) = RecordHeader::ref_from_prefix(bytes).map_err(|_| DecodeError {
            offset: 0,
            what: "length of the record",
            found: bytes.len() as u64,
            expected: Expected::AtLeast(HEADER_LEN as u64),
        })?;
        let mark = |offset, what, found: u32, expected: u32| {
            let expected = Expected::Exactly(expected.into());
            if Expected::Exactly(found.into()) == expected {
                Ok(())
            } else {
                Err(DecodeError { offset, what, found: found.into(), expected })
            }
        };
        let signature = u32::from_le_bytes(header.signature);
        mark(0, "signature", signature, u32::from_le_bytes(RecordHeader::SIGNATURE))?;
        let offset = core::mem::offset_of!(RecordHeader, signature_end);
        mark(offset, "end of the signature", header.signature_end.get(), RecordHeader::SIGNATURE_END)?;

        let mut problems = Vec::new();
        let length = header.record_length.get() as usize;
        let wrong_length = |expected| DecodeError {
            offset: core::mem::offset_of!(RecordHeader, record_length),
            what: "length of the record",
            found: length as u64,
            expected,
        };
        let bytes = if (HEADER_LEN..=bytes.len()).contains(&length) {
            bytes.get(..length).unwrap_or_default()
        } else {
            problems.push(wrong_length(if length < HEADER_LEN {
                Expected::AtLeast(HEADER_LEN as u64)
            } else {
                Expected::AtMost(bytes.len() as u64)
            }));
            // It ends before the next one.
            let next = RecordHeader::find(behind_header).map_or(bytes.len(), |next| HEADER_LEN + next);
            bytes.get(..next).unwrap_or_default()
        };

        let behind_header = bytes.get(HEADER_LEN..).unwrap_or_default();
        let mut count = usize::from(header.section_count.get());
        let fitting = behind_header.len() / size_of::<SectionDescriptor>();
        if count > fitting {
            problems.push(DecodeError {
                offset: HEADER_LEN,
                what: "length left for section descriptors",
                found: behind_header.len() as u64,
                expected: Expected::AtLeast((count * size_of::<SectionDescriptor>()) as u64),
            });
            count = fitting;
        }
        let descriptors = <[SectionDescriptor]>::ref_from_prefix_with_elems(behind_header, count)
            .map_or(&[][..], |it| it.0);

        let mut record = Record { header, descriptors, bytes };
        let used = record.used_len();
        if record.len() != length {
            record.bytes = bytes.get(..used).unwrap_or(bytes);
        } else if let Some(next) = RecordHeader::find(record.unused()) {
            problems.push(wrong_length(Expected::AtMost((used + next) as u64)));
            record.bytes = bytes.get(..used + next).unwrap_or(bytes);
        }
        Ok((record, problems))
    }

    /// Its length in bytes; if the header's is wrong, that up to the end of its last section or to the next record.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes behind its last section: space for further ones.
    pub(crate) fn unused(&self) -> &'a [u8] {
        self.bytes.get(self.used_len()..).unwrap_or_default()
    }

    /// Its sections. Those that overlap, so that together they are longer than the record, are not decoded.
    pub fn sections(&self) -> impl Iterator<Item = RecordSection<'a>> + use<'a> {
        let record = *self;
        let mut left = record.len();
        record.descriptors.iter().enumerate().map(move |(index, descriptor)| {
            let start = descriptor.offset.get() as usize;
            let (bytes, problem) = match record.section_bytes(index, descriptor) {
                Ok(bytes) => (bytes, None),
                Err(beyond) => (record.bytes.get(start..).unwrap_or_default(), Some(beyond)),
            };
            if bytes.len() > left {
                let overlap = DecodeError {
                    offset: descriptor_offset(index) + core::mem::offset_of!(SectionDescriptor, length),
                    what: "length of a section",
                    found: bytes.len() as u64,
                    expected: Expected::AtMost(left as u64),
                };
                return RecordSection { descriptor, bytes: &[], problem: Some(overlap) };
            }
            left -= bytes.len();
            RecordSection { descriptor, bytes, problem }
        })
    }

    /// All of its bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The offset behind its last descriptor.
    pub(crate) fn descriptors_end(&self) -> usize {
        descriptor_offset(self.descriptors.len())
    }

    /// The bytes of a section.
    ///
    /// # Errors
    /// Returns an error if it exceeds the record.
    fn section_bytes(&self, index: usize, descriptor: &SectionDescriptor) -> Result<&'a [u8], DecodeError> {
        let behind = self.bytes.get(descriptor.offset.get() as usize..);
        behind.and_then(|behind| behind.get(..descriptor.length.get() as usize)).ok_or(DecodeError {
            offset: descriptor_offset(index),
            what: "end of a section",
            found: u64::from(descriptor.offset.get()) + u64::from(descriptor.length.get()),
            expected: Expected::AtMost(self.len() as u64),
        })
    }

    /// Number of bytes up to the end of its last section.
    fn used_len(&self) -> usize {
        let ends = self.descriptors.iter().map(|descriptor| {
            let end = u64::from(descriptor.offset.get()) + u64::from(descriptor.length.get());
            usize::try_from(end).unwrap_or(usize::MAX).min(self.len())
        });
        ends.fold(descriptor_offset(self.descriptors.len()), usize::max)
    }
}

/// Offset of a section descriptor in its record.
const fn descriptor_offset(index: usize) -> usize {
    size_of::<RecordHeader>() + index * size_of::<SectionDescriptor>()
}

/// The names of notification types (UEFI 2.10, N.2.1.1).
const NOTIFICATIONS: [(Guid, &str); 12] = [
    (Guid::new(0x2dce_8bb1, 0xbdd7, 0x450e, [0xb9, 0xad, 0x9c, 0xf4, 0xeb, 0xd4, 0xf8, 0x90]), "CMC"),
    (Guid::new(0x4e29_2f96, 0xd843, 0x4a55, [0xa8, 0xc2, 0xd4, 0x81, 0xf2, 0x7e, 0xbe, 0xee]), "CPE"),
    (Guid::new(0xe8f5_6ffe, 0x919c, 0x4cc5, [0xba, 0x88, 0x65, 0xab, 0xe1, 0x49, 0x13, 0xbb]), "MCE"),
    (Guid::new(0xcf93_c01f, 0x1a16, 0x4dfc, [0xb8, 0xbc, 0x9c, 0x4d, 0xaf, 0x67, 0xc1, 0x04]), "PCIe"),
    (Guid::new(0xcc52_63e8, 0x9308, 0x454a, [0x89, 0xd0, 0x34, 0x0b, 0xd3, 0x9b, 0xc9, 0x8e]), "INIT"),
    (Guid::new(0x5bad_89ff, 0xb7e6, 0x42c9, [0x81, 0x4a, 0xcf, 0x24, 0x85, 0xd6, 0xe9, 0x8a]), "NMI"),
    (Guid::new(0x3d61_a466, 0xab40, 0x409a, [0xa6, 0x98, 0xf3, 0x62, 0xd4, 0x64, 0xb3, 0x8f]), "boot"),
    (Guid::new(0x667d_d791, 0xc6b3, 0x4c27, [0x8a, 0x6b, 0x0f, 0x8e, 0x72, 0x2d, 0xeb, 0x41]), "DMAr"),
    (Guid::new(0x9a78_788a, 0xbbe8, 0x11e4, [0x80, 0x9e, 0x67, 0x61, 0x1e, 0x5d, 0x46, 0xb0]), "SEA"),
    (Guid::new(0x5c28_4c81, 0xb0ae, 0x4e87, [0xa3, 0x22, 0xb0, 0x4c, 0x85, 0x62, 0x43, 0x23]), "SEI"),
    (Guid::new(0x09a9_d5ac, 0x5204, 0x4214, [0x96, 0xe5, 0x94, 0x99, 0x2e, 0x75, 0x2b, 0xcd]), "PEI"),
    (Guid::new(0x6929_3bc9, 0x41df, 0x49a3, [0xb4, 0xbd, 0x4f, 0xb0, 0xdb, 0x30, 0x41, 0xf6]), "CXL"),
];
