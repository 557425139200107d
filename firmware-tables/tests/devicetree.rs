//! The devicetree, read as a kernel reads it.
#![cfg(feature = "devicetree")]

#[path = "machine/aarch64.rs"]
mod machine;
mod oem;
mod tree;

use firmware_tables::{BuildError, EntryPoint, GuestTables, TableSet};
use machine::{ALL, chosen, default_machine};
use oem::OEM;
use platform::aarch64::{self, Features};
use platform::{Arch, Chosen, InterruptController, Platform, Property, Range, Region, RegionKind, Window};
use tree::Tree;

const GICV2: Features = Features { gic: 2, performance_monitors: false };

#[test]
fn the_only_table_is_a_blob_in_its_area() {
    let built = build(&default_machine()).unwrap();
    assert_eq!(built.entry, EntryPoint::Devicetree { gpa: 0x4010_0000 });
    assert_eq!(built.tables.len(), 1);
    assert_eq!((built.tables[0].gpa, built.tables[0].file_name), (0x4010_0000, "platform.dtb"));
    assert_eq!(build(&default_machine()), build(&default_machine()), "the same machine gives the same bytes");
}

#[test]
fn the_root_lists_the_machine_in_order() {
    let root = read(&default_machine());
    assert_eq!(
        root.names(),
        [
            "chosen",
            "memory@40000000",
            "reserved-memory",
            "cpus",
            "psci",
            "interrupt-controller@8000000",
            "timer",
            "pmu",
            "apb-pclk",
            "serial@9000000",
            "rtc@9010000",
            "gpio-keys",
            "virtio_mmio@a000000",
        ]
    );
    assert_eq!((root.cells("#address-cells"), root.cells("#size-cells")), (vec![2], vec![2]));
    assert_eq!(root.texts("compatible"), ["linux,dummy-virt"]);
    assert_eq!(root.at("memory@40000000").wide("reg"), [0x4000_0000, 1 << 30]);
    assert_eq!(root.at("psci").texts("method"), ["hvc"]);
}

#[test]
fn chosen_contains_the_boot_parameters_and_nothing_else() {
    let root = read(&default_machine());
    let node = root.at("chosen");
    assert_eq!(node.texts("bootargs"), ["console=ttyAMA0 panic=-1"]);
    assert_eq!(node.wide("linux,initrd-start"), [0x4800_0000]);
    assert_eq!(node.wide("linux,initrd-end"), [0x4812_3456]);
    assert_eq!(node.wide("kaslr-seed"), [0x0123_4567_89ab_cdef]);
    assert_eq!(node.bytes("rng-seed"), chosen().rng_seed.unwrap());
    assert_eq!(node.texts("stdout-path"), ["/serial@9000000"]);

    let mut quiet = default_machine();
    quiet.console = None;
    let built = firmware_tables::build(TableSet::Devicetree, &quiet, &Chosen::default(), &OEM).unwrap();
    let root = Tree::read(&built.tables[0].bytes);
    assert_eq!(root.at("chosen").properties.keys().collect::<Vec<_>>(), ["bootargs"]);
}

#[test]
fn the_unit_address_of_a_processor_is_its_affinity() {
    for vcpus in [1, 2, 16, 17, 512] {
        let root = read(&machine::machine(vcpus, ALL, 0));
        let cpus = root.at("cpus");
        assert_eq!((cpus.cells("#address-cells"), cpus.cells("#size-cells")), (vec![2], vec![0]));
        assert_eq!(cpus.children.len(), vcpus as usize);
        for (index, cpu) in cpus.children.iter().enumerate() {
            let id = aarch64::mpidr(index as u32);
            assert_eq!((cpu.name.as_str(), cpu.wide("reg")), (format!("cpu@{id:x}").as_str(), vec![id]));
            assert_eq!(cpu.texts("device_type"), ["cpu"]);
            assert_eq!(cpu.texts("compatible"), ["arm,armv8"]);
            assert_eq!(cpu.texts("enable-method"), ["psci"]);
        }
        let redistributors = root.at("interrupt-controller@8000000").wide("reg")[3];
        assert_eq!(redistributors, u64::from(vcpus) << 17, "128 KiB each");
    }
}

#[test]
fn the_interrupt_controller_is_the_platforms() {
    let root = read(&default_machine());
    let gic = root.at("interrupt-controller@8000000");
    assert_eq!(gic.texts("compatible"), ["arm,gic-v3"]);
    assert_eq!(gic.wide("reg"), [0x800_0000, 0x1_0000, 0x1000_0000, 0x4_0000]);
    assert_eq!(gic.cells("phandle"), root.cells("interrupt-parent"));
    assert!(gic.children.is_empty(), "no device sends MSIs: no ITS");

    let root = read(&machine::machine_with_its());
    let its = root.at("interrupt-controller@8000000").at("msi-controller@8080000");
    assert_eq!(
        (its.texts("compatible"), its.wide("reg")),
        (vec!["arm,gic-v3-its"], vec![0x808_0000, 0x2_0000])
    );

    let root = read(&machine::machine(3, GICV2, 0));
    let gic = root.at("interrupt-controller@8000000");
    assert_eq!(gic.texts("compatible"), ["arm,cortex-a15-gic"]);
    assert_eq!(gic.wide("reg"), [0x800_0000, 0x1000, 0x802_0000, 0x2000]);
    assert_eq!(root.at("timer").cells("interrupts")[..3], [1, 13, 0x704], "on all three processors");
    assert!(!root.names().contains(&"pmu"));
}

#[test]
fn private_interrupts_are_level_triggered() {
    let root = read(&default_machine());
    assert_eq!(root.at("timer").cells("interrupts"), [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    assert!(root.at("timer").has("always-on"));
    assert_eq!(root.at("pmu").cells("interrupts"), [1, 7, 4]);
}

#[test]
fn the_power_button_has_its_own_edge_triggered_interrupt() {
    let root = read(&default_machine());
    assert_eq!(root.at("gpio-keys/power-button").cells("interrupts"), [0, 3, 1]);
    assert_eq!(root.at("gpio-keys/power-button").cells("linux,code"), [116]);
}

#[test]
fn only_nodes_with_references_have_a_phandle() {
    let root = read(&default_machine());
    let clock = root.at("apb-pclk").cells("phandle");
    assert_eq!(root.at("serial@9000000").cells("clocks"), [clock[0], clock[0]]);
    assert_eq!(root.at("serial@9000000").texts("clock-names"), ["uartclk", "apb_pclk"]);
    assert_eq!(root.children.iter().filter(|node| node.has("phandle")).count(), 2, "the GIC and the clock");

    let mut alone = default_machine();
    alone.devices.retain(|device| device.name.starts_with("virtio"));
    assert!(!read(&alone).names().contains(&"apb-pclk"), "no device refers to the clock");
}

#[test]
fn reserved_regions_of_ram_are_reserved_memory() {
    let mut machine = default_machine();
    let before = read(&machine);
    assert_eq!(before.at("reserved-memory").names(), ["firmware@400f0000"], "the generation id");
    machine.memory.regions.retain(|region| region.kind != RegionKind::Reserved);
    assert!(!read(&machine).names().contains(&"reserved-memory"));
    let kept = Range { start: 0x5000_0000, len: 0x1_0000 };
    machine.memory.regions.push(Region { range: kept, kind: RegionKind::Reserved });
    machine
        .memory
        .regions
        .push(Region { range: Range { start: 0x900_0000, len: 0x1000 }, kind: RegionKind::Reserved });
    let root = read(&machine);
    let reserved = root.at("reserved-memory");
    assert_eq!(reserved.names(), ["firmware@50000000"], "and nothing outside RAM");
    assert_eq!(reserved.children[0].wide("reg"), [kept.start, kept.len]);
    assert!(reserved.children[0].has("no-map") && reserved.has("ranges"));
}

#[test]
fn an_error_source_refers_to_its_status_block_and_acknowledge_register() {
    let machine = default_machine().with_error_sources(machine::own_source());
    let records_area = machine.memory.records.unwrap();
    let built = build(&machine).unwrap();
    let area = built.record_area.as_ref().unwrap();
    let slot = area.slots().next().unwrap();
    assert_eq!(
        (area.gpa(), area.bytes(), records_area.start % 0x1_0000),
        (records_area.start, records_area.len, 0)
    );

    let root = Tree::read(&built.tables[0].bytes);
    let source = root.at("error-source-1");
    let names: Vec<_> = source.properties.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["compatible", "interrupts", "memory-region"],
        "the properties of the binding, and no others"
    );
    assert_eq!(source.texts("compatible"), ["arm,ras-cper"]);
    assert_eq!(source.cells("interrupts"), [0, aarch64::ERROR_INTID - 32, 1]);

    let reserved = root.at("reserved-memory");
    let region = |phandle: u32| {
        let is = |node: &&Tree| node.has("phandle") && node.cells("phandle") == [phandle];
        let [start, len] = reserved.children.iter().find(is).unwrap().wide("reg")[..] else {
            panic!("one range")
        };
        (start, len)
    };
    let [block, register] = source.cells("memory-region")[..] else { panic!("two regions") };
    assert_eq!(region(block), (slot.block_gpa, 0x1000), "a driver copies all of it");
    assert_eq!(region(register), (slot.ack_gpa, 8), "a driver accepts four bytes or eight");
    let mut next = records_area.start;
    let nodes = reserved.children.iter().map(|node| (node, node.wide("reg")));
    for (node, reg) in nodes.filter(|(_, reg)| reg[0] >= records_area.start) {
        let [start, len] = reg[..] else { panic!("one range") };
        assert!(start == next && node.has("no-map"), "{}", node.name);
        next += len;
    }
    assert_eq!(next, records_area.end(), "all of the record area is reserved, without overlap");
    let phandles: Vec<_> = [&root, reserved]
        .into_iter()
        .flat_map(|node| &node.children)
        .filter(|node| node.has("phandle"))
        .map(|node| node.cells("phandle")[0])
        .collect();
    assert_eq!(phandles.len(), 4, "the GIC, clock, block and register");
    assert!(phandles.iter().all(|one| phandles.iter().filter(|other| *other == one).count() == 1));

    let records = built.table("error-records").unwrap();
    let at = |gpa: u64| &records.bytes[(gpa - records.gpa) as usize..][..8];
    assert_eq!(
        (records.range(), at(slot.ack_gpa), at(slot.block_gpa)),
        (records_area, &1u64.to_le_bytes()[..], &[0; 8][..])
    );
}

#[test]
fn an_error_source_requires_its_own_interrupt() {
    use ras_core::{ErrorSource, Notification};
    let refused = |sources: &[Notification], id: u16, reason: &str| {
        let sources =
            sources.iter().zip(0..).map(|(notification, id)| ErrorSource { id, notification: *notification });
        let error = build(&default_machine().with_error_sources(sources.collect())).unwrap_err();
        let message = error.to_string();
        let start = format!("devicetree tables: error source {id} (notification ");
        assert!(message.starts_with(&start) && message.ends_with(reason), "{message}");
    };
    for other in
        [Notification::Sea, Notification::Sei, Notification::Gsiv, Notification::Gpio, Notification::Nmi]
    {
        refused(&[other], 0, "a devicetree requires a source with its own interrupt (external)");
    }
    let own = |gsi| Notification::External { gsi };
    for gsi in [0, 31, 1020, u32::MAX] {
        refused(&[own(gsi)], 0, "its interrupt must be an SPI, INTID 32 to 1019 (Arm IHI 0069, 2.2)");
    }
    refused(&[own(aarch64::SERIAL_INTID)], 0, "a device uses its interrupt");
    refused(&[own(40), own(41), own(40)], 2, "another source uses its interrupt");

    let mut machine = default_machine().with_error_sources(machine::own_source());
    machine.memory.records = None;
    assert_eq!(
        build(&machine).unwrap_err().to_string(),
        "devicetree tables: error records: 1 error sources need a record area of 0x30000 bytes, and 0x0 are available"
    );
}

#[test]
fn what_cannot_be_described_is_an_error_that_names_it() {
    type Change = fn(&mut Platform);
    let cases: &[(Change, &str)] = &[
        (|m| m.arch = Arch::X86_64, "devicetree tables: not defined for x86_64 machines"),
        (
            |m| {
                let io_apic = platform::IoApic { id: 0, base: 0, gsi_base: 0 };
                m.interrupts = InterruptController::Apic { local_base: 0, io_apic };
            },
            "devicetree tables: the interrupt controller is not one of an aarch64 machine",
        ),
        (
            |m| m.power = x86_64_power(),
            "devicetree tables: power control: expected PSCI by HVC, got AcpiRegisters { sleep_control: Ports { base: 600, len: 1 }, \
             sleep_status: Ports { base: 601, len: 1 }, reset: Ports { base: 602, len: 1 }, reset_value: 1, \
             s5_sleep_type: 5 }",
        ),
        (
            |m| m.cpus[1].hardware_id = 1 << 24,
            "/cpus: processor 1: MPIDR 0x1000000: only Aff0 to Aff3 (mask 0xff00ffffff) can be set",
        ),
        (|m| m.cpus[1].hardware_id = 0, "devicetree node `cpus`: duplicate name `cpu@0`"),
        (
            |m| m.devices[0].interrupts[0].gsi = 31,
            "devicetree tables: device `serial0`: interrupt 31: must be an SPI, INTID 32 to 1019 (Arm IHI 0069, 2.2)",
        ),
        (
            |m| m.devices[0].interrupts[0].gsi = 1020,
            "devicetree tables: device `serial0`: interrupt 1020: must be an SPI, INTID 32 to 1019 (Arm IHI 0069, 2.2)",
        ),
        (
            |m| m.devices[0].windows[0] = Window::Ports { base: 0x3f8, len: 8 },
            "devicetree tables: device `serial0`: I/O ports cannot be described",
        ),
        (
            |m| m.devices[0].windows[0] = Window::Mmio { base: u64::MAX, len: 2 },
            "device `serial0`: register window Mmio { base: ffffffffffffffff, len: 2 }: empty, or beyond the end of its \
             address space",
        ),
        (
            |m| property(m, ("gpios", Property::Devices(vec![("gpio", vec![3, 0])]))),
            "device `serial0`: reference to `gpio`: no such device or clock in the devicetree",
        ),
        (
            |m| property(m, ("gpios", Property::Devices(vec![("ged", vec![3, 0])]))),
            "device `serial0`: reference to `ged`: no such device or clock in the devicetree",
        ),
        (|m| m.devices[1] = m.devices[0].clone(), "devicetree node `/`: duplicate name `serial@9000000`"),
        (
            |m| property(m, ("compatible", Property::Flag)),
            "devicetree node `serial@9000000`: duplicate name `compatible`",
        ),
        (
            |m| property(m, ("a b", Property::Flag)),
            "devicetree node `serial@9000000`: property `a b`: Invalid property name",
        ),
        (
            |m| property(m, ("label", Property::Text(vec!["nul\0".into()]))),
            "devicetree node `serial@9000000`: property `label`: Strings cannot contain NUL",
        ),
    ];
    for (change, message) in cases {
        let mut machine = default_machine();
        change(&mut machine);
        assert_eq!(build(&machine).unwrap_err().to_string(), *message);
    }
    let many = build(&machine::machine(9, GICV2, 0)).unwrap_err();
    assert_eq!(many, BuildError::TooManyCpus { table: "interrupt-controller (GICv2)", cpus: 9, limit: 8 });
    let nul = Chosen { command_line: "a\0b".into(), ..Chosen::default() };
    assert_eq!(
        firmware_tables::build(TableSet::Devicetree, &default_machine(), &nul, &OEM).unwrap_err().to_string(),
        "devicetree node `chosen`: property `bootargs`: Strings cannot contain NUL"
    );
    let mut no_area = default_machine();
    no_area.memory.devicetree = None;
    assert_eq!(build(&no_area), Err(BuildError::NoDevicetreeArea { set: TableSet::Devicetree }));
    let mut small = default_machine();
    small.memory.ram[0].len = 0x10_0040;
    assert!(matches!(build(&small), Err(BuildError::TooBig { available: 0x40, start: 0x4010_0000, .. })));
    let big = Chosen { command_line: "x".repeat(1 << 20), ..Chosen::default() };
    let error = firmware_tables::build(TableSet::Devicetree, &default_machine(), &big, &OEM).unwrap_err();
    assert!(matches!(error, BuildError::TooBig { available: 0x10_0000, .. }), "{error}");
}

fn x86_64_power() -> platform::PowerControl {
    platform::x86_64::platform(&platform::x86_64::Layout::REFERENCE, 1, 0, vec![], None).power
}

fn property(machine: &mut Platform, property: (&'static str, Property)) {
    machine.devices[0].devicetree.as_mut().unwrap().properties.push(property);
}

fn build(machine: &Platform) -> Result<GuestTables, BuildError> {
    firmware_tables::build(TableSet::Devicetree, machine, &chosen(), &OEM)
}

fn read(machine: &Platform) -> Tree {
    Tree::read(&build(machine).unwrap().tables[0].bytes)
}
