//! What holds for every machine.
#![cfg(all(feature = "acpi", feature = "mptable"))]

mod machine;

use firmware_tables::{GuestTables, TABLE_SETS, table_set};
use platform::{AcpiObject, Interrupt, Platform, Trigger, Window};
use proptest::prelude::*;

/// The length that a table says it has, or that the specification gives it.
fn stated_len(name: &str, bytes: &[u8]) -> usize {
    match name {
        "rsdp" => 36,
        "mpfp" => 16,
        "mptable" => usize::from(u16::from_le_bytes([bytes[4], bytes[5]])),
        _ => u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize,
    }
}

fn check_layout(machine: &Platform, built: &GuestTables) -> Result<(), TestCaseError> {
    let area = machine.memory.tables;
    for table in &built.tables {
        let range = table.range();
        prop_assert!(range.start >= area.start && range.end() <= area.end(), "{range:x?}");
        prop_assert!(machine.memory.is_ram(range));
        prop_assert_eq!(range.start % 64, 0);
        prop_assert_eq!(stated_len(table.name, &table.bytes), table.bytes.len(), "{}", table.name);
        prop_assert_eq!(table.bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        prop_assert!(table.file_name.starts_with(table.name));
    }
    for pair in built.tables.windows(2) {
        prop_assert!(pair[0].range().end() <= pair[1].gpa, "in order, and apart");
    }
    prop_assert_eq!(built.entry.gpa(), built.tables[0].gpa);
    Ok(())
}

fn check_xsdt(built: &GuestTables) -> Result<(), TestCaseError> {
    let rsdp = &built.tables[0].bytes;
    let xsdt = built.table("xsdt").unwrap();
    prop_assert_eq!(&rsdp[24..32], &xsdt.gpa.to_le_bytes()[..]);
    let listed: Vec<&[u8]> = xsdt.bytes[36..].chunks(8).collect();
    for table in built.tables.iter().filter(|table| !["rsdp", "xsdt", "dsdt"].contains(&table.name)) {
        prop_assert!(listed.contains(&&table.gpa.to_le_bytes()[..]), "{}", table.name);
    }
    Ok(())
}

fn any_window() -> impl Strategy<Value = Window> {
    prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(base, len)| Window::Ports { base, len }),
        (any::<u64>(), any::<u64>()).prop_map(|(base, len)| Window::Mmio { base, len }),
        (any::<u32>(), any::<u32>())
            .prop_map(|(base, len)| Window::Mmio { base: base.into(), len: len.into() }),
    ]
}

fn any_interrupt() -> impl Strategy<Value = Interrupt> {
    let trigger = prop_oneof![Just(Trigger::Edge), Just(Trigger::Level)];
    (prop_oneof![0..30u32, any::<u32>()], trigger).prop_map(|(gsi, trigger)| Interrupt { gsi, trigger })
}

fn any_name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "COM1", "VR00", "PWRB", "_CRS", "C000", "", "A", "lower", "ÄÖ", "1234", "TOOLONG",
    ])
}

fn any_object() -> impl Strategy<Value = AcpiObject> {
    prop_oneof![
        (any_name(), any::<u64>()).prop_map(|(name, value)| AcpiObject::Integer { name, value }),
        (any_name(), any::<String>()).prop_map(|(name, value)| AcpiObject::Text { name, value }),
        (any_window(), any::<u32>(), any_name(), any::<u8>()).prop_map(|(selector, mask, target, value)| {
            let sources = vec![platform::EventSource { mask, target, value }];
            AcpiObject::GenericEvents { selector, sources }
        }),
    ]
}

proptest! {
    #[test]
    fn every_ordinary_machine_is_described(
        vcpus in 1..=512u32,
        memory in (2u64 << 20)..(1 << 40),
        transports in 0..=64usize,
    ) {
        let machine = machine::machine(vcpus, memory, transports);
        let acpi = table_set("acpi").unwrap().build(&machine).unwrap();
        check_layout(&machine, &acpi)?;
        check_xsdt(&acpi)?;
        let mp = table_set("mptable").unwrap().build(&machine);
        prop_assert_eq!(mp.is_ok(), vcpus <= 255);
        if let Ok(mp) = mp {
            check_layout(&machine, &mp)?;
        }
    }

    #[test]
    fn every_odd_machine_is_described_or_refused(
        cpus in proptest::collection::vec((any::<u32>(), any::<u64>()), 0..4),
        windows in proptest::collection::vec(any_window(), 0..3),
        interrupts in proptest::collection::vec(any_interrupt(), 0..3),
        name in any_name(),
        hid in proptest::sample::select(vec!["PNP0501", "ACPI0013", "", "PNP", "ABCDEFG", "éééé", "PNP050É"]),
        objects in proptest::collection::vec(any_object(), 0..3),
    ) {
        let mut machine = machine::default_machine();
        if !cpus.is_empty() {
            machine.cpus =
                cpus.into_iter().map(|(index, hardware_id)| platform::Cpu { index, hardware_id }).collect();
        }
        let device = &mut machine.devices[0];
        device.windows = windows;
        device.interrupts = interrupts;
        if let Some(identity) = &mut device.acpi {
            identity.name = name;
            identity.hid = hid;
            identity.objects = objects;
        }
        for set in TABLE_SETS {
            match set.build(&machine) {
                Ok(built) => check_layout(&machine, &built)?,
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
