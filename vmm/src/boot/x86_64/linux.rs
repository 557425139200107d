//! The 64-bit Linux/x86 boot protocol (Documentation/arch/x86/boot.rst and zero-page.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use platform::RegionKind;
use vcpu::x86_64::{BOOT_GDT, BOOT_GDT_GPA, Entry, PageTables};
use vm_memory::ByteValued;

use super::{BootError, COMMAND_LINE, HandOver};
use crate::command_line::CommandLineMax;

/// GPA of `struct boot_params`.
const BOOT_PARAMS: u64 = 0x7000;
/// GPA of the page tables.
const PAGE_TABLES: PageTables = PageTables { root: 0x9000 };
/// setup_header.type_of_loader: a boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// setup_header.header: "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// setup_header.boot_flag.
const BOOT_FLAG: u16 = 0xaa55;
/// setup_header.version for an ELF kernel, which has no setup header: 2.15.
const PROTOCOL: u16 = 0x20f;

pub(super) fn hand_over(
    to: &HandOver<'_>,
    rip: u64,
    header: Option<setup_header>,
) -> Result<Entry, BootError> {
    let mut params = boot_params {
        hdr: header.unwrap_or(setup_header {
            header: HEADER_MAGIC,
            boot_flag: BOOT_FLAG,
            version: PROTOCOL,
            cmdline_size: CommandLineMax::Linux.bytes() as u32,
            ..Default::default()
        }),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    // cmdline_size stays what the kernel says: it is the kernel's maximum, not the length of this line.
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    if let Some(initrd) = to.chosen.initrd {
        // The initrd is below 4 GiB.
        params.hdr.ramdisk_image = initrd.start as u32;
        params.hdr.ramdisk_size = initrd.len as u32;
    }
    // 0 without ACPI: the kernel then scans memory for an RSDP and finds none.
    params.acpi_rsdp_addr = to.rsdp.unwrap_or(0);
    let regions = &to.map.regions;
    if regions.len() > params.e820_table.len() {
        return Err(BootError::MemoryMap(regions.len()));
    }
    for (entry, region) in params.e820_table.iter_mut().zip(regions) {
        *entry = boot_e820_entry {
            addr: region.range.start,
            size: region.range.len,
            r#type: e820_type(region.kind),
        };
    }
    params.e820_entries = regions.len() as u8;
    to.target.put(params.as_slice(), BOOT_PARAMS)?;
    let tables: Vec<u8> = PAGE_TABLES.entries().flat_map(u64::to_le_bytes).collect();
    to.target.put(&tables, PAGE_TABLES.root)?;
    put_gdt(to)?;
    Ok(Entry::Linux64 { rip, boot_params: BOOT_PARAMS, page_tables: PAGE_TABLES.root })
}

/// Writes the GDT that the segment registers were loaded from.
pub(super) fn put_gdt(to: &HandOver<'_>) -> Result<(), BootError> {
    let gdt: Vec<u8> = BOOT_GDT.into_iter().flat_map(u64::to_le_bytes).collect();
    to.target.put(&gdt, BOOT_GDT_GPA)
}

/// The type of a region in the e820 map (ACPI 6.5, table 15.1). PVH uses the same numbers.
pub(super) const fn e820_type(kind: RegionKind) -> u32 {
    match kind {
        RegionKind::Usable => 1,
        RegionKind::Reserved => 2,
        RegionKind::AcpiReclaim => 3,
        RegionKind::AcpiNvs => 4,
        RegionKind::Unusable => 5,
    }
}
