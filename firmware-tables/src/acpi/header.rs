//! The header that all tables but the RSDP start with.

use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::checksum;

/// OEMID.
pub(super) const OEM_ID: [u8; 6] = *b"GHEST ";
/// OEM Table ID. The same in all tables, as FADT and XSDT must agree on it.
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"GHESTVMM";
/// OEM Revision.
pub(super) const OEM_REVISION: u32 = 1;
/// Creator ID.
pub(super) const CREATOR_ID: [u8; 4] = *b"GHST";
/// Creator Revision.
pub(super) const CREATOR_REVISION: u32 = 1;

/// System description table header (ACPI 6.5, 5.2.6, table 5.4).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
}

/// Bytes of the header.
pub(super) const LEN: u32 = 36;

const _: () = assert!(size_of::<Header>() == LEN as usize);

/// A whole table: header, `body`, and a checksum over both.
pub(super) fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut header = Header {
        signature,
        // No body comes near 4 GiB; one that did would not fit into any table area.
        length: U32::new(u32::try_from(size_of::<Header>() + body.len()).unwrap_or(u32::MAX)),
        revision,
        checksum: 0,
        oem_id: OEM_ID,
        oem_table_id: OEM_TABLE_ID,
        oem_revision: U32::new(OEM_REVISION),
        creator_id: CREATOR_ID,
        creator_revision: U32::new(CREATOR_REVISION),
    };
    header.checksum = checksum::balancing(header.as_bytes()).wrapping_add(checksum::balancing(body));
    [header.as_bytes(), body].concat()
}
