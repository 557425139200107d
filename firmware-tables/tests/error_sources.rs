//! Error sources in the tables: their HEST entries, their records, and the sources that are errors.
#![cfg(all(feature = "acpi", feature = "devicetree", feature = "mptable"))]

#[path = "machine/aarch64.rs"]
mod aarch64;
mod hest;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use firmware_tables::{BuildError, GuestTables, TableSet};
use oem::OEM;
use platform::{AcpiObject, Platform, Range, RegionKind};
use ras_core::{ErrorSource, LayoutError, Notification};

#[test]
fn hest_lists_the_sources_in_their_order() {
    let sources_in_hest = |machine: &Platform| -> Vec<(u16, u8, u32, u32)> {
        let built = build(TableSet::Acpi, machine).unwrap();
        hest::check_records(&built, machine.memory.records.unwrap());
        hest::read(&built.table("hest").unwrap().bytes)
            .iter()
            .map(|source| (source.id, source.notification, source.interval, source.vector))
            .collect()
    };
    assert_eq!(sources_in_hest(&on_x86_64()), [(0, 4, 0, 0), (1, 10, 0, 0), (2, 0, 1000, 0), (3, 1, 0, 6)]);
    assert_eq!(sources_in_hest(&on_aarch64()), [(0, 8, 0, 0), (1, 10, 0, 0)]);
}

#[test]
fn the_record_area_is_the_one_that_hest_points_at() {
    for machine in [on_x86_64(), on_aarch64()] {
        let built = build(TableSet::Acpi, &machine).unwrap();
        let area = built.record_area.as_ref().unwrap();
        let slots: Vec<_> = area.slots().map(|slot| (slot.source.id, slot.cell_gpa, slot.ack_gpa)).collect();
        let listed = hest::read(&built.table("hest").unwrap().bytes);
        assert_eq!(
            slots,
            listed.iter().map(|source| (source.id, source.cell, source.ack)).collect::<Vec<_>>()
        );
        let records = built.table("error-records").unwrap();
        assert_eq!((records.range().start, records.range().len), (area.gpa(), area.bytes()));
        assert_eq!(records.file_name, "error-records.bin");

        let xsdt = &built.table("xsdt").unwrap().bytes[36..];
        let lists = |name| xsdt.chunks(8).any(|entry| entry == built.table(name).unwrap().gpa.to_le_bytes());
        assert!(lists("hest") && !lists("error-records"));
    }
}

#[test]
fn records_have_their_own_memory_region() {
    for machine in [on_x86_64(), on_aarch64()] {
        let records = build(TableSet::Acpi, &machine).unwrap().table("error-records").unwrap().range();
        let holders = machine.memory.regions.iter().filter(|region| region.range.overlaps(records));
        let holders: Vec<_> = holders.map(|region| (region.range, region.kind)).collect();
        assert_eq!(holders, [(records, RegionKind::AcpiNvs)]);
    }
}

#[test]
fn a_machine_without_sources_has_neither_hest_nor_records() {
    let mut area_only = [on_x86_64(), on_aarch64()];
    area_only.iter_mut().for_each(|machine| machine.error_sources.clear());
    for machine in [x86_64::default_machine(), aarch64::default_machine()].iter().chain(&area_only) {
        let without = build(TableSet::Acpi, machine).unwrap();
        assert!(without.table("hest").is_none() && without.table("error-records").is_none());
        assert_eq!(without.record_area, None);
    }
}

#[test]
fn the_madt_lists_the_interrupt_of_a_source_once() {
    let mut machine = x86_64::default_machine();
    let lines = [13, 6, 13, 1].map(|gsi| Notification::External { gsi });
    machine = machine.with_error_sources(sources(&lines));
    let built = build(TableSet::Acpi, &machine).unwrap();
    let (mut rest, mut overrides) = (&built.table("apic").unwrap().bytes[44..], Vec::new());
    while let [kind, len, ..] = rest {
        let (entry, tail) = rest.split_at(usize::from(*len));
        if *kind == 2 {
            assert_eq!((entry.len(), entry[2], entry[5..8].iter().sum::<u8>()), (10, 0, 0), "ISA");
            overrides.push((entry[3], entry[4], entry[8]));
        }
        rest = tail;
    }
    assert_eq!(overrides, [(0, 2, 0), (1, 1, 0b0101), (6, 6, 0b0101), (13, 13, 0b0101)]);
}

#[test]
fn a_source_that_would_not_notify_the_guest_is_an_error() {
    let refused = |machine: Platform, notification: Notification, reason: &str| {
        let error = build(TableSet::Acpi, &machine.with_error_sources(sources(&[notification]))).unwrap_err();
        let name = notification.name();
        assert_eq!(error.to_string(), format!("acpi tables: error source 0 (notification {name}): {reason}"));
    };
    let (on_x86, on_arm) = (x86_64::default_machine, aarch64::default_machine);
    let no_response = "no response on this architecture uses it";
    for notification in [Notification::Sea, Notification::Sei] {
        refused(on_x86(), notification, no_response);
    }
    for notification in [Notification::Nmi, Notification::Sci, Notification::External { gsi: 6 }] {
        refused(on_arm(), notification, no_response);
    }
    for gsi in [0, 2, 16, 256 + 6, u32::MAX] {
        let reason = "its GSI must be that of an ISA interrupt, 1 or 3 to 15 (0 and 2 are the timer's)";
        refused(on_x86(), Notification::External { gsi }, reason);
    }
    for gsi in [4, 5, 8, 9] {
        refused(on_x86(), Notification::External { gsi }, "a device uses its interrupt");
    }

    type Change = fn(&mut Platform);
    let cut: [Change; 3] = [
        |machine| {
            machine.devices.retain(|device| !["ged", "error-device"].contains(&device.name.as_str()));
        },
        |machine| {
            let device = machine.devices.iter_mut().find(|device| device.name == "error-device").unwrap();
            device.role = None;
        },
        |machine| {
            for identity in machine.devices.iter_mut().filter_map(|device| device.acpi.as_mut()) {
                for object in &mut identity.objects {
                    if let AcpiObject::GenericEvents { sources, .. } = object {
                        sources.retain(|source| source.target != "GERR");
                    }
                }
            }
        },
    ];
    for change in cut {
        for mut machine in [on_x86(), on_arm()] {
            change(&mut machine);
            for notification in [Notification::Gsiv, Notification::Gpio] {
                let reason = "no event device notifies an error device (ACPI 6.5, 18.3.2.7.2)";
                refused(machine.clone(), notification, reason);
            }
        }
    }
    let mut alone = on_x86();
    cut[0](&mut alone);
    assert!(build(TableSet::Acpi, &alone.with_error_sources(sources(&[Notification::Nmi]))).is_ok());
}

#[test]
fn a_record_area_that_is_too_small_is_an_error_with_the_length_that_is_needed() {
    let placed = |records| {
        let mut machine = on_x86_64();
        machine.memory.records = records;
        build(TableSet::Acpi, &machine).map(drop)
    };
    let area = on_x86_64().memory.records.unwrap();
    assert_eq!(placed(Some(area)), Ok(()));
    let missing = placed(None).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "acpi tables: error records: 4 error sources need a record area of 0x30000 bytes, and 0x0 are available"
    );
    let reason = LayoutError::TooSmall { sources: 4, needed: 0x3_0000, available: 0x2_ffff };
    let small = BuildError::ErrorRecords { set: TableSet::Acpi, reason };
    assert_eq!(placed(Some(Range { len: 0x2_ffff, ..area })), Err(small));
    let reason = LayoutError::Misaligned { base: area.start - 0x1000 };
    let askew = BuildError::ErrorRecords { set: TableSet::Acpi, reason };
    assert_eq!(placed(Some(Range { start: area.start - 0x1000, ..area })), Err(askew));
}

#[test]
fn a_duplicate_source_id_is_an_error() {
    let twice = [3, 7, 3].map(|id| ErrorSource { id, notification: Notification::Gsiv }).to_vec();
    let error = build(TableSet::Acpi, &x86_64::default_machine().with_error_sources(twice)).unwrap_err();
    let reason = LayoutError::DuplicateId { id: 3 };
    assert_eq!(error, BuildError::ErrorRecords { set: TableSet::Acpi, reason });
}

#[test]
fn other_table_sets_cannot_describe_the_sources() {
    let message = |set, machine| build(set, &machine).unwrap_err().to_string();
    assert_eq!(
        message(TableSet::MpTable, on_x86_64()),
        "mptable tables: cannot describe error sources, and the machine has 4"
    );
    assert_eq!(
        message(TableSet::Devicetree, on_aarch64()),
        "devicetree tables: error source 0 (notification sea): a devicetree requires a source with its own \
         interrupt (external)"
    );
}

#[test]
fn a_device_cannot_be_named_osc() {
    for mut machine in [on_x86_64(), x86_64::default_machine()] {
        machine.devices[1].acpi.as_mut().unwrap().name = "_OSC";
        let error = build(TableSet::Acpi, &machine).unwrap_err();
        assert_eq!(error.to_string(), "device `rtc`: duplicate ACPI name `_OSC`");
    }
}

#[test]
fn a_devicetree_ends_below_error_records() {
    let mut machine = on_aarch64();
    machine.memory = platform::aarch64::memory_map(&platform::aarch64::Layout::REFERENCE, 0x18_0000);
    machine = machine.with_error_sources(aarch64::error_sources());
    let records = machine.memory.records.unwrap();
    assert_eq!(records, Range { start: 0x4015_0000, len: 0x3_0000 });
    let mut chosen = aarch64::chosen();
    assert!(firmware_tables::build(TableSet::Acpi, &machine, &chosen, &OEM).is_ok());
    chosen.command_line = "x".repeat(0x5_0000);
    let error = firmware_tables::build(TableSet::Acpi, &machine, &chosen, &OEM).unwrap_err();
    assert!(matches!(error, BuildError::TooBig { available: 0x5_0000, .. }), "{error}");
}

fn on_x86_64() -> Platform {
    x86_64::default_machine().with_error_sources(x86_64::error_sources())
}

fn on_aarch64() -> Platform {
    aarch64::default_machine().with_error_sources(aarch64::error_sources())
}

/// Sources with ids from 0 up.
fn sources(notifications: &[Notification]) -> Vec<ErrorSource> {
    notifications
        .iter()
        .zip(0..)
        .map(|(notification, id)| ErrorSource { id, notification: *notification })
        .collect()
}

fn build(set: TableSet, machine: &Platform) -> Result<GuestTables, BuildError> {
    firmware_tables::build(set, machine, &aarch64::chosen(), &OEM)
}
