//! Memory error sections of CPER records (UEFI 2.10, N.2.5).

use crate::failure::Failure;
use crate::status_block::Entry;
use crate::wire::{read_at, wire};

wire! {
    /// Memory Error Section (table N.31) of UEFI 2.1; later versions append fields.
    struct MemorySection: 73 {
        validation: u64,
        _error_status: u64,
        physical_address: u64,
        _physical_address_mask: u64,
        _place: [u8; 16],
        _requestor: u64,
        _responder: u64,
        _target: u64,
        _error_type: u8,
    }
}

/// a5bc1114-6f64-4ede-b863-3e83ed7c83b1 (UEFI 2.10, N.2.2, table N.5), in memory order.
const SECTION_TYPE: [u8; 16] =
    [0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e, 0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1];
/// The physical address is valid.
const ADDRESS_VALID: u64 = 1 << 1;

/// The physical address in a section. `None` if it is of another type or has no valid address.
pub(crate) fn address(entry: &Entry<'_>) -> Result<Option<u64>, Failure> {
    if entry.section_type != SECTION_TYPE {
        return Ok(None);
    }
    let section = read_at::<MemorySection>(entry.payload, 0)
        .ok_or(Failure::with("status block: memory section has length", entry.payload.len() as u64))?;
    Ok((section.validation & ADDRESS_VALID != 0).then_some(section.physical_address))
}
