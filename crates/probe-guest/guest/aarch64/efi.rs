//! Data of EFI firmware for a kernel, which devicetree properties refer to (UEFI 2.10; Linux,
//! Documentation/arch/arm/uefi.rst).

use crate::failure::Failure;
use crate::memory_map::{Kind, MemoryMap};
use crate::wire::{Field, read_at, wire};

wire! {
    /// EFI_SYSTEM_TABLE (4.3), with its header (4.2).
    struct SystemTable: 120 {
        signature: u64,
        revision: u32,
        header_len: u32,
        crc32: u32,
        _reserved: u32,
        _vendor: u64,
        _firmware_revision: u32,
        _padding: u32,
        _console: [u8; 48],
        runtime: u64,
        _boot: u64,
        table_count: u64,
        tables: u64,
    }
}

wire! {
    /// EFI_CONFIGURATION_TABLE (4.6).
    struct ConfigurationTable: 24 {
        guid: [u8; 16],
        address: u64,
    }
}

wire! {
    /// EFI_RT_PROPERTIES_TABLE (4.6.2).
    struct RuntimeProperties: 8 {
        version: u16,
        length: u16,
        supported: u32,
    }
}

wire! {
    /// EFI_MEMORY_DESCRIPTOR (7.2.3), version 1.
    struct MemoryDescriptor: 40 {
        kind: u32,
        _padding: u32,
        start: u64,
        _virtual_start: u64,
        pages: u64,
        _attributes: u64,
    }
}

const SIGNATURE: u64 = u64::from_le_bytes(*b"IBI SYST");
/// EFI_ACPI_20_TABLE_GUID: 8868e871-e4f1-11d3-bc22-0080c73c8881.
pub(crate) const ACPI_20: [u8; 16] =
    [0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81];
/// EFI_RT_PROPERTIES_TABLE_GUID: eb66918a-7eef-402a-842e-931d21c38ae9.
pub(crate) const RT_PROPERTIES: [u8; 16] =
    [0x8a, 0x91, 0x66, 0xeb, 0xef, 0x7e, 0x2a, 0x40, 0x84, 0x2e, 0x93, 0x1d, 0x21, 0xc3, 0x8a, 0xe9];

/// Bytes of an RT properties table.
pub(crate) const RT_PROPERTIES_LEN: u64 = RuntimeProperties::SIZE as u64;
/// Bytes of a system table, the same in all versions.
pub(crate) const SYSTEM_TABLE_LEN: u64 = SystemTable::SIZE as u64;
/// Maximum number of configuration tables.
const MAX_TABLES: u64 = 256;
const PAGE: u64 = 4096;

/// The properties of `/chosen`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointers {
    pub(crate) system_table: u64,
    pub(crate) map: u64,
    pub(crate) map_len: u32,
    pub(crate) descriptor_len: u32,
    pub(crate) descriptor_version: u32,
}

/// A system table with a valid signature and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) revision: u32,
    /// Address of the runtime services; 0 if there are none.
    pub(crate) runtime: u64,
    /// Address and bytes of the configuration tables.
    pub(crate) tables: u64,
    pub(crate) tables_len: u64,
}

/// Reads a system table from its bytes.
pub(crate) fn read_system_table(bytes: &[u8]) -> Result<System, Failure> {
    let table = read_at::<SystemTable>(bytes, 0).ok_or(Failure::new("EFI system table: too short"))?;
    if table.signature != SIGNATURE {
        return Err(Failure::with("EFI system table: wrong signature", table.signature));
    }
    if table.header_len != SystemTable::SIZE as u32 {
        return Err(Failure::with("EFI system table: length", u64::from(table.header_len)));
    }
    let crc = crc32(bytes.iter().take(SystemTable::SIZE).enumerate().map(|(index, byte)| match index {
        // The checksum field counts as zero.
        16..20 => 0,
        _ => *byte,
    }));
    if crc != table.crc32 {
        return Err(Failure::with("EFI system table: checksum bad, expected", u64::from(crc)));
    }
    if table.table_count > MAX_TABLES {
        return Err(Failure::with("EFI system table: number of tables", table.table_count));
    }
    let tables_len = table.table_count * ConfigurationTable::SIZE as u64;
    Ok(System { revision: table.revision, runtime: table.runtime, tables: table.tables, tables_len })
}

/// The address of the configuration table with a GUID.
pub(crate) fn find_table(tables: &[u8], guid: &[u8; 16]) -> Option<u64> {
    tables
        .chunks_exact(ConfigurationTable::SIZE)
        .filter_map(|entry| read_at::<ConfigurationTable>(entry, 0))
        .find_map(|entry| (entry.guid == *guid).then_some(entry.address))
}

/// The mask of supported runtime services.
pub(crate) fn read_runtime_properties(bytes: &[u8]) -> Result<u32, Failure> {
    let table = read_at::<RuntimeProperties>(bytes, 0).ok_or(Failure::new("RT properties: too short"))?;
    if table.version != 1 || usize::from(table.length) != RuntimeProperties::SIZE {
        return Err(Failure::with("RT properties: version", u64::from(table.version)));
    }
    Ok(table.supported)
}

/// Reads a memory map of descriptors of `descriptor_len` bytes each.
pub(crate) fn read_memory_map(bytes: &[u8], descriptor_len: u32) -> Result<MemoryMap, Failure> {
    let step = descriptor_len as usize;
    if step < MemoryDescriptor::SIZE || !bytes.len().is_multiple_of(step) {
        return Err(Failure::with("EFI memory map: length of a descriptor", u64::from(descriptor_len)));
    }
    let mut map = MemoryMap::new();
    for descriptor in
        bytes.chunks_exact(step).filter_map(|descriptor| read_at::<MemoryDescriptor>(descriptor, 0))
    {
        let len = descriptor
            .pages
            .checked_mul(PAGE)
            .ok_or(Failure::with("EFI memory map: number of pages", descriptor.pages))?;
        map.push(descriptor.start, len, kind(descriptor.kind))?;
    }
    Ok(map)
}

/// What an EFI_MEMORY_TYPE (7.2, table 7.6) is for. Memory of boot services and loaders does not count as usable.
fn kind(code: u32) -> Kind {
    match code {
        7 => Kind::Usable,
        8 => Kind::Unusable,
        9 => Kind::AcpiReclaim,
        10 => Kind::AcpiNvs,
        _ => Kind::Reserved,
    }
}

/// CRC-32 as in ISO 3309, as required by 4.2.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 })
    })
}
