//! The header of all tables but the RSDP.

use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::Body;
use crate::{OemInfo, checksum};

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

/// A whole table: header, body, and a checksum over both.
pub(super) fn table(signature: [u8; 4], body: &Body, oem: &OemInfo<'_>) -> Vec<u8> {
    let mut header = Header {
        signature,
        // Saturates: a table of 4 GiB fits into no table area, which is an error later.
        length: U32::new(u32::try_from(size_of::<Header>() + body.bytes.len()).unwrap_or(u32::MAX)),
        revision: body.revision,
        checksum: 0,
        oem_id: oem.oem_id,
        oem_table_id: oem.oem_table_id,
        oem_revision: U32::new(oem.oem_revision),
        creator_id: oem.creator_id,
        creator_revision: U32::new(oem.creator_revision),
    };
    header.checksum = checksum::balancing(header.as_bytes()).wrapping_add(checksum::balancing(&body.bytes));
    [header.as_bytes(), &body.bytes].concat()
}
