//! The memory map: the only thing that tells a guest with ACPI where its memory is.

use platform::{MemoryMap, Region, RegionKind};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::wire::{self, MemoryDescriptor};
use crate::BuildError;

/// A kernel with pages of 64 KiB takes a descriptor to reach to the ends of the pages that it touches.
const ALIGNMENT: u64 = 64 << 10;
/// EFI's own pages.
const PAGE: u64 = 4 << 10;

/// The descriptors of all memory, ascending.
///
/// Usable memory that ends within 64 KiB is told of as far as it fills them. Where another kind does, the guest would take
/// its neighbour's memory to be of that kind too: no map can be given.
pub(super) fn bytes(tables: &'static str, memory: &MemoryMap) -> Result<Vec<u8>, BuildError> {
    let mut bytes = Vec::new();
    // Devices' addresses need no descriptor, and one that says they can be cached would be wrong.
    for region in memory.regions.iter().filter(|region| memory.is_ram(region.range)) {
        let Region { range, kind } = *region;
        let (start, end) = match kind {
            RegionKind::Usable => {
                (range.start.next_multiple_of(ALIGNMENT), range.end() / ALIGNMENT * ALIGNMENT)
            }
            _ if range.start % ALIGNMENT == 0 && range.len % ALIGNMENT == 0 => (range.start, range.end()),
            _ => return Err(BuildError::Alignment { tables, range, alignment: ALIGNMENT }),
        };
        if start < end {
            bytes.extend_from_slice(descriptor(kind, start, end).as_bytes());
        }
    }
    Ok(bytes)
}

/// All memory is cached: what is not, a kernel maps as a device, and may then not read unaligned.
fn descriptor(kind: RegionKind, start: u64, end: u64) -> MemoryDescriptor {
    let kind = match kind {
        RegionKind::Usable => wire::CONVENTIONAL_MEMORY,
        RegionKind::Reserved => wire::RESERVED_MEMORY,
        RegionKind::AcpiReclaim => wire::ACPI_RECLAIM_MEMORY,
        RegionKind::AcpiNvs => wire::ACPI_MEMORY_NVS,
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
