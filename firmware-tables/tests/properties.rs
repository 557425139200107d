//! Properties of the tables of every machine.
#![cfg(all(feature = "acpi", feature = "devicetree", feature = "mptable"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod hest;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use std::collections::BTreeSet;

use firmware_tables::{BuildError, GuestTables, TABLE_SETS, TableSet};
use oem::OEM;
use platform::aarch64::Features;
use platform::{
    AcpiObject, Arch, Chosen, DeviceRole, Interrupt, InterruptController, Platform, Property, Trigger, Window,
};
use proptest::prelude::*;
use ras_core::{ErrorSource, Notification};

/// The length in a table's header or in its specification. `None` if there is neither.
fn stated_len(name: &str, bytes: &[u8]) -> Option<usize> {
    Some(match name {
        "rsdp" => 36,
        "mpfp" => 16,
        "mptable" => usize::from(u16::from_le_bytes([bytes[4], bytes[5]])),
        "platform" => u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize,
        "efi-system-table" => 120,
        "efi-runtime-properties" => 8,
        "efi-memory-reservations" => 16,
        name if name.starts_with("efi-") || name == "error-records" => return None,
        _ => u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize,
    })
}

fn check_layout(machine: &Platform, built: &GuestTables) -> Result<(), TestCaseError> {
    for table in &built.tables {
        let range = table.range();
        let (area, balanced) = match table.name {
            "platform" => (machine.memory.devicetree.unwrap(), false),
            "error-records" => (machine.memory.records.unwrap(), false),
            name => (machine.memory.tables, !name.starts_with("efi-")),
        };
        prop_assert!(range.start >= area.start && range.end() <= area.end(), "{range:x?}");
        prop_assert!(machine.memory.is_ram(range));
        prop_assert_eq!(range.start % 64, 0);
        let stated = stated_len(table.name, &table.bytes).unwrap_or(table.bytes.len());
        prop_assert_eq!(stated, table.bytes.len(), "{}", table.name);
        let sum = table.bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        prop_assert!(!balanced || sum == 0, "{}", table.name);
        prop_assert!(table.file_name.starts_with(table.name));
    }
    for pair in built.tables.windows(2) {
        prop_assert!(pair[0].range().end() <= pair[1].gpa, "ascending, without overlap");
    }
    prop_assert_eq!(built.record_area.is_some(), !machine.error_sources.is_empty());
    if let Some(records) = machine.memory.records.filter(|_| built.table("hest").is_some()) {
        hest::check_records(built, records);
    }
    let entry = built.tables.iter().find(|table| table.gpa == built.entry.gpa());
    prop_assert!(entry.is_some_and(|table| ["rsdp", "mpfp", "platform"].contains(&table.name)));
    Ok(())
}

fn check_xsdt(built: &GuestTables) -> Result<(), TestCaseError> {
    let rsdp = &built.tables[0].bytes;
    let xsdt = built.table("xsdt").unwrap();
    prop_assert_eq!(&rsdp[24..32], &xsdt.gpa.to_le_bytes()[..]);
    let listed: Vec<&[u8]> = xsdt.bytes[36..].chunks(8).collect();
    let unlisted = ["xsdt.aml", "dsdt.aml"];
    for table in built
        .tables
        .iter()
        .filter(|table| table.file_name.ends_with(".aml") && !unlisted.contains(&table.file_name))
    {
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
        (any_name(), proptest::collection::vec(any::<u64>(), 0..300))
            .prop_map(|(name, values)| AcpiObject::Integers { name, values }),
        (any_window(), any::<u32>(), any_name(), any::<u8>()).prop_map(|(selector, mask, target, value)| {
            let sources = vec![platform::EventSource { mask, target, value }];
            AcpiObject::GenericEvents { selector, sources }
        }),
    ]
}

fn any_property() -> impl Strategy<Value = (&'static str, Property)> {
    let name = proptest::sample::select(vec!["clocks", "reg", "a,b#c", "", "a b", "ä", "dma-coherent"]);
    let device = proptest::sample::select(vec!["apb-pclk", "power-button", "serial0", "ged", "", "nobody"]);
    let value = prop_oneof![
        Just(Property::Flag),
        proptest::collection::vec(any::<u32>(), 0..4).prop_map(Property::Cells),
        proptest::collection::vec(any::<String>(), 0..3).prop_map(Property::Text),
        device.prop_map(|device| Property::Devices(vec![(device, vec![1])])),
    ];
    (name, value)
}

fn any_source() -> impl Strategy<Value = ErrorSource> {
    let gsi = || prop_oneof![0..20u32, any::<u32>()];
    let notification = prop_oneof![
        any::<std::num::NonZeroU32>().prop_map(|interval_ms| Notification::Polled { interval_ms }),
        gsi().prop_map(|gsi| Notification::External { gsi }),
        Just(Notification::Nmi),
        Just(Notification::Gpio),
        Just(Notification::Sci),
        Just(Notification::Sea),
        Just(Notification::Sei),
        Just(Notification::Gsiv),
    ];
    (any::<u16>(), notification).prop_map(|(id, notification)| ErrorSource { id, notification })
}

/// Whether that machine can have the source.
fn suits(machine: &Platform, source: &ErrorSource) -> bool {
    let mut interrupts = machine.devices.iter().flat_map(|device| &device.interrupts);
    match source.notification {
        Notification::Polled { .. } | Notification::Gpio | Notification::Gsiv => true,
        Notification::Sea | Notification::Sei => machine.arch == Arch::Aarch64,
        Notification::Nmi | Notification::Sci => machine.arch == Arch::X86_64,
        Notification::External { gsi } => {
            let line = (1..16).contains(&gsi) && gsi != 2;
            machine.arch == Arch::X86_64 && line && interrupts.all(|interrupt| interrupt.gsi != gsi)
        }
        other => panic!("{other} is not generated by this test"),
    }
}

fn any_role() -> impl Strategy<Value = DeviceRole> {
    proptest::sample::select(vec![
        DeviceRole::Ns16550,
        DeviceRole::Pl011,
        DeviceRole::CmosRtc,
        DeviceRole::KeyboardController,
        DeviceRole::ErrorDevice,
    ])
}

fn any_features() -> impl Strategy<Value = Features> {
    (prop_oneof![Just(2), Just(3)], any::<bool>())
        .prop_map(|(gic, performance_monitors)| Features { gic, performance_monitors })
}

fn build(set: TableSet, machine: &Platform) -> Result<GuestTables, BuildError> {
    firmware_tables::build(set, machine, &aarch64::chosen(), &OEM)
}

proptest! {
    #[test]
    fn every_valid_aarch64_machine_is_described(
        vcpus in 1..=512u32,
        features in any_features(),
        its in any::<bool>(),
        transports in 0..=64usize,
        pages in 0x400u64..(1 << 28),
    ) {
        let mut machine = aarch64::machine(vcpus, features, transports);
        if let InterruptController::Gicv3 { its: placed, .. } = &mut machine.interrupts {
            *placed = its.then_some(platform::aarch64::Layout::REFERENCE.gic_its);
        }
        machine.memory = platform::aarch64::memory_map(&platform::aarch64::Layout::REFERENCE, pages << 12);
        for set in [TableSet::Acpi, TableSet::Devicetree] {
            let built = build(set, &machine);
            prop_assert_eq!(built.is_ok(), features.gic == 3 || vcpus <= 8);
            if let Ok(built) = built {
                check_layout(&machine, &built)?;
            }
        }
        if let Ok(acpi) = build(TableSet::Acpi, &machine) {
            check_xsdt(&acpi)?;
        }
    }

    #[test]
    fn every_valid_x86_64_machine_is_described(
        vcpus in 1..=512u32,
        memory in (2u64 << 20)..(1 << 40),
        transports in 0..=64usize,
    ) {
        let machine = x86_64::machine(vcpus, memory, transports);
        let acpi = build(TableSet::Acpi, &machine).unwrap();
        check_layout(&machine, &acpi)?;
        check_xsdt(&acpi)?;
        let mp = build(TableSet::MpTable, &machine);
        prop_assert_eq!(mp.is_ok(), vcpus <= 255);
        if let Ok(mp) = mp {
            check_layout(&machine, &mp)?;
        }
    }

    #[test]
    fn error_sources_are_described_or_an_error(
        on_arm in any::<bool>(),
        mut sources in proptest::collection::vec(any_source(), 1..24),
        possible in any::<bool>(),
        pages in 0x200u64..0x600,
    ) {
        let mut machine = if on_arm { aarch64::default_machine() } else { x86_64::default_machine() };
        machine.memory = match machine.arch {
            Arch::Aarch64 => platform::aarch64::memory_map(&platform::aarch64::Layout::REFERENCE, pages << 12),
            Arch::X86_64 => platform::x86_64::memory_map(&platform::x86_64::Layout::REFERENCE, pages << 12),
        };
        if possible {
            sources.retain(|source| suits(&machine, source));
        }
        let distinct = sources.iter().map(|source| source.id).collect::<BTreeSet<_>>().len() == sources.len();
        let suited = sources.iter().all(|source| suits(&machine, source));
        let machine = machine.with_error_sources(sources);
        let has_area = machine.memory.records.is_some() || machine.error_sources.is_empty();

        let built = build(TableSet::Acpi, &machine);
        prop_assert_eq!(built.is_ok(), distinct && suited && has_area, "{:?}", built.err());
        if let Ok(built) = built {
            check_layout(&machine, &built)?;
            check_xsdt(&built)?;
            let listed = built.table("hest").map_or(Vec::new(), |table| hest::read(&table.bytes));
            let listed: Vec<_> = listed
                .iter()
                .map(|source| (source.id, source.notification, source.interval, source.vector))
                .collect();
            let expected = machine.error_sources.iter().map(|source| {
                let (number, interval, vector) = match source.notification {
                    Notification::Polled { interval_ms } => (0, interval_ms.get(), 0),
                    Notification::External { gsi } => (1, 0, gsi),
                    Notification::Sci => (3, 0, 0),
                    Notification::Nmi => (4, 0, 0),
                    Notification::Gpio => (7, 0, 0),
                    Notification::Sea => (8, 0, 0),
                    Notification::Sei => (9, 0, 0),
                    Notification::Gsiv => (10, 0, 0),
                    other => panic!("{other} is not generated by this test"),
                };
                (source.id, number, interval, vector)
            });
            prop_assert_eq!(listed, expected.collect::<Vec<_>>());
        }
        for set in [TableSet::Devicetree, TableSet::MpTable] {
            let other = build(set, &machine);
            prop_assert!(other.is_err() || machine.error_sources.is_empty());
        }
    }

    #[test]
    fn every_arbitrary_machine_is_described_or_an_error(
        on_arm in any::<bool>(),
        cpus in proptest::collection::vec((any::<u32>(), any::<u64>()), 0..4),
        windows in proptest::collection::vec(any_window(), 0..3),
        interrupts in proptest::collection::vec(any_interrupt(), 0..3),
        name in any_name(),
        hid in proptest::sample::select(vec!["PNP0501", "ACPI0013", "", "PNP", "ABCDEFG", "éééé", "PNP050É"]),
        objects in proptest::collection::vec(any_object(), 0..3),
        properties in proptest::collection::vec(any_property(), 0..3),
        role in proptest::option::of(any_role()),
        command_line in any::<String>(),
        sources in proptest::collection::vec(any_source(), 0..3),
    ) {
        let mut machine = if on_arm { aarch64::default_machine() } else { x86_64::default_machine() };
        if !cpus.is_empty() {
            machine.cpus =
                cpus.into_iter().map(|(index, hardware_id)| platform::Cpu { index, hardware_id }).collect();
        }
        let device = &mut machine.devices[0];
        device.windows = windows;
        device.interrupts = interrupts;
        device.role = role;
        if let Some(identity) = &mut device.acpi {
            identity.name = name;
            identity.hid = hid;
            identity.objects = objects;
        }
        if let Some(identity) = &mut device.devicetree {
            identity.properties = properties;
        }
        let machine = machine.with_error_sources(sources);
        let chosen = Chosen { command_line, ..aarch64::chosen() };
        for &set in TABLE_SETS {
            match firmware_tables::build(set, &machine, &chosen, &OEM) {
                Ok(built) => check_layout(&machine, &built)?,
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
