//! The parsers of the aarch64 guest, run on the host.

#[path = "../guest/acpi.rs"]
#[expect(dead_code, reason = "parts are for the guest only")]
mod acpi;
#[path = "../guest/aml.rs"]
mod aml;
#[path = "../guest/aarch64/devicetree.rs"]
mod devicetree;
#[path = "../guest/dsdt.rs"]
#[expect(dead_code, reason = "the DSDT is not read here")]
mod dsdt;
#[path = "../guest/aarch64/efi.rs"]
mod efi;
#[path = "../guest/failure.rs"]
mod failure;
#[path = "../guest/aarch64/fdt.rs"]
mod fdt;
#[path = "../guest/format.rs"]
#[allow(dead_code, reason = "nothing is shown; an expectation does not see traits")]
mod format;
#[path = "../guest/aarch64/interrupt_tables.rs"]
mod interrupt_tables;
#[path = "../guest/aarch64/madt.rs"]
mod madt;
#[path = "../guest/memory_map.rs"]
#[expect(dead_code, reason = "parts are for the guest only")]
mod memory_map;
mod oem;
#[path = "../guest/aarch64/reserved_memory.rs"]
mod reserved_memory;
#[path = "../guest/aarch64/topology.rs"]
mod topology;
#[path = "../guest/wire.rs"]
mod wire;

use std::error::Error;

use firmware_tables::{GuestTables, TableSet};
use platform::aarch64::{self, Features};
use platform::{Chosen, DeviceNode, Range};
use proptest::prelude::*;

use devicetree::Devicetree;
use dsdt::Interrupt;
use failure::Failure;
use fdt::{Fdt, Item};
use memory_map::Kind;
use topology::{Interface, Window};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

impl Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

fn level(gsi: u32) -> Interrupt {
    Interrupt { gsi, level: true, active_low: false }
}

/// Our tables of a machine with `vcpus` processors.
fn tables(set: TableSet, gic: u8, vcpus: u32) -> Result<GuestTables> {
    let devices = vec![
        devices::pl011::node(aarch64::SERIAL_BASE, aarch64::SERIAL_INTID),
        devices::pl031::node(aarch64::RTC_BASE, "TEST0031"),
        // Gives a machine with a GICv3 an ITS, which the guest skips.
        DeviceNode::new("sender").msi(),
    ];
    let features = Features { gic, performance_monitors: true };
    let machine =
        aarch64::platform(&aarch64::Layout::REFERENCE, vcpus, 1 << 30, features, devices, Some("serial0"));
    let chosen = Chosen {
        command_line: "a b".into(),
        initrd: Some(Range { start: 0x4800_0000, len: 0x1234 }),
        kaslr_seed: Some(7),
        rng_seed: Some([7; 64]),
    };
    Ok(firmware_tables::build(set, &machine, &chosen, &oem::OEM)?)
}

fn table(set: TableSet, gic: u8, vcpus: u32, name: &str) -> Result<Vec<u8>> {
    Ok(tables(set, gic, vcpus)?.table(name).ok_or(name)?.bytes.clone())
}

/// The start, the end and the kind of each region.
fn memory_map(found: &Devicetree) -> Vec<(u64, u64, Kind)> {
    found.memory.iter().map(|region| (region.start, region.end, region.kind)).collect()
}

/// Usable memory up to `end`, but for the generation id.
fn around_the_generation_id(end: u64) -> Vec<(u64, u64, Kind)> {
    let id = aarch64::GENERATION_ID;
    vec![
        (aarch64::RAM_START, id.start, Kind::Usable),
        (id.start, id.end(), Kind::AcpiNvs),
        (id.end(), end, Kind::Usable),
    ]
}

#[test]
fn a_whole_devicetree_is_read() -> Result {
    let bytes = table(TableSet::Devicetree, 3, 18, "platform")?;
    assert_eq!(Fdt::total_len(&bytes[..Fdt::HEADER_LEN])? as usize, bytes.len());
    assert!(Fdt::total_len(&bytes[..Fdt::HEADER_LEN - 1]).is_err());
    let found = Devicetree::read(&Fdt::read(&bytes)?)?;
    assert!(!found.has_only_chosen && found.efi.is_none());
    assert_eq!(found.bootargs, b"a b");
    assert_eq!(memory_map(&found), around_the_generation_id(aarch64::RAM_START + (1 << 30)));
    let mpidrs: Vec<_> = (0..18).map(aarch64::mpidr).collect();
    assert_eq!(found.topology.mpidrs(), mpidrs);
    assert_eq!(found.topology.distributor, aarch64::GIC_DISTRIBUTOR.start);
    assert_eq!(found.topology.interface, Interface::SystemRegisters);
    let start = aarch64::GIC_REDISTRIBUTORS;
    let redistributors = Window { start, end: start + 18 * aarch64::GIC_REDISTRIBUTOR_LEN };
    assert_eq!(found.topology.redistributors().collect::<Vec<_>>(), [&redistributors]);
    assert_eq!(found.timer, Some(level(27)));
    assert_eq!(found.serial, Some((aarch64::SERIAL_BASE, level(aarch64::SERIAL_INTID))));
    assert_eq!(found.clock, Some(aarch64::RTC_BASE));
    assert_eq!(found.psci_by_hvc, Some(true));

    let bytes = table(TableSet::Devicetree, 2, 2, "platform")?;
    let found = Devicetree::read(&Fdt::read(&bytes)?)?;
    assert_eq!(found.topology.interface, Interface::Memory(aarch64::GICV2_CPU_INTERFACE.start));
    Ok(())
}

/// The devicetree of a machine with error sources, and the area of their records.
fn with_error_sources(sources: &[u32]) -> Result<(Vec<u8>, ras_core::RecordArea)> {
    let sources = sources.iter().zip(1..).map(|(&gsi, id)| {
        let notification = ras_core::Notification::External { gsi };
        ras_core::ErrorSource { id, notification }
    });
    let machine =
        aarch64::platform(&aarch64::Layout::REFERENCE, 1, 1 << 30, Features::default(), vec![], None);
    let machine = machine.with_error_sources(sources.collect());
    let built = firmware_tables::build(TableSet::Devicetree, &machine, &Chosen::default(), &oem::OEM)?;
    Ok((built.table("platform").ok_or("no blob")?.bytes.clone(), built.record_area.ok_or("no area")?))
}

#[test]
fn error_sources_refer_to_reserved_memory() -> Result {
    let (bytes, area) = with_error_sources(&[37, 40])?;
    let found = Devicetree::read(&Fdt::read(&bytes)?)?;
    let sources = found.reserved.error_sources().collect::<Result<Vec<_>, _>>()?;
    let expected: Vec<_> = area
        .slots()
        .zip([37, 40])
        .map(|(slot, gsi)| reserved_memory::ErrorSource {
            block: Window { start: slot.block_gpa, end: slot.block_gpa + 0x1000 },
            register: Window { start: slot.ack_gpa, end: slot.ack_gpa + 8 },
            interrupt: Interrupt { gsi, level: false, active_low: false },
        })
        .collect();
    assert_eq!(sources, expected);
    let (start, end) = (area.gpa(), area.gpa() + area.bytes());
    let records = (start, end, Kind::AcpiNvs);
    assert_eq!(memory_map(&found), [around_the_generation_id(start), vec![records]].concat());

    let unknown = |bytes: &[u8]| -> Result<Option<Failure>> {
        Ok(Devicetree::read(&Fdt::read(bytes)?)?.reserved.error_sources().find_map(Result::err))
    };
    let (mut bytes, area) = with_error_sources(&[37])?;
    let register = area.slots().next().ok_or("no slot")?.ack_gpa;
    let len = [register.to_be_bytes(), 8u64.to_be_bytes()].concat();
    let at = bytes.windows(16).position(|window| window == len).ok_or("no register")?;
    bytes[at + 15] = 16;
    let rejected = Failure::with("devicetree: invalid acknowledge register at", register);
    assert_eq!(unknown(&bytes)?, Some(rejected), "sixteen bytes");
    bytes[at + 15] = 4;
    assert_eq!(unknown(&bytes)?, None, "four");
    Ok(())
}

/// By a devicetree, and by the EFI memory map.
#[test]
fn poisoned_memory_is_unusable() -> Result {
    let machine =
        aarch64::platform(&aarch64::Layout::REFERENCE, 1, 1 << 30, Features::default(), vec![], None);
    let machine = machine.with_unusable(&[Range { start: 0x5000_3000, len: 0x1000 }]);
    let build = |set| firmware_tables::build(set, &machine, &Chosen::default(), &oem::OEM);
    let blob = build(TableSet::Devicetree)?.table("platform").ok_or("no blob")?.bytes.clone();
    let found = Devicetree::read(&Fdt::read(&blob)?)?;
    let efi = build(TableSet::Acpi)?.table("efi-memory-map").ok_or("no map")?.bytes.clone();
    let efi = efi::read_memory_map(&efi, 48)?;
    for memory in [&found.memory, &efi] {
        let unusable = memory.iter().filter(|region| region.kind == Kind::Unusable);
        let unusable: Vec<_> = unusable.map(|region| (region.start, region.end)).collect();
        assert_eq!(unusable, [(0x5000_0000, 0x5001_0000)]);
        assert!(!memory.usable().any(|region| region.start < 0x5001_0000 && region.end > 0x5000_0000));
    }
    Ok(())
}

#[test]
fn a_devicetree_with_only_chosen_refers_to_efi() -> Result {
    let tables = tables(TableSet::Acpi, 3, 2)?;
    let bytes_at = |gpa: u64| {
        let table = tables.tables.iter().find(|table| table.range().contains(gpa)).ok_or("no table")?;
        Ok::<_, &str>(&table.bytes[(gpa - table.gpa) as usize..])
    };
    let found = Devicetree::read(&Fdt::read(bytes_at(tables.entry.gpa())?)?)?;
    assert!(found.has_only_chosen);
    assert_eq!(found.nodes, 2);
    let pointers = found.efi.ok_or("no EFI")?;
    let system = efi::read_system_table(bytes_at(pointers.system_table)?)?;
    assert_eq!(system.runtime, 0);
    let configuration = &bytes_at(system.tables)?[..system.tables_len as usize];
    let rsdp = efi::find_table(configuration, &efi::ACPI_20).ok_or("no RSDP")?;
    assert!(bytes_at(rsdp)?.starts_with(b"RSD PTR "));
    let properties = efi::find_table(configuration, &efi::RT_PROPERTIES).ok_or("no RT properties")?;
    let properties = &bytes_at(properties)?[..efi::RT_PROPERTIES_LEN as usize];
    assert_eq!(efi::read_runtime_properties(properties)?, 0);
    assert!(efi::read_runtime_properties(&properties[1..]).is_err());
    assert_eq!(efi::find_table(configuration, &[0; 16]), None);

    let map = &bytes_at(pointers.map)?[..pointers.map_len as usize];
    let memory = efi::read_memory_map(map, pointers.descriptor_len)?;
    assert!(memory.iter().any(|region| region.kind == Kind::AcpiReclaim && region.holds(rsdp, rsdp + 36)));
    let reserved = aarch64::TABLES_LEN + aarch64::GENERATION_ID.len;
    assert_eq!(memory.total_usable(), (1 << 30) - reserved);
    assert!(efi::read_memory_map(map, 39).is_err(), "shorter than a descriptor");
    assert!(efi::read_memory_map(&map[1..], pointers.descriptor_len).is_err(), "no whole descriptors");

    let table = &bytes_at(pointers.system_table)?[..efi::SYSTEM_TABLE_LEN as usize];
    for at in 0..table.len() {
        let mut broken = table.to_vec();
        broken[at] ^= 0x10;
        // The checksum covers the reserved bytes too.
        assert!(efi::read_system_table(&broken).is_err(), "{at}");
        assert!(efi::read_system_table(&table[..at]).is_err(), "{at}");
    }
    Ok(())
}

#[test]
fn tables_of_a_machine_are_read() -> Result {
    let topology = madt::read(&table(TableSet::Acpi, 3, 18, "apic")?)?;
    assert_eq!(topology.mpidrs().len(), 18);
    assert_eq!(topology.mpidrs()[17], 0x101);
    assert_eq!(topology.interface, Interface::SystemRegisters);
    assert_eq!(topology.distributor, aarch64::GIC_DISTRIBUTOR.start);
    assert_eq!(topology.redistributors().count(), 1);
    let topology = madt::read(&table(TableSet::Acpi, 2, 2, "apic")?)?;
    assert_eq!(topology.interface, Interface::Memory(aarch64::GICV2_CPU_INTERFACE.start));

    let gtdt = table(TableSet::Acpi, 3, 1, "gtdt")?;
    assert_eq!(interrupt_tables::virtual_timer(&gtdt)?, level(27));
    assert!(interrupt_tables::virtual_timer(&gtdt[..71]).is_err());
    let spcr = table(TableSet::Acpi, 3, 1, "spcr")?;
    let console = (aarch64::SERIAL_BASE, level(aarch64::SERIAL_INTID));
    assert_eq!(interrupt_tables::console(&spcr)?, console);
    Ok(())
}

#[test]
fn adjacent_redistributors_are_one_region() -> Result {
    let mut table = vec![0; 44];
    for (mpidr, redistributor) in [(0u64, 0x80a_0000u64), (1, 0x80c_0000), (2, 0x900_0000)] {
        let mut gicc = vec![0xb, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        gicc.resize(60, 0);
        gicc.extend(redistributor.to_le_bytes());
        gicc.extend(mpidr.to_le_bytes());
        gicc.resize(80, 0);
        table.extend(gicc);
    }
    assert!(madt::read(&table).is_err(), "no distributor");
    let mut gicd = vec![0xc, 24];
    gicd.resize(20, 0);
    gicd.extend([3, 0, 0, 0]);
    table.extend(gicd);
    let topology = madt::read(&table)?;
    let regions: Vec<_> = topology.redistributors().map(|window| (window.start, window.end)).collect();
    assert_eq!(regions, [(0x80a_0000, 0x80e_0000), (0x900_0000, 0x902_0000)]);
    Ok(())
}

/// A devicetree with this structure block, in cells, and these strings.
fn flattened(structure: &[u32], strings: &[u8]) -> Vec<u8> {
    let strings_at = 40 + 4 * structure.len();
    let total = (strings_at + strings.len()) as u32;
    let lens = [strings.len() as u32, 4 * structure.len() as u32];
    let header = [0xd00d_feed, total, 40, strings_at as u32, 40, 17, 16, 0, lens[0], lens[1]];
    let mut bytes: Vec<u8> = header.iter().chain(structure).flat_map(|cell| cell.to_be_bytes()).collect();
    bytes.extend(strings);
    bytes
}

#[test]
fn a_walk_ends_with_an_error_at_malformed_data() -> Result {
    let walk = |structure: &[u32]| {
        let bytes = flattened(structure, b"ab\0cd");
        let fdt = Fdt::read(&bytes).expect("a good header");
        fdt.items()
            .map(|item| item.map(|item| format!("{item:?}")).map_err(|error| error.at))
            .collect::<Vec<_>>()
    };
    let root = [1, 0];
    let good = [&root[..], &[4, 3, 1, 1, 0x7a00_0000, 2, 9]].concat();
    let property = format!("{:?}", Item::Property(b"b", b"z"));
    assert_eq!(walk(&good), [Ok("Node([])".into()), Ok(property), Ok("EndOfNode".into())]);
    for (tail, at) in [
        (&[2, 2][..], 12),      // more ends than beginnings
        (&[2, 1, 0], 12),       // a second root
        (&[2, 3, 0, 0], 12),    // a property of nothing
        (&[9], 8),              // the end, inside
        (&[5], 8),              // no token
        (&[1, 0x6161_6161], 8), // a name without an end
        (&[3, 5, 0, 0], 8),     // a value beyond the end
        (&[3, u32::MAX, 0], 8), // likewise
        (&[3, 0, 3], 8),        // a name that does not end
        (&[3, 0, 6], 8),        // a name beyond the strings
        (&[2], 12),             // no end
        (&[], 8),               // likewise
    ] {
        let items = walk(&[&root[..], tail].concat());
        assert_eq!(items.last(), Some(&Err(at)), "{tail:?}");
        assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1, "{tail:?}");
    }
    Ok(())
}

#[test]
fn invalid_headers_are_rejected() {
    let good = flattened(&[1, 0, 2, 9], b"");
    assert!(Fdt::read(&good).is_ok());
    // Magic, length, both blocks' places, versions, both blocks' lengths.
    for (at, cell) in [
        (0, 0xd00d_feee_u32),
        (4, 39),
        (4, fdt::MAX_LEN + 1),
        (8, good.len() as u32 + 1),
        (12, u32::MAX),
        (20, 16),
        (24, 18),
        (32, 1),
        (36, u32::MAX),
    ] {
        let mut broken = good.clone();
        broken[at..at + 4].copy_from_slice(&cell.to_be_bytes());
        assert!(Fdt::read(&broken).is_err(), "{at}: {cell:#x}");
    }
}

/// The invariants of a walk through any bytes.
fn walk_any(bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    let Ok(fdt) = Fdt::read(bytes) else { return Ok(()) };
    let mut depth = 0usize;
    let mut items = 0;
    for item in fdt.items() {
        items += 1;
        match item {
            Ok(Item::Node(_)) => depth += 1,
            Ok(Item::EndOfNode) => {
                prop_assert!(depth > 0, "an end without a beginning");
                depth -= 1;
            }
            Ok(Item::Property(..)) => prop_assert!(depth > 0, "a property of nothing"),
            Err(error) => prop_assert!(error.at <= bytes.len()),
        }
    }
    // Each item takes a cell at least, but for the error.
    prop_assert!(items <= bytes.len() / 4 + 1);
    let _ = Devicetree::read(&fdt);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_walk_through_any_cells_ends(
        structure in prop::collection::vec(prop_oneof![0u32..10, any::<u32>(), (0u32..64).prop_map(|n| n << 24)], 0..100),
        strings in prop::sample::select(vec![&b"reg\0#size-cells\0#address-cells\0device_type\0"[..], b"", b"x"]),
    ) {
        walk_any(&flattened(&structure, strings))?;
    }

    #[test]
    fn any_bytes_are_rejected_as_a_system_table(bytes in prop::collection::vec(any::<u8>(), 0..200), descriptor_len: u32, short in 0u32..64) {
        prop_assert!(efi::read_system_table(&bytes).is_err());
        let _ = efi::find_table(&bytes, &efi::ACPI_20);
        let _ = efi::read_runtime_properties(&bytes);
        for len in [descriptor_len, short] {
            if let Ok(map) = efi::read_memory_map(&bytes, len) {
                prop_assert!(map.iter().all(|region| region.start < region.end));
            }
        }
    }

    #[test]
    fn a_walk_through_any_structures_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let table = [&[0; 44], &bytes[..]].concat();
        if let Ok(topology) = madt::read(&table) {
            prop_assert!(topology.mpidrs().len() <= bytes.len() / 76);
        }
    }
}

#[test]
fn a_walk_through_a_damaged_devicetree_ends() -> Result {
    let bytes = table(TableSet::Devicetree, 3, 3, "platform")?;
    let damage = prop::collection::vec((0..bytes.len(), any::<u8>()), 1..8);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(20_000));
    runner.run(&(damage, 0..=bytes.len()), |(damage, len)| {
        let mut damaged = bytes.clone();
        for (at, byte) in damage {
            damaged[at] = byte;
        }
        walk_any(&damaged)?;
        walk_any(&damaged[..len])
    })?;
    Ok(())
}
