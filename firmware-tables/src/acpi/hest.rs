//! HEST: where the guest is told of hardware errors.
//!
//! No machine check structures (IA-32, types 0, 1 and 11): they would have an operating system write to the banks' control
//! registers what firmware thinks best, and the processors' own values are that already.

use ras_core::{GenericErrorSourceV2, RecordArea};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::header;

/// Hardware Error Source Table, revision 1 (ACPI 6.5, 18.3.2, table 18.3): the sources of `area`, in their order.
pub(super) fn bytes(area: &RecordArea) -> Vec<u8> {
    let slots = area.slots();
    // Ids are unique and have 16 bits: there are never more sources than 32 bits can count.
    let mut body = U32::new(slots.len() as u32).as_bytes().to_vec();
    for slot in slots {
        body.extend_from_slice(GenericErrorSourceV2::new(&slot).as_bytes());
    }
    header::table(*b"HEST", 1, &body)
}
