//! A reader that follows the pointers in guest memory as a kernel does: from `/chosen` to the EFI tables, the memory map,
//! the RSDP and the tables that it lists. EFI structures are those of `r-efi`; checksums, lengths and alignment are checked.

use std::collections::BTreeMap;
use std::mem::offset_of;

use firmware_tables::{EntryPoint, GuestTables};
use r_efi::system::{self, ConfigurationTable, MemoryDescriptor, SystemTable};

use crate::tree::Tree;

/// The contents of the table at `gpa`.
pub(crate) fn at(built: &GuestTables, gpa: u64) -> &[u8] {
    &built.tables.iter().find(|table| table.gpa == gpa).expect("a table there").bytes
}

pub(crate) fn devicetree(built: &GuestTables) -> Tree {
    let EntryPoint::Devicetree { gpa } = built.entry else { panic!("{:?}", built.entry) };
    assert_eq!(gpa, 0x4010_0000);
    Tree::read(at(built, gpa))
}

/// The configuration table: addresses by GUID.
pub(crate) fn configuration(built: &GuestTables) -> BTreeMap<[u8; 16], u64> {
    let system = at(built, devicetree(built).at("chosen").wide("linux,uefi-system-table")[0]);
    let entries = at(built, u64_at(system, offset_of!(SystemTable, configuration_table)));
    let count = u64_at(system, offset_of!(SystemTable, number_of_table_entries)) as usize;
    assert_eq!(entries.len(), count * size_of::<ConfigurationTable>());
    entries
        .chunks(size_of::<ConfigurationTable>())
        .map(|entry| {
            (entry[..16].try_into().unwrap(), u64_at(entry, offset_of!(ConfigurationTable, vendor_table)))
        })
        .collect()
}

/// Type, start and length of every descriptor; checks that they are cacheable, ascending and whole blocks of 64 KiB.
pub(crate) fn memory_map(built: &GuestTables) -> Vec<(u32, u64, u64)> {
    let root = devicetree(built);
    let chosen = root.at("chosen");
    let map = at(built, chosen.wide("linux,uefi-mmap-start")[0]);
    assert_eq!(map.len(), chosen.cells("linux,uefi-mmap-size")[0] as usize);
    let descriptors: Vec<(u32, u64, u64)> = map
        .chunks(chosen.cells("linux,uefi-mmap-desc-size")[0] as usize)
        .map(|descriptor| {
            assert_eq!(u64_at(descriptor, offset_of!(MemoryDescriptor, attribute)), system::MEMORY_WB);
            assert_eq!(u64_at(descriptor, offset_of!(MemoryDescriptor, virtual_start)), 0);
            let start = u64_at(descriptor, offset_of!(MemoryDescriptor, physical_start));
            let len = u64_at(descriptor, offset_of!(MemoryDescriptor, number_of_pages)) * 4096;
            assert_eq!((start % 0x1_0000, len % 0x1_0000), (0, 0));
            (u32_at(descriptor, offset_of!(MemoryDescriptor, r#type)), start, len)
        })
        .collect();
    assert!(descriptors.windows(2).all(|pair| pair[0].1 + pair[0].2 <= pair[1].1));
    descriptors
}

/// All ACPI tables that `/chosen` leads to, by signature; checksums and lengths are checked.
pub(crate) fn walk(built: &GuestTables) -> BTreeMap<String, Vec<u8>> {
    let rsdp = at(built, configuration(built)[system::ACPI_20_TABLE_GUID.as_bytes()]);
    assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(rsdp)), (&b"RSD PTR "[..], 0, 0));
    let mut found = BTreeMap::new();
    let mut read = |gpa: u64| {
        let bytes = at(built, gpa).to_vec();
        assert_eq!((u32_at(&bytes, 4) as usize, sum(&bytes)), (bytes.len(), 0));
        assert_eq!((&bytes[10..24], &bytes[28..32]), (&b"GHEST GHESTVMM"[..], &b"GHST"[..]));
        let signature = String::from_utf8(bytes[..4].to_vec()).unwrap();
        assert!(found.insert(signature, bytes.clone()).is_none(), "listed twice");
        bytes
    };
    for entry in read(u64_at(rsdp, 24))[36..].chunks(8) {
        let table = read(u64_at(entry, 0));
        if table.starts_with(b"FACP") {
            read(u64_at(&table, 140));
        }
    }
    found
}

/// The structures in `rest`, each of which starts with a type and a length byte.
pub(crate) fn entries(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut entries = Vec::new();
    while let [_, len, ..] = rest {
        let (entry, tail) = rest.split_at(usize::from(*len));
        entries.push(entry);
        rest = tail;
    }
    assert!(rest.is_empty());
    entries
}

/// CRC-32 of IEEE 802.3.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

pub(crate) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
