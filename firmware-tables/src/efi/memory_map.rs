//! The EFI memory map: with ACPI, the only description of memory.

use platform::{MemoryMap, Region, RegionKind};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::wire::{self, MemoryDescriptor};
use crate::BuildError;

/// A kernel with 64 KiB pages extends a descriptor to the ends of its pages.
const ALIGNMENT: u64 = 64 << 10;
/// Size of an EFI page.
const PAGE: u64 = 4 << 10;

/// The descriptors of all memory, ascending.
///
/// Usable and unusable memory is reduced to whole blocks of 64 KiB: what is in no descriptor is not used either. Memory of another kind has
/// to consist of whole blocks: a guest would extend it into its neighbour.
pub(super) fn bytes(memory: &MemoryMap) -> Result<Vec<u8>, BuildError> {
    let mut bytes = Vec::new();
    // Registers have no descriptor: all descriptors are write-back cacheable.
    for region in memory.regions.iter().filter(|region| memory.is_ram(region.range)) {
        let Region { range, kind } = *region;
        let (start, end) = match kind {
            RegionKind::Usable | RegionKind::Unusable => {
                (range.start.next_multiple_of(ALIGNMENT), range.end() / ALIGNMENT * ALIGNMENT)
            }
            _ if range.start % ALIGNMENT == 0 && range.len % ALIGNMENT == 0 => (range.start, range.end()),
            _ => return Err(BuildError::Alignment { range, alignment: ALIGNMENT }),
        };
        if start < end {
            bytes.extend_from_slice(descriptor(kind, start, end).as_bytes());
        }
    }
    Ok(bytes)
}

/// All memory is write-back cacheable: Linux maps other memory as a device, which faults on unaligned access.
fn descriptor(kind: RegionKind, start: u64, end: u64) -> MemoryDescriptor {
    let kind = match kind {
        RegionKind::Usable => wire::CONVENTIONAL_MEMORY,
        RegionKind::Reserved => wire::RESERVED_MEMORY,
        RegionKind::AcpiReclaim => wire::ACPI_RECLAIM_MEMORY,
        RegionKind::AcpiNvs => wire::ACPI_MEMORY_NVS,
        RegionKind::Unusable => wire::UNUSABLE_MEMORY,
    };
    MemoryDescriptor {
        kind: U32::new(kind),
        padding: U32::ZERO,
        physical_start: U64::new(start),
        virtual_start: U64::ZERO,
        pages: U64::new((end - start) / PAGE),
        attribute: U64::new(wire::WRITE_BACK),
        reserved: U64::ZERO,
    }
}
