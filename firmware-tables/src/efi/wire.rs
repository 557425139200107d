//! Structures of the UEFI Specification 2.10, with 64-bit addresses.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// EFI_GUID (appendix A), in memory order.
type Guid = [u8; 16];

/// EFI_ACPI_20_TABLE_GUID (4.6.1): 8868e871-e4f1-11d3-bc22-0080c73c8881, the RSDP.
pub(super) const ACPI_20_TABLE: Guid =
    guid(0x8868_e871, 0xe4f1, 0x11d3, [0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81]);
/// EFI_RT_PROPERTIES_TABLE_GUID (4.6.2): eb66918a-7eef-402a-842e-931d21c38ae9.
pub(super) const RT_PROPERTIES_TABLE: Guid =
    guid(0xeb66_918a, 0x7eef, 0x402a, [0x84, 0x2e, 0x93, 0x1d, 0x21, 0xc3, 0x8a, 0xe9]);
/// LINUX_EFI_MEMRESERVE_TABLE_GUID (Linux, include/linux/efi.h): 888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2.
pub(super) const LINUX_MEMORY_RESERVATIONS: Guid =
    guid(0x888e_b0c6, 0x8ede, 0x4ff5, [0xa8, 0xf0, 0x9a, 0xee, 0x5c, 0xb9, 0x77, 0xc2]);

const fn guid(low: u32, mid: u16, high: u16, rest: [u8; 8]) -> Guid {
    let (low, mid, high) = (low.to_le_bytes(), mid.to_le_bytes(), high.to_le_bytes());
    let [a, b, c, d, e, f, g, h] = rest;
    [low[0], low[1], low[2], low[3], mid[0], mid[1], high[0], high[1], a, b, c, d, e, f, g, h]
}

/// EFI_TABLE_HEADER (4.2.1).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    length: U32,
    /// CRC-32 of the whole table, with this field zero.
    crc32: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<Header>() == 24);

/// EFI_SYSTEM_TABLE (4.3.1).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SystemTable {
    header: Header,
    /// GPA of a NUL-terminated UTF-16 string.
    vendor: U64,
    vendor_revision: U32,
    padding: U32,
    /// Handle and protocol of standard input, output and error: none.
    consoles: [U64; 6],
    runtime_services: U64,
    boot_services: U64,
    configuration_count: U64,
    configuration: U64,
}

const _: () = assert!(size_of::<SystemTable>() == 120);

impl SystemTable {
    /// A table without consoles and services.
    pub(super) fn new(vendor: u64, vendor_revision: u32, configuration: u64, count: u64) -> Self {
        /// EFI_2_70_SYSTEM_TABLE_REVISION. UEFI 2.8 added the runtime properties table; Linux reads it for every
        /// revision.
        const REVISION_2_70: u32 = 2 << 16 | 70;
        let mut table = SystemTable {
            header: Header {
                signature: *b"IBI SYST",
                revision: U32::new(REVISION_2_70),
                length: U32::new(size_of::<SystemTable>() as u32),
                crc32: U32::ZERO,
                reserved: U32::ZERO,
            },
            vendor: U64::new(vendor),
            vendor_revision: U32::new(vendor_revision),
            padding: U32::ZERO,
            consoles: [U64::ZERO; 6],
            runtime_services: U64::ZERO,
            boot_services: U64::ZERO,
            configuration_count: U64::new(count),
            configuration: U64::new(configuration),
        };
        table.header.crc32 = U32::new(crc32fast::hash(table.as_bytes()));
        table
    }
}

/// EFI_CONFIGURATION_TABLE (4.6).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ConfigurationTable {
    pub(super) guid: Guid,
    pub(super) table: U64,
}

const _: () = assert!(size_of::<ConfigurationTable>() == 24);

/// The version of [`RuntimeProperties`].
pub(super) const RUNTIME_PROPERTIES_VERSION: u16 = 1;

/// EFI_RT_PROPERTIES_TABLE (4.6.2).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RuntimeProperties {
    pub(super) version: U16,
    pub(super) length: U16,
    /// RuntimeServicesSupported: one bit for each runtime service.
    pub(super) supported: U32,
}

const _: () = assert!(size_of::<RuntimeProperties>() == 8);

/// `struct linux_efi_memreserve` (Linux, include/linux/efi.h), without entries.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MemoryReservations {
    /// Capacity in entries.
    pub(super) size: U32,
    pub(super) count: U32,
    /// GPA of the next part of the list, written by the kernel.
    pub(super) next: U64,
}

const _: () = assert!(size_of::<MemoryReservations>() == 16);

/// EFI_MEMORY_DESCRIPTOR_VERSION (7.2.3).
pub(super) const DESCRIPTOR_VERSION: u32 = 1;
/// Bytes from one descriptor to the next: as in EDK II, more than the 40 of EFI_MEMORY_DESCRIPTOR, so that a reader must
/// use this value.
pub(super) const DESCRIPTOR_LEN: u32 = 48;

/// EfiReservedMemoryType (7.2.1, EFI_MEMORY_TYPE).
pub(super) const RESERVED_MEMORY: u32 = 0;
/// EfiConventionalMemory.
pub(super) const CONVENTIONAL_MEMORY: u32 = 7;
/// EfiUnusableMemory: memory in which errors have been detected.
pub(super) const UNUSABLE_MEMORY: u32 = 8;
/// EfiACPIReclaimMemory.
pub(super) const ACPI_RECLAIM_MEMORY: u32 = 9;
/// EfiACPIMemoryNVS.
pub(super) const ACPI_MEMORY_NVS: u32 = 10;

/// EFI_MEMORY_WB: write-back cacheable.
pub(super) const WRITE_BACK: u64 = 1 << 3;

/// EFI_MEMORY_DESCRIPTOR (7.2.3), and 8 bytes of padding.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MemoryDescriptor {
    pub(super) kind: U32,
    pub(super) padding: U32,
    pub(super) physical_start: U64,
    pub(super) virtual_start: U64,
    pub(super) pages: U64,
    pub(super) attribute: U64,
    pub(super) reserved: U64,
}

const _: () = assert!(size_of::<MemoryDescriptor>() == DESCRIPTOR_LEN as usize);
