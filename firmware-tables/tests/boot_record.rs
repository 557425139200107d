//! BERT, byte for byte, and the region in the memory maps.
#![cfg(all(feature = "acpi", feature = "devicetree", feature = "mptable"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use firmware_tables::{BuildError, TABLE_SETS, TableSet, build};
use oem::OEM;
use platform::{Platform, RECORD_REGION_LEN, RegionKind};

fn machines() -> [Platform; 2] {
    [x86_64::default_machine(), aarch64::default_machine()]
}

#[test]
fn the_table_has_the_region_of_the_memory_map() {
    for machine in machines() {
        let machine = machine.with_boot_record();
        let region = machine.memory.boot_record.expect("a region");
        let built = build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).expect("tables");
        let bert = built.table("bert").expect("a BERT");
        assert_eq!((&bert.bytes[..4], bert.bytes.len(), bert.bytes[8]), (&b"BERT"[..], 48, 1));
        assert_eq!(bert.bytes[36..40], (RECORD_REGION_LEN as u32).to_le_bytes());
        assert_eq!(bert.bytes[40..48], region.start.to_le_bytes());
        // Linux on x86 takes ACPI NVS for its own, and could not request the region.
        let kind = machine.memory.regions.iter().find(|it| it.range == region).expect("a region").kind;
        assert_eq!(kind, RegionKind::Reserved);
    }
}

#[test]
fn a_machine_without_the_region_has_no_table() {
    for machine in machines() {
        let built = build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).expect("tables");
        assert_eq!(built.table("bert"), None);
    }
}

#[test]
fn other_tables_have_no_place_for_it() {
    let mut refused = Vec::new();
    for machine in machines() {
        let machine = machine.with_boot_record();
        for &set in TABLE_SETS {
            if let Err(BuildError::OnlyAcpi { set, .. }) = build(set, &machine, &aarch64::chosen(), &OEM) {
                refused.push(set);
            }
        }
    }
    refused.sort_by_key(|set| set.name());
    assert_eq!(refused, [TableSet::Devicetree, TableSet::MpTable]);
}
