//! HEST: the error sources.
//!
//! No machine check structures (IA-32, types 0, 1 and 11): an operating system would write the values in them to the
//! banks' control registers, and the processors' reset values are already right.

use ras_core::GenericErrorSourceV2;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::{AcpiTable, Body, Context, version};
use crate::BuildError;

/// Hardware Error Source Table (ACPI 6.5, 18.3.2, table 18.3), if there are error sources: those of the
/// record area, in their order.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"HEST", name: "hest", file_name: "hest.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    Ok(context.record_area.map(|area| {
        let slots = area.slots();
        // The cast is lossless: ids are unique and have 16 bits.
        let mut bytes = U32::new(slots.len() as u32).as_bytes().to_vec();
        for slot in slots {
            bytes.extend_from_slice(GenericErrorSourceV2::new(&slot).as_bytes());
        }
        Body { revision: version::HEST, bytes }
    }))
}
