//! BERT: where a boot finds the record of the error that ended the one before.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{AcpiTable, Body, Context, header, version};
use crate::BuildError;

/// Boot Error Record Table (ACPI 6.5, 18.3.1, table 18.2), if the machine has a boot error region. The region holds a status block, or
/// zeroes.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"BERT", name: "bert", file_name: "bert.aml", body };

/// What follows the standard header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct BootErrorRegion {
    length: U32,
    address: U64,
}

const _: () = assert!(header::LEN as usize + size_of::<BootErrorRegion>() == 48);

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    Ok(context.platform.memory.boot_record.map(|region| {
        // Saturates: a region of 4 GiB is in no memory map.
        let length = U32::new(u32::try_from(region.len).unwrap_or(u32::MAX));
        let bytes = BootErrorRegion { length, address: U64::new(region.start) }.as_bytes().to_vec();
        Body { revision: version::BERT, bytes }
    }))
}
