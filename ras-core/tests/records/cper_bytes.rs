//! CPER records as their creators write them, byte by byte from the tables of UEFI 2.10, appendix N: independent of the structures of
//! `ras_core`.

use ras_core::{Guid, Kind, MemoryBlocks, MemoryReport, Span};

pub(crate) const MEMORY: Guid =
    Guid::new(0xa5bc_1114, 0x6f64, 0x4ede, [0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1]);
pub(crate) const ARM: Guid =
    Guid::new(0xe19e_3d16, 0xbc11, 0x11e4, [0x9c, 0xaa, 0xc2, 0x05, 0x1d, 0x5d, 0x46, 0xb0]);
pub(crate) const GENERIC: Guid =
    Guid::new(0x9876_ccad, 0x47b4, 0x4bdb, [0xb6, 0x5e, 0x16, 0xf1, 0x93, 0xc4, 0xf3, 0xdb]);
pub(crate) const IPF: Guid =
    Guid::new(0xe429_faf1, 0x3cb7, 0x11d4, [0xbc, 0xa7, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81]);
pub(crate) const PCIE: Guid =
    Guid::new(0xd995_e954, 0xbbc1, 0x430f, [0xad, 0x91, 0xb4, 0x4d, 0xcb, 0x3c, 0x6f, 0x35]);
pub(crate) const WINDOWS: Guid =
    Guid::new(0xcf07_c4bd, 0xb789, 0x4e18, [0xb3, 0xc4, 0x1f, 0x73, 0x2c, 0xb5, 0x71, 0x31]);
const CMC: Guid = Guid::new(0x2dce_8bb1, 0xbdd7, 0x450e, [0xb9, 0xad, 0x9c, 0xf4, 0xeb, 0xd4, 0xf8, 0x90]);

/// 2025-07-01 02:01:34 in binary-coded decimals.
pub(crate) const BCD_TIME: [u8; 8] = [0x34, 0x01, 0x02, 0, 0x01, 0x07, 0x25, 0x20];
/// The same in binary numbers.
pub(crate) const BINARY_TIME: [u8; 8] = [34, 1, 2, 0, 1, 7, 25, 20];

/// A record with one section.
#[derive(Clone, Debug)]
pub(crate) struct OneSection {
    pub(crate) revision: u16,
    pub(crate) time: [u8; 8],
    pub(crate) creator: Guid,
    pub(crate) flags: u32,
    pub(crate) persistence: u64,
    pub(crate) section_flags: u32,
    /// The length in the header, if it is not the right one.
    pub(crate) length: Option<u32>,
    pub(crate) kind: Guid,
    pub(crate) body: Vec<u8>,
}

impl OneSection {
    pub(crate) fn new(kind: Guid, body: Vec<u8>) -> Self {
        OneSection {
            revision: 0x0101,
            time: BCD_TIME,
            creator: Guid::from_bytes([0x11; 16]),
            flags: 0,
            persistence: 0,
            section_flags: 1,
            length: None,
            kind,
            body,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let section = 128 + 72;
        let length = self.length.unwrap_or((section + self.body.len()) as u32);
        let mut bytes = b"CPER".to_vec();
        put(&mut bytes, &[(2, self.revision.into()), (4, 0xffff_ffff), (2, 1), (4, 2), (4, 0b10)]);
        put(&mut bytes, &[(4, length.into())]);
        bytes.extend(self.time);
        bytes.extend([0; 32]);
        bytes.extend(self.creator.bytes());
        bytes.extend(CMC.bytes());
        put(&mut bytes, &[(8, 0x1234), (4, self.flags.into()), (8, self.persistence), (8, 0), (4, 0)]);
        assert_eq!(bytes.len(), 128);
        bytes.extend(descriptor(section as u32, self.body.len() as u32, self.kind, self.section_flags));
        bytes.extend(&self.body);
        bytes
    }
}

/// A record with a memory error section.
pub(crate) fn memory_record(address: u64) -> OneSection {
    OneSection::new(MEMORY, memory(address))
}

/// A status block of this crate, without bytes behind it.
pub(crate) fn block(gpa: u64) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 1_543_622_400, 17);
    let len = MemoryBlocks::new(Span::around(gpa, 12), report).write_next(&mut bytes).expect("it fits");
    bytes.truncate(len);
    bytes
}

/// A section descriptor of revision 3.0.
pub(crate) fn descriptor(offset: u32, length: u32, kind: Guid, flags: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[(4, offset.into()), (4, length.into()), (2, 0x300), (1, 0), (1, 0), (4, flags.into())]);
    bytes.extend(kind.bytes());
    bytes.extend([0; 16]);
    put(&mut bytes, &[(4, 2)]);
    bytes.extend([0; 20]);
    assert_eq!(bytes.len(), 72);
    bytes
}

/// A memory error section: address, mask and type.
pub(crate) fn memory(address: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[(8, 1 << 1 | 1 << 2 | 1 << 14), (8, 0), (8, address), (8, !0xfff)]);
    bytes.extend([0; 16 + 3 * 8]);
    bytes.push(2);
    bytes.resize(80, 0);
    bytes
}

/// An Arm processor section: one error of that type, and bytes behind it.
pub(crate) fn arm(error_type: u8, vendor_is_valid: bool, vendor: &[u8]) -> Vec<u8> {
    let length = 40 + 32 + vendor.len() as u64;
    let mut bytes = Vec::new();
    put(&mut bytes, &[(4, u64::from(vendor_is_valid) << 3), (2, 1), (2, 0), (4, length), (4, 0)]);
    put(&mut bytes, &[(8, 0), (8, 0), (4, 0), (4, 0)]);
    put(&mut bytes, &[(1, 0), (1, 32), (2, 1), (1, error_type.into()), (2, 0), (1, 0)]);
    put(&mut bytes, &[(8, 0), (8, 0), (8, 0)]);
    bytes.extend(vendor);
    bytes
}

/// A generic processor section: only its type is valid.
pub(crate) fn generic(error_type: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[(8, 1 << 2), (1, 0), (1, 0), (1, error_type.into())]);
    bytes.resize(192, 0);
    bytes
}

/// Appends little-endian fields: length in bytes, value.
pub(crate) fn put(bytes: &mut Vec<u8>, fields: &[(usize, u64)]) {
    for (len, value) in fields {
        bytes.extend(&value.to_le_bytes()[..*len]);
    }
}
