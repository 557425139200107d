//! The EFI tables that lead an arm64 kernel to the ACPI tables, as the kernel's EFI stub would hand them over.
//!
//! An arm64 kernel reads the RSDP's address only from the configuration table of an EFI system table, and maps ACPI tables
//! by their type in the EFI memory map. Properties of `/chosen` contain the addresses of both. Boot services have ended;
//! there are no runtime services.

mod memory_map;
mod wire;

use platform::Platform;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::area::Area;
use crate::fdt::Node;
use crate::{BuildError, OemInfo, Table};

/// The head of the list of memory that stays reserved across kexec, such as the tables of an ITS, which continues to write
/// to them. The EFI stub creates the list, and Linux requires it if there is an ITS.
const NO_RESERVATIONS: wire::MemoryReservations =
    wire::MemoryReservations { size: U32::ZERO, count: U32::ZERO, next: U64::ZERO };
/// `linux,uefi-secure-boot`: disabled (`enum efi_secureboot_mode` of Linux).
const SECURE_BOOT_DISABLED: u32 = 2;

/// The EFI tables, in the order of their addresses.
pub(crate) struct HandOver {
    pub(crate) tables: Vec<Table>,
    system_table: u64,
    memory_map: u64,
    memory_map_len: u32,
}

impl HandOver {
    /// Places the tables in `area`, for a guest whose RSDP is at the GPA `rsdp`.
    pub(crate) fn new(
        platform: &Platform,
        area: &mut Area,
        rsdp: u64,
        oem: &OemInfo<'_>,
    ) -> Result<Self, BuildError> {
        let map = memory_map::bytes(&platform.memory)?;
        let memory_map_len = map.len() as u32;
        let vendor: Vec<u8> =
            oem.firmware_vendor.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let runtime = wire::RuntimeProperties {
            version: U16::new(wire::RUNTIME_PROPERTIES_VERSION),
            length: U16::new(size_of::<wire::RuntimeProperties>() as u16),
            supported: U32::ZERO,
        };

        let mut place = |name, file_name, bytes: Vec<u8>| {
            let gpa = area.claim(bytes.len());
            Table { name, file_name, gpa, bytes }
        };
        let vendor = place("efi-vendor", "efi-vendor.bin", vendor);
        let runtime = place("efi-runtime-properties", "efi-runtime-properties.bin", bytes(&runtime));
        let reservations =
            place("efi-memory-reservations", "efi-memory-reservations.bin", bytes(&NO_RESERVATIONS));
        let configuration = [
            (wire::ACPI_20_TABLE, rsdp),
            (wire::RT_PROPERTIES_TABLE, runtime.gpa),
            (wire::LINUX_MEMORY_RESERVATIONS, reservations.gpa),
        ]
        .map(|(guid, table)| wire::ConfigurationTable { guid, table: U64::new(table) });
        let count = configuration.len() as u64;
        let configuration =
            place("efi-configuration-table", "efi-configuration-table.bin", bytes(&configuration));
        let system = wire::SystemTable::new(vendor.gpa, oem.firmware_revision, configuration.gpa, count);
        let system = place("efi-system-table", "efi-system-table.bin", bytes(&system));
        let map = place("efi-memory-map", "efi-memory-map.bin", map);
        Ok(HandOver {
            system_table: system.gpa,
            memory_map: map.gpa,
            memory_map_len,
            tables: vec![vendor, runtime, reservations, configuration, system, map],
        })
    }

    /// Adds their addresses to `/chosen` (Linux, `Documentation/arch/arm/uefi.rst`).
    ///
    /// Kernels of distributions require the property of secure boot too, and ignore the others without it.
    pub(crate) fn announce(&self, chosen: Node) -> Node {
        chosen
            .wide("linux,uefi-system-table", self.system_table)
            .wide("linux,uefi-mmap-start", self.memory_map)
            .cells("linux,uefi-mmap-size", &[self.memory_map_len])
            .cells("linux,uefi-mmap-desc-size", &[wire::DESCRIPTOR_LEN])
            .cells("linux,uefi-mmap-desc-ver", &[wire::DESCRIPTOR_VERSION])
            .cells("linux,uefi-secure-boot", &[SECURE_BOOT_DISABLED])
    }
}

fn bytes(structure: &(impl IntoBytes + Immutable)) -> Vec<u8> {
    structure.as_bytes().to_vec()
}
