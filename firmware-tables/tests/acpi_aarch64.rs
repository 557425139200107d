//! The ACPI tables of an aarch64 machine, read as a kernel reads them: from `/chosen` to the EFI tables, to the RSDP and
//! the tables behind it. The reader shares no code with the builder.
#![cfg(feature = "acpi")]

#[path = "machine/aarch64.rs"]
mod machine;

mod hand_over;
mod oem;
mod tree;

use std::mem::offset_of;

use firmware_tables::{BuildError, GuestTables, TableSet};
use hand_over::{at, configuration, crc32, devicetree, entries, memory_map, u32_at, u64_at, walk};
use machine::{ALL, chosen, default_machine, error_sources};
use oem::OEM;
use platform::aarch64::{self, Features};
use platform::{Arch, Chosen, Platform, PowerControl, Range, Region, RegionKind};
use r_efi::system::{self, SystemTable};

const GICV2: Features = Features { gic: 2, performance_monitors: false };
/// LINUX_EFI_MEMRESERVE_TABLE_GUID (Linux, include/linux/efi.h).
const RESERVATIONS: [u8; 16] =
    [0xc6, 0xb0, 0x8e, 0x88, 0xde, 0x8e, 0xf5, 0x4f, 0xa8, 0xf0, 0x9a, 0xee, 0x5c, 0xb9, 0x77, 0xc2];

#[test]
fn chosen_leads_to_all_tables() {
    let built = build(&default_machine()).unwrap();
    let tables = walk(&built);
    assert_eq!(
        tables.keys().map(String::as_str).collect::<Vec<_>>(),
        ["APIC", "DBG2", "DSDT", "FACP", "GTDT", "PPTT", "SPCR", "XSDT"]
    );
    let with_sources = default_machine().with_error_sources(error_sources());
    let more: Vec<String> = walk(&build(&with_sources).unwrap()).into_keys().collect();
    assert_eq!(more, ["APIC", "DBG2", "DSDT", "FACP", "GTDT", "HEST", "PPTT", "SPCR", "XSDT"]);
    let names: Vec<&str> = built.tables.iter().map(|table| table.file_name).collect();
    assert_eq!(
        names,
        [
            "rsdp.bin",
            "dsdt.aml",
            "facp.aml",
            "apic.aml",
            "gtdt.aml",
            "pptt.aml",
            "spcr.aml",
            "dbg2.aml",
            "xsdt.aml",
            "efi-vendor.bin",
            "efi-runtime-properties.bin",
            "efi-memory-reservations.bin",
            "efi-configuration-table.bin",
            "efi-system-table.bin",
            "efi-memory-map.bin",
            "platform.dtb",
        ]
    );
    assert_eq!(built, build(&default_machine()).unwrap(), "the same machine gives the same bytes");
}

/// The FADT says 6.3; the other tables have the revisions of that version.
#[test]
fn all_tables_are_of_one_version() {
    let tables = walk(&build(&default_machine().with_error_sources(error_sources())).unwrap());
    let revision = |signature: &str| tables[signature][8];
    assert_eq!((revision("FACP"), tables["FACP"][131]), (6, 3), "FADT Minor Version");
    assert_eq!(["APIC", "GTDT", "PPTT", "HEST", "DSDT", "XSDT"].map(revision), [5, 3, 2, 1, 2, 1]);
    assert_eq!((tables["GTDT"].len(), &tables["GTDT"][96..]), (104, &[0; 8][..]), "no virtual timer of EL2");
    assert_eq!((tables["APIC"][44], tables["APIC"][45]), (0xb, 80), "a GICC of ACPI 6.3");
}

#[test]
fn the_devicetree_contains_only_chosen() {
    let root = devicetree(&build(&default_machine()).unwrap());
    assert_eq!(root.names(), ["chosen"]);
    let properties: Vec<&str> = root.at("chosen").properties.keys().map(String::as_str).collect();
    assert_eq!(
        properties,
        [
            "bootargs",
            "kaslr-seed",
            "linux,initrd-end",
            "linux,initrd-start",
            "linux,uefi-mmap-desc-size",
            "linux,uefi-mmap-desc-ver",
            "linux,uefi-mmap-size",
            "linux,uefi-mmap-start",
            "linux,uefi-secure-boot",
            "linux,uefi-system-table",
            "rng-seed",
        ]
    );
    let node = root.at("chosen");
    assert_eq!(node.texts("bootargs"), ["console=ttyAMA0 panic=-1"]);
    assert_eq!(node.cells("linux,uefi-secure-boot"), [2], "disabled");
    assert_eq!(node.cells("linux,uefi-mmap-desc-ver"), [1]);
    assert_eq!(node.cells("linux,uefi-mmap-desc-size"), [48]);

    let silent =
        firmware_tables::build(TableSet::Acpi, &default_machine(), &Chosen::default(), &OEM).unwrap();
    let without = devicetree(&silent);
    assert!(
        !["kaslr-seed", "rng-seed", "linux,initrd-start"].iter().any(|name| without.at("chosen").has(name))
    );
}

#[test]
fn the_efi_system_table_is_valid() {
    let built = build(&default_machine()).unwrap();
    let root = devicetree(&built);
    let bytes = at(&built, root.at("chosen").wide("linux,uefi-system-table")[0]);
    assert_eq!(bytes.len(), size_of::<SystemTable>());
    assert_eq!(u64_at(bytes, 0), system::SYSTEM_TABLE_SIGNATURE);
    assert_eq!(u32_at(bytes, 8), system::SYSTEM_TABLE_REVISION_2_70);
    assert_eq!(u32_at(bytes, 12) as usize, bytes.len());
    let mut unsigned = bytes.to_vec();
    unsigned[16..20].fill(0);
    assert_eq!(u32_at(bytes, 16), crc32(&unsigned));
    let vendor = at(&built, u64_at(bytes, offset_of!(SystemTable, firmware_vendor)));
    let vendor: Vec<u16> = vendor.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    assert_eq!(String::from_utf16(&vendor).unwrap(), "Ghesthouse\0");
    for nothing in [offset_of!(SystemTable, boot_services), offset_of!(SystemTable, runtime_services)] {
        assert_eq!(u64_at(bytes, nothing), 0);
    }

    let tables = configuration(&built);
    assert_eq!(tables.len(), 3);
    assert_eq!(tables[system::ACPI_20_TABLE_GUID.as_bytes()], 0x4000_0000);
    let runtime = at(&built, tables[system::RT_PROPERTIES_TABLE_GUID.as_bytes()]);
    assert_eq!(runtime, [1, 0, 8, 0, 0, 0, 0, 0], "version, length, and no service");
    assert_eq!(at(&built, tables[&RESERVATIONS]), [0; 16], "an empty list");
}

#[test]
fn the_memory_map_lists_all_memory_as_cacheable() {
    let built = build(&default_machine()).unwrap();
    let expected = [(9, 0x4000_0000, 0xf_0000), (0, 0x400f_0000, 0x1_0000), (7, 0x4010_0000, 0x3ff0_0000)];
    assert_eq!(memory_map(&built), expected);
    for table in &built.tables {
        let holder = if table.name == "platform" { 2 } else { 0 };
        let (_, start, len) = expected[holder];
        assert!(table.gpa >= start && table.range().end() <= start + len, "{}", table.name);
    }
}

#[test]
fn error_records_are_cacheable_memory_that_is_never_free() {
    let built = build(&default_machine().with_error_sources(error_sources())).unwrap();
    assert_eq!(
        memory_map(&built),
        [
            (9, 0x4000_0000, 0xf_0000),
            (0, 0x400f_0000, 0x1_0000),
            (7, 0x4010_0000, 0x3fed_0000),
            (10, 0x7ffd_0000, 0x3_0000)
        ]
    );
    assert_eq!(built.tables.last().unwrap().range(), Range { start: 0x7ffd_0000, len: 0x3_0000 });
}

#[test]
fn kinds_of_memory_do_not_share_64_kib() {
    let mut machine = default_machine();
    let end = 0x8000_0000;
    machine.memory.regions = [
        (0x4000_0000, 0x4010_0000, RegionKind::AcpiReclaim),
        (0x4010_0000, 0x5000_1000, RegionKind::Usable),
        (0x5001_0000, 0x5002_0000, RegionKind::AcpiNvs),
        (0x5002_f000, 0x6000_0000, RegionKind::Usable),
        (0x6000_0000, 0x6001_0000, RegionKind::Reserved),
        (0x6001_1000, 0x6001_f000, RegionKind::Usable),
        (0x7000_0000, end, RegionKind::Usable),
        (end, end + 0x1_0000, RegionKind::Reserved),
    ]
    .map(|(start, end, kind)| Region { range: Range::between(start, end), kind })
    .to_vec();
    assert_eq!(
        memory_map(&build(&machine).unwrap()),
        [
            (9, 0x4000_0000, 0x10_0000),
            (7, 0x4010_0000, 0xff0_0000),
            (10, 0x5001_0000, 0x1_0000),
            (7, 0x5003_0000, 0xffd_0000),
            (0, 0x6000_0000, 0x1_0000),
            (7, 0x7000_0000, 0x1000_0000),
        ]
    );
    machine.memory.regions[2].range.start += 0x1000;
    let error = build(&machine).unwrap_err().to_string();
    assert!(
        error.starts_with("EFI memory map: region ") && error.ends_with("not aligned to 0x10000 bytes"),
        "{error}"
    );
}

#[test]
fn every_table_with_processors_lists_all_of_them() {
    for (vcpus, features) in
        [1, 2, 16, 17, 512].map(|vcpus| (vcpus, ALL)).into_iter().chain([(1, GICV2), (8, GICV2)])
    {
        let tables = walk(&build(&machine::machine(vcpus, features, 1)).unwrap());
        let version_3 = features.gic == 3;
        let (mut processors, mut others) = (Vec::new(), Vec::new());
        for entry in entries(&tables["APIC"][44..]) {
            match entry[0] {
                0xb => {
                    assert_eq!((entry.len(), u32_at(entry, 12)), (80, 1), "enabled");
                    assert_eq!(u32_at(entry, 20), if features.performance_monitors { 23 } else { 0 });
                    assert_eq!(u64_at(entry, 32), if version_3 { 0 } else { 0x802_0000 });
                    assert_eq!(u64_at(entry, 60), 0, "redistributors are a region");
                    processors.push((u32_at(entry, 4), u32_at(entry, 8), u64_at(entry, 68)));
                }
                0xc => others.push((0xc, u64_at(entry, 8), u64::from(entry[20]))),
                0xe => others.push((0xe, u64_at(entry, 4), u64::from(u32_at(entry, 12)))),
                0xf => others.push((0xf, u64_at(entry, 8), 0)),
                other => panic!("MADT entry of type {other}"),
            }
        }
        let expected = |index| (index, index, aarch64::mpidr(index));
        assert_eq!(processors, (0..vcpus).map(expected).collect::<Vec<_>>(), "number, UID and affinity");
        if version_3 {
            let redistributors = (0xe, 0x1000_0000, u64::from(vcpus) << 17);
            assert_eq!(others, [(0xc, 0x800_0000, 3), redistributors]);
        } else {
            assert_eq!(others, [(0xc, 0x800_0000, 2)]);
        }

        let mut nodes = entries(&tables["PPTT"][36..]);
        let package = nodes.remove(0);
        assert_eq!((u32_at(package, 4), u32_at(package, 8)), (1, 0), "a package below nothing");
        let cores: Vec<u32> = nodes
            .iter()
            .map(|core| {
                assert_eq!((core.len(), u32_at(core, 4), u32_at(core, 8)), (20, 0b1010, 36));
                u32_at(core, 12)
            })
            .collect();
        assert_eq!(cores, (0..vcpus).collect::<Vec<_>>());
    }
}

#[test]
fn the_madt_lists_an_its_only_if_the_machine_has_one() {
    let listed = |machine: &Platform| -> Vec<(u32, u64)> {
        let tables = walk(&build(machine).unwrap());
        let its = entries(&tables["APIC"][44..]).into_iter().filter(|entry| entry[0] == 0xf);
        its.map(|entry| (u32_at(entry, 4), u64_at(entry, 8))).collect()
    };
    assert_eq!(listed(&default_machine()), []);
    assert_eq!(listed(&machine::machine_with_its()), [(0, 0x808_0000)]);
}

#[test]
fn timers_are_level_triggered_and_always_on() {
    let gtdt = &walk(&build(&default_machine()).unwrap())["GTDT"];
    assert_eq!(
        (u64_at(gtdt, 36), u64_at(gtdt, 80)),
        (u64::MAX, u64::MAX),
        "no registers of the system counter"
    );
    let timers: Vec<(u32, u32)> =
        (48..80).step_by(8).map(|at| (u32_at(gtdt, at), u32_at(gtdt, at + 4))).collect();
    assert_eq!(timers, [(29, 0), (30, 4), (27, 4), (26, 0)]);
}

#[test]
fn both_tables_of_the_console_name_the_pl011() {
    let tables = walk(&build(&default_machine()).unwrap());
    let registers = [0, 32, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0];
    let spcr = &tables["SPCR"];
    assert_eq!((spcr[36], &spcr[40..52]), (3, &registers[..]));
    assert_eq!((spcr[52], u32_at(spcr, 54)), (8, 33), "a GIC's interrupt");
    let dbg2 = &tables["DBG2"];
    assert_eq!(&dbg2[56..60], [0, 0x80, 3, 0], "a serial port, a PL011");
    assert_eq!((&dbg2[66..78], u32_at(dbg2, 78)), (&registers[..], 0x1000));
    assert_eq!(&dbg2[82..], b"\\_SB.COM0\0");

    let mut machine = default_machine();
    machine.console = None;
    let tables = walk(&build(&machine).unwrap());
    assert!(!tables.contains_key("SPCR") && !tables.contains_key("DBG2"));
}

#[test]
fn power_is_psci_by_hvc() {
    let fadt = &walk(&build(&default_machine()).unwrap())["FACP"];
    assert_eq!((fadt.len(), fadt[8], fadt[131]), (276, 6, 3));
    assert_eq!(u32_at(fadt, 112) >> 20, 0b11, "hardware-reduced, idle at low power");
    assert_eq!(
        (u16::from_le_bytes([fadt[129], fadt[130]]), u16::from_le_bytes([fadt[109], fadt[110]])),
        (3, 0)
    );
    assert_eq!(fadt[116..129], [0; 13], "no reset register");
}

#[test]
fn five_hundred_and_twelve_processors_leave_most_of_the_area_free() {
    let built = build(&machine::machine(512, ALL, 64)).unwrap();
    let map = built.table("efi-memory-map").unwrap();
    let used = map.range().end() - aarch64::RAM_START;
    assert!(used < 96 << 10, "{used} bytes");
}

#[test]
fn tables_may_fill_their_area_but_not_exceed_it() {
    let mut machine = default_machine();
    let start = machine.memory.tables.start;
    let needed = build(&machine).unwrap().table("efi-memory-map").unwrap().range().end() - start;
    machine.memory.tables = Range { start, len: needed };
    assert!(build(&machine).is_ok());
    machine.memory.tables.len -= 1;
    let too_big = BuildError::TooBig { set: TableSet::Acpi, needed, available: needed - 1, start };
    assert_eq!(build(&machine), Err(too_big));
}

#[test]
fn what_cannot_be_described_is_an_error_that_names_it() {
    type Change = fn(&mut Platform);
    let registers = "AcpiRegisters { sleep_control: Ports { base: 600, len: 1 }, sleep_status: Ports { base: 601, len: 1 }, \
                     reset: Ports { base: 602, len: 1 }, reset_value: 1, s5_sleep_type: 5 }";
    let power = format!("acpi tables: power control: expected PSCI by HVC, got {registers}");
    let cases: &[(Change, &str)] = &[
        (|m| m.arch = Arch::X86_64, "acpi tables: the interrupt controller is not one of an x86_64 machine"),
        (|m| m.power = x86_64_power(), &power),
        (
            |m| m.cpus[1].hardware_id = 1 << 31,
            "MADT: processor 1: MPIDR 0x80000000: only Aff0 to Aff3 (mask 0xff00ffffff) can be set",
        ),
        (
            |m| m.devices.retain(|device| device.name != "power-button"),
            "device `ged`: event target `PWRB`: no device has this ACPI name",
        ),
    ];
    for (change, message) in cases {
        let mut machine = default_machine();
        change(&mut machine);
        assert_eq!(build(&machine).unwrap_err().to_string(), *message);
    }
    let mut small = default_machine();
    small.memory.ram[0].len = 0x10_0000;
    assert!(matches!(build(&small), Err(BuildError::TooBig { available: 0, start: 0x4010_0000, .. })));
    let many = build(&machine::machine(9, GICV2, 0)).unwrap_err();
    assert_eq!(many, BuildError::TooManyCpus { table: "MADT (GICv2)", cpus: 9, limit: 8 });
}

fn x86_64_power() -> PowerControl {
    platform::x86_64::platform(&platform::x86_64::Layout::REFERENCE, 1, 0, vec![], None).power
}

fn build(machine: &Platform) -> Result<GuestTables, BuildError> {
    firmware_tables::build(TableSet::Acpi, machine, &chosen(), &OEM)
}
