//! EINJ and its trigger table, read as Linux's driver reads them (drivers/acpi/apei). The reader shares no code with the builder.
#![cfg(all(feature = "acpi", feature = "devicetree", feature = "mptable"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use firmware_tables::{BuildError, TableSet};
use oem::OEM;
use platform::{Platform, RegionKind};

/// An instruction: its action, its number, the GPA and the bits of its register, and its value.
type Entry = (u8, u8, u64, u8, u64);

const READ: u8 = 0;
const WRITE: u8 = 2;
const WRITE_VALUE: u8 = 3;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The entries of a list, as strict as `apei_check_gar`.
fn entries(bytes: &[u8]) -> Vec<Entry> {
    assert_eq!(bytes.len() % 32, 0);
    let entry = |entry: &[u8]| {
        assert_eq!(entry[2..4], [0, 0], "no flags");
        let [space, bits, offset, access] = entry[4..8].try_into().unwrap();
        assert_eq!((space, offset), (0, 0), "a whole register in memory");
        assert_eq!(8 << (access - 1), u32::from(bits), "accessed as a whole");
        assert_eq!(u64_at(entry, 24), u64::MAX >> (64 - bits), "every bit");
        (entry[0], entry[1], u64_at(entry, 8), bits, u64_at(entry, 16))
    };
    bytes.chunks(32).map(entry).collect()
}

fn machines() -> [Platform; 2] {
    [
        x86_64::default_machine().with_error_injection(x86_64::error_injection),
        aarch64::default_machine().with_error_injection(aarch64::error_injection),
    ]
}

#[test]
fn every_action_has_its_register() {
    for machine in machines() {
        let built = firmware_tables::build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).unwrap();
        let einj = &built.table("einj").unwrap().bytes;
        assert_eq!((&einj[..4], einj[8], u32_at(einj, 36), u32_at(einj, 40)), (&b"EINJ"[..], 1, 48, 0));
        let found = entries(&einj[48..]);
        assert_eq!(u32_at(einj, 44) as usize, found.len());
        let injection = machine.error_injection.unwrap();
        let register = |number: u64| injection.begin + 8 * number;
        let expected = [
            (0, WRITE_VALUE, register(0), 64, 1),
            (1, READ, register(1), 64, 0),
            (2, WRITE, register(2), 64, 0),
            (3, READ, register(3), 64, 0),
            (4, WRITE_VALUE, register(4), 64, 1),
            (5, WRITE_VALUE, register(5), 64, 1),
            (6, READ, register(6), 64, 0),
            (7, READ, register(7), 64, 0),
            (8, WRITE, injection.parameters, 32, 0),
        ];
        assert_eq!(found, expected);
    }
}

/// In memory of its own kind, which Linux requests as a resource: that must be neither RAM nor ACPI NVS (x86), which are busy.
#[test]
fn the_trigger_table_writes_one_register() {
    for machine in machines() {
        let built = firmware_tables::build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).unwrap();
        let (injection, table) = (machine.error_injection.unwrap(), built.table("einj-trigger").unwrap());
        assert_eq!(table.gpa, injection.trigger_table);
        let table = &table.bytes;
        assert_eq!([0, 8, 12].map(|at| u32_at(table, at)), [16, table.len() as u32, 1]);
        assert_eq!(entries(&table[16..]), [(0xff, WRITE_VALUE, injection.trigger, 64, 1)]);
        let regions = machine.memory.regions.iter();
        let mut regions = regions.filter(|region| region.range.contains(injection.trigger_table));
        let region = regions.next().unwrap();
        assert!(machine.memory.is_ram(region.range) && region.range.contains(injection.parameters));
        assert_eq!((region.kind, region.range.start % 0x1_0000), (RegionKind::Reserved, 0));
    }
}

#[test]
fn machines_without_the_registers_have_no_table() {
    let machine = x86_64::default_machine();
    let built = firmware_tables::build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).unwrap();
    assert!(built.table("einj").is_none());
}

#[test]
fn other_table_sets_refuse_error_injection() {
    let [pc, arm] = machines();
    for (set, machine) in [(TableSet::MpTable, pc), (TableSet::Devicetree, arm)] {
        let refused = firmware_tables::build(set, &machine, &aarch64::chosen(), &OEM);
        assert_eq!(refused, Err(BuildError::ErrorInjection { set }));
    }
}
