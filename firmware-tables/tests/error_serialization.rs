//! ERST, byte for byte, and the error log address range in the memory maps.
#![cfg(all(feature = "acpi", feature = "devicetree", feature = "mptable"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use firmware_tables::{BuildError, TABLE_SETS, TableSet, build};
use oem::OEM;
use platform::{ErrorSerialization, Platform, RegionKind};

fn machines() -> [(Platform, ErrorSerialization); 2] {
    [
        (x86_64::default_machine(), x86_64::error_serialization()),
        (aarch64::default_machine(), aarch64::error_serialization()),
    ]
}

#[test]
fn each_action_is_one_access_to_its_register() {
    for (machine, registers) in machines() {
        let machine = machine.with_error_serialization(registers);
        let log = machine.memory.error_log.expect("a range");
        // Linux requests it as a resource, which it cannot do with ACPI NVS.
        let kind = machine.memory.regions.iter().find(|it| it.range == log).expect("a region").kind;
        assert_eq!(kind, RegionKind::Reserved);
        let built = build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).expect("tables");
        let erst = &built.table("erst").expect("an ERST").bytes;
        assert_eq!((&erst[..4], erst[8], erst.len()), (&b"ERST"[..], 1, 48 + 16 * 32));
        // The length of both headers, and the number of entries.
        assert_eq!((&erst[36..40], &erst[44..48]), (&[48, 0, 0, 0][..], &[16, 0, 0, 0][..]));
        let (read, write, write_value) = (0_u8, 2_u8, 3_u8);
        // Action (18.5.1.1), instruction (18.5.1.2), register and value.
        let expected = [
            (0, write_value, registers.operation, 0),
            (1, write_value, registers.operation, 1),
            (2, write_value, registers.operation, 2),
            (3, write_value, registers.end, 1),
            (4, write, registers.offset, 0),
            (5, write_value, registers.execute, 1),
            (6, read, registers.busy, 0),
            (7, read, registers.status, 0),
            (8, read, registers.record_id, 0),
            (9, write, registers.record_id, 0),
            (10, read, registers.count, 0),
            (11, write_value, registers.operation, 11),
            (13, read, registers.log_address, 0),
            (14, read, registers.log_len, 0),
            (15, read, registers.log_attributes, 0),
            (16, read, registers.timings, 0),
        ];
        for (entry, (action, instruction, register, value)) in erst[48..].chunks(32).zip(expected) {
            assert_eq!(entry[..4], [action, instruction, 0, 0]);
            // System memory, 64 bits from bit 0 on, accessed as a whole.
            assert_eq!(entry[4..8], [0, 64, 0, 4], "{action}");
            assert_eq!(entry[8..16], register.to_le_bytes(), "{action}");
            assert_eq!(
                (&entry[16..24], &entry[24..]),
                (&u64::to_le_bytes(value)[..], &[0xff; 8][..]),
                "{action}"
            );
        }
    }
}

#[test]
fn a_machine_without_the_registers_has_no_table_and_one_without_the_memory_has_no_tables() {
    for (machine, registers) in machines() {
        let built = build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM).expect("tables");
        assert_eq!(built.table("erst"), None);
        let mut machine = machine.with_error_serialization(registers);
        machine.memory.error_log = None;
        let refused = build(TableSet::Acpi, &machine, &aarch64::chosen(), &OEM);
        assert_eq!(refused, Err(BuildError::NoErrorLog { set: TableSet::Acpi }));
    }
}

#[test]
fn other_tables_have_no_place_for_it() {
    let mut refused = Vec::new();
    for (machine, registers) in machines() {
        let machine = machine.with_error_serialization(registers);
        for &set in TABLE_SETS {
            if let Err(BuildError::OnlyAcpi { set, .. }) = build(set, &machine, &aarch64::chosen(), &OEM) {
                refused.push(set);
            }
        }
    }
    refused.sort_by_key(|set| set.name());
    assert_eq!(refused, [TableSet::Devicetree, TableSet::MpTable]);
}
