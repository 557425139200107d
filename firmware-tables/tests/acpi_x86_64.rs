//! The ACPI tables of an x86_64 machine, read as an operating system reads them, starting at the RSDP. The reader shares
//! no code with the builder.
#![cfg(feature = "acpi")]

#[path = "machine/x86_64.rs"]
mod machine;
mod oem;

use std::collections::BTreeMap;

use firmware_tables::{BuildError, EntryPoint, GuestTables, Table, TableSet};
use machine::{default_machine, error_sources, machine};
use oem::OEM;
use platform::{AcpiObject, Arch, Chosen, DeviceRole, Platform, PowerControl, Range, Window, x86_64};

#[test]
fn the_rsdp_leads_to_all_tables() {
    let built = build(&default_machine()).unwrap();
    let tables = walk(&built);
    assert_eq!(
        tables.keys().map(String::as_str).collect::<Vec<_>>(),
        ["APIC", "DSDT", "FACP", "SPCR", "XSDT"]
    );
    assert_eq!(built.entry, EntryPoint::Rsdp { gpa: x86_64::TABLES_START });
    assert_eq!(built.tables.len(), 6, "and the RSDP itself");

    let built = build(&default_machine().with_error_sources(error_sources())).unwrap();
    let more: Vec<String> = walk(&built).into_keys().collect();
    assert_eq!(more, ["APIC", "DSDT", "FACP", "HEST", "SPCR", "XSDT"]);
    assert_eq!(built.tables.len(), 8, "and the error records");
}

/// The FADT says 6.3; the other tables have the revisions of that version.
#[test]
fn all_tables_are_of_one_version() {
    let tables = walk(&build(&default_machine().with_error_sources(error_sources())).unwrap());
    let revision = |signature: &str| tables[signature][8];
    assert_eq!((revision("FACP"), tables["FACP"][131]), (6, 3), "FADT Minor Version");
    assert_eq!(["APIC", "HEST", "DSDT", "XSDT"].map(revision), [5, 1, 2, 1]);
}

#[test]
fn the_same_machine_gives_the_same_bytes() {
    assert_eq!(build(&default_machine()), build(&default_machine()));
    assert_ne!(build(&default_machine()), build(&machine(3, 6 << 30, 1)));
}

#[test]
fn every_processor_has_an_entry_of_the_width_its_id_needs() {
    for vcpus in [1, 2, 8, 254, 255, 256, 512] {
        let built = build(&machine(vcpus, 1 << 30, 1)).unwrap();
        let madt = &walk(&built)["APIC"];
        let (mut narrow, mut wide, mut narrow_nmi, mut wide_nmi) = (Vec::new(), Vec::new(), 0, 0);
        let mut rest = &madt[44..];
        while let [kind, len, ..] = rest {
            let entry = &rest[..usize::from(*len)];
            match kind {
                0 => {
                    assert_eq!(entry[4..], [1, 0, 0, 0], "enabled");
                    narrow.push((u32::from(entry[2]), u32::from(entry[3])));
                }
                1 => assert_eq!((u32_at(entry, 4), u32_at(entry, 8)), (0xfec0_0000, 0)),
                2 => assert_eq!(entry[2..], [0, 0, 2, 0, 0, 0, 0, 0], "the timer, and nothing else"),
                4 => narrow_nmi += 1,
                9 => {
                    assert_eq!(u32_at(entry, 8), 1, "enabled");
                    wide.push((u32_at(entry, 12), u32_at(entry, 4)));
                }
                10 => wide_nmi += 1,
                other => panic!("MADT entry of type {other}"),
            }
            rest = &rest[usize::from(*len)..];
        }
        let expected = |range: std::ops::Range<u32>| range.map(|id| (id, id)).collect::<Vec<_>>();
        assert_eq!(narrow, expected(0..vcpus.min(255)), "{vcpus} processors");
        assert_eq!(wide, expected(255.min(vcpus)..vcpus), "{vcpus} processors");
        assert_eq!((narrow_nmi, wide_nmi), (1, u32::from(vcpus > 255)));
    }
}

#[test]
fn five_hundred_and_twelve_processors_leave_most_of_the_area_free() {
    let machine = machine(512, 1 << 30, 13);
    let last = build(&machine).unwrap().tables.last().unwrap().range().end();
    let used = last - machine.memory.tables.start;
    assert!(used < 48 << 10, "{used} bytes");
}

#[test]
fn the_fadt_describes_the_clock_and_the_keyboard_controller() {
    let flags = |machine: &Platform| {
        let built = build(machine).unwrap();
        let facp = &built.table("facp").unwrap().bytes;
        u16::from_le_bytes([facp[109], facp[110]])
    };
    const LEGACY: u16 = 1;
    const KEYBOARD: u16 = 2;
    const NO_VGA: u16 = 4;
    const NO_CLOCK: u16 = 32;

    let mut machine = default_machine();
    assert_eq!(flags(&machine), LEGACY | NO_VGA);
    let serial = machine.devices.iter_mut().find(|device| device.name == "serial0").unwrap();
    serial.role = Some(DeviceRole::KeyboardController);
    assert_eq!(flags(&machine), LEGACY | KEYBOARD | NO_VGA);
    machine.devices.clear();
    assert_eq!(flags(&machine), NO_VGA | NO_CLOCK);
}

#[test]
fn a_console_that_is_not_a_serial_port_has_no_spcr() {
    let mut machine = default_machine();
    machine.console = None;
    assert!(build(&machine).unwrap().table("spcr").is_none());
    machine.console = Some("virtio0");
    assert!(build(&machine).unwrap().table("spcr").is_none());
}

#[test]
fn tables_may_fill_their_area_but_not_exceed_it() {
    let mut machine = default_machine();
    let start = machine.memory.tables.start;
    let needed = build(&machine).unwrap().tables.last().unwrap().range().end() - start;
    machine.memory.tables = Range { start, len: needed };
    assert!(build(&machine).is_ok());
    machine.memory.tables.len -= 1;
    let too_big = BuildError::TooBig { set: TableSet::Acpi, needed, available: needed - 1, start };
    assert_eq!(
        too_big.to_string(),
        format!("acpi tables: {needed} bytes do not fit into the {} bytes at 0xe0000", needed - 1)
    );
    assert_eq!(build(&machine), Err(too_big));
}

#[test]
fn what_cannot_be_described_is_an_error_that_names_it() {
    type Change = fn(&mut Platform);
    let cases: &[(Change, &str)] = &[
        (
            |m| m.arch = Arch::Aarch64,
            "acpi tables: the interrupt controller is not one of an aarch64 machine",
        ),
        (
            |m| m.power = PowerControl::PsciHvc,
            "acpi tables: power control: expected sleep and reset registers of one byte each (ACPI 6.5, 4.8.3.6 and \
             4.8.3.7), got PsciHvc",
        ),
        (
            |m| m.cpus[1].hardware_id = 1 << 32,
            "MADT: processor 1: APIC id 4294967296: an x2APIC id has at most 32 bits (ACPI 6.5, 5.2.12.12)",
        ),
        (
            |m| m.cpus[1].index = 255,
            "MADT: processor 255: APIC id 1: with an id below 255, the processor UID is at most 254 (ACPI 6.5, 5.2.12.2)",
        ),
        (
            |m| m.devices[0].windows.push(Window::Ports { base: 0xffff, len: 2 }),
            "device `serial0`: register window Ports { base: ffff, len: 2 }: empty, or beyond the end of its address space",
        ),
        (
            |m| m.devices[0].windows.push(Window::Mmio { base: 0, len: 0 }),
            "device `serial0`: register window Mmio { base: 0, len: 0 }: empty, or beyond the end of its address space",
        ),
        (
            |m| m.devices[0].acpi.as_mut().unwrap().name = "com1",
            "device `serial0`: `com1` is not an ACPI name: four characters of A-Z, 0-9 and _, the first not a digit \
             (ACPI 6.5, 20.2.2)",
        ),
        (|m| m.devices[1].acpi.as_mut().unwrap().name = "COM1", "device `rtc`: duplicate ACPI name `COM1`"),
        (|m| m.devices[1].acpi.as_mut().unwrap().name = "C001", "device `rtc`: duplicate ACPI name `C001`"),
        (
            |m| object(m, AcpiObject::Integer { name: "_CRS", value: 0 }),
            "device `serial0`: duplicate ACPI name `_CRS`",
        ),
        (
            |m| object(m, AcpiObject::Text { name: "_STR", value: "naïve".into() }),
            "device `serial0`: `_STR`: an ACPI string consists of printable ASCII characters",
        ),
        (
            |m| object(m, AcpiObject::Integers { name: "NUMS", values: vec![0; 256] }),
            "device `serial0`: `NUMS`: 256 elements, the limit of a package is 255 (ACPI 6.5, 20.2.5.4)",
        ),
        (
            |m| m.devices[0].acpi.as_mut().unwrap().hid = "PNP501",
            "device `serial0`: _HID `PNP501` is neither an EISA id (PNP0501) nor an ACPI id (ACPI0013) (ACPI 6.5, 6.1.5)",
        ),
        (
            |m| m.devices.retain(|device| device.name != "power-button"),
            "device `ged`: event target `PWRB`: no device has this ACPI name",
        ),
        (
            |m| {
                let selector = Window::Ports { base: 0, len: 1 };
                object(m, AcpiObject::GenericEvents { selector, sources: Vec::new() });
            },
            "device `serial0`: event selector Ports { base: 0, len: 1 }: must be 4 bytes long",
        ),
    ];
    for (change, message) in cases {
        let mut machine = default_machine();
        change(&mut machine);
        assert_eq!(build(&machine).unwrap_err().to_string(), *message);
    }
    let many = build(&machine(4097, 1 << 30, 0)).unwrap_err();
    assert_eq!(many, BuildError::TooManyCpus { table: "DSDT", cpus: 4097, limit: 4096 });
}

/// The boot protocol carries boot parameters, so they do not change the tables.
fn build(machine: &Platform) -> Result<GuestTables, BuildError> {
    let chosen = Chosen { command_line: "quiet".into(), ..Chosen::default() };
    let built = firmware_tables::build(TableSet::Acpi, machine, &chosen, &OEM);
    assert_eq!(built, firmware_tables::build(TableSet::Acpi, machine, &Chosen::default(), &OEM));
    built
}

fn object(machine: &mut Platform, object: AcpiObject) {
    machine.devices[0].acpi.as_mut().unwrap().objects.push(object);
}

/// All tables that the entry point leads to, by signature; checksums, lengths and OEM fields are checked.
fn walk(built: &GuestTables) -> BTreeMap<String, Vec<u8>> {
    let at =
        |gpa: u64| -> &Table { built.tables.iter().find(|table| table.gpa == gpa).expect("a table there") };
    let EntryPoint::Rsdp { gpa } = built.entry else { panic!("{:?}", built.entry) };
    let rsdp = &at(gpa).bytes;
    assert_eq!((&rsdp[..8], rsdp.len(), rsdp[15], u32_at(rsdp, 20)), (&b"RSD PTR "[..], 36, 2, 36));
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));

    let mut found = BTreeMap::new();
    let mut read = |gpa: u64| {
        let bytes = at(gpa).bytes.clone();
        assert_eq!(u32_at(&bytes, 4) as usize, bytes.len());
        assert_eq!(sum(&bytes), 0);
        assert_eq!((&bytes[10..24], &bytes[28..32]), (&b"GHEST GHESTVMM"[..], &b"GHST"[..]));
        let signature = String::from_utf8(bytes[..4].to_vec()).unwrap();
        assert!(found.insert(signature, bytes.clone()).is_none(), "listed twice");
        bytes
    };
    let xsdt = read(u64_at(rsdp, 24));
    for entry in xsdt[36..].chunks(8) {
        let table = read(u64_at(entry, 0));
        if table.starts_with(b"FACP") {
            read(u64_at(&table, 140));
        }
    }
    found
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
