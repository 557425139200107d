//! Memory with uncorrected errors, in the memory maps of both descriptions of an arm64 machine. (On x86_64 the boot protocol has the map.)
#![cfg(all(feature = "acpi", feature = "devicetree"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod oem;
mod tree;

use firmware_tables::{GuestTables, TableSet, build};
use oem::OEM;
use platform::{Platform, Range};
use tree::Tree;

const POISONED: [Range; 3] = [
    Range { start: 0x4800_3000, len: 0x1000 },
    // In the block of the first.
    Range { start: 0x4800_f000, len: 0x1000 },
    Range { start: 0x4900_0000, len: 2 << 20 },
];

fn tables(set: TableSet, machine: &Platform) -> GuestTables {
    build(set, machine, &aarch64::chosen(), &OEM).expect("tables")
}

/// Type, start and length of each descriptor of the EFI memory map (UEFI 2.10, 7.2.3; 48 bytes each).
fn efi_map(machine: &Platform) -> Vec<(u32, u64, u64)> {
    let tables = tables(TableSet::Acpi, machine);
    let map = &tables.table("efi-memory-map").expect("a memory map").bytes;
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let descriptor = |it: &[u8]| (word(it, 0) as u32, word(it, 8), word(it, 24) << 12);
    map.chunks_exact(48).map(descriptor).collect()
}

#[test]
fn the_efi_memory_map_has_it_as_unusable() {
    let machine = aarch64::default_machine().with_error_sources(aarch64::error_sources());
    let before = efi_map(&machine);
    let after = efi_map(&machine.clone().with_unusable(&POISONED));
    let unusable: Vec<_> =
        after.iter().filter(|(kind, ..)| *kind == 8).map(|(_, start, len)| (*start, *len)).collect();
    assert_eq!(unusable, [(0x4800_0000, 0x1_0000), (0x4900_0000, 2 << 20)]);
    let usable = |map: &[(u32, u64, u64)]| -> u64 {
        map.iter().filter(|(kind, ..)| *kind == 7).map(|(_, _, len)| len).sum()
    };
    assert_eq!(usable(&before) - usable(&after), 0x1_0000 + (2 << 20));
    assert!(after.windows(2).all(|pair| pair[0].1 + pair[0].2 <= pair[1].1), "{after:x?}");
    let others = |map: &[(u32, u64, u64)]| {
        map.iter().filter(|(kind, ..)| !matches!(kind, 7 | 8)).copied().collect::<Vec<_>>()
    };
    assert_eq!(others(&before), others(&after), "records and tables are where they were");
}

#[test]
fn a_devicetree_reserves_it_without_a_mapping() {
    let machine = aarch64::default_machine().with_unusable(&POISONED);
    let built = tables(TableSet::Devicetree, &machine);
    let root = Tree::read(&built.table("platform").expect("a devicetree").bytes);
    let reserved = root.at("reserved-memory");
    let names: Vec<_> = reserved.names().into_iter().filter(|name| name.starts_with("poisoned")).collect();
    assert_eq!(names, ["poisoned@48000000", "poisoned@49000000"]);
    for (name, range) in
        [("poisoned@48000000", [0x4800_0000, 0x1_0000]), ("poisoned@49000000", [0x4900_0000, 2 << 20])]
    {
        let node = reserved.at(name);
        assert!(node.wide("reg") == range && node.has("no-map"), "{name}");
    }
}
