//! The ACPI and devicetree descriptions of every device agree with the table in the crate's documentation.

use std::fs;
use std::path::Path;

use devices::kind::Place;
use devices::{
    error_device, ged, generation_id, i8042, pl011, pl031, power_button, rtc, serial, virtio_mmio,
};
use platform::{
    AcpiObject, Arch, DeviceNode, Interrupt, Property, Range, RegionKind, Trigger, Window, aarch64, x86_64,
};

/// Every function that describes a device: its module, the machines that have the device, and the description.
fn all() -> Vec<(&'static str, &'static str, DeviceNode)> {
    vec![
        ("serial", "x86_64", serial::node(x86_64::SERIAL_PORT, x86_64::SERIAL_GSI)),
        ("rtc", "x86_64", rtc::node(x86_64::RTC_PORT)),
        ("i8042", "x86_64", i8042::node(x86_64::I8042_DATA_PORT)),
        ("ged", "both", ged::node(aarch64::GED_BASE, aarch64::GED_INTID)),
        ("error_device", "both", error_device::node()),
        ("power_button", "x86_64", power_button::x86_64_node()),
        ("power_button", "aarch64", power_button::aarch64_node(aarch64::POWER_BUTTON_INTID)),
        ("generation_id", "x86_64", generation_id::x86_64_node(x86_64::GENERATION_ID.start, "ABCD0032")),
        ("generation_id", "aarch64", aarch64_generation_id()),
        ("pl011", "aarch64", pl011::node(aarch64::SERIAL_BASE, aarch64::SERIAL_INTID)),
        ("pl031", "aarch64", pl031::node(aarch64::RTC_BASE, "ABCD0031")),
        ("virtio_mmio", "both", virtio_mmio::node(transport())),
    ]
}

fn aarch64_generation_id() -> DeviceNode {
    generation_id::aarch64_node(aarch64::GENERATION_ID.start, "ABCD0032", aarch64::GENERATION_INTID)
}

fn transport() -> Place {
    Place { index: 0, base: aarch64::VIRTIO_MMIO.start, gsi: aarch64::VIRTIO_FIRST_INTID }
}

fn machine(arch: Arch) -> Vec<DeviceNode> {
    let of_it = |machine| machine == arch.name() || machine == "both";
    all().into_iter().filter(|(_, machine, _)| of_it(*machine)).map(|(_, _, node)| node).collect()
}

#[test]
fn the_documentation_agrees_with_the_descriptions() {
    let documentation = include_str!("../src/lib.rs");
    let mut rows = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .map(|row| row.split(" | ").map(|cell| cell.trim_end_matches(" |")).collect::<Vec<_>>());
    for (module, machine, node) in all() {
        let row = rows.next().expect("a row for each device");
        assert_eq!(row[..2], [format!("{module}`]").as_str(), machine]);
        let acpi = node.acpi.as_ref().map(|identity| identity.hid);
        let devicetree = node.devicetree.as_ref().map(|identity| identity.compatible[0]);
        for (language, identity) in [(row[2], acpi), (row[3], devicetree)] {
            match identity {
                Some(identity) => assert_eq!(language, format!("`{identity}`")),
                None => assert!(language.len() > "none: ".len() && language.starts_with("none: "), "{row:?}"),
            }
        }
    }
    assert_eq!(rows.next(), None, "a row without a device");
}

#[test]
fn every_description_is_in_the_documentation() {
    let public = declared(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert_eq!(public, all().len(), "functions of the crate that give a DeviceNode");
}

/// Counts the public functions, in the files of a folder, that give a description.
fn declared(folder: &Path) -> usize {
    let entries =
        fs::read_dir(folder).expect("the crate's sources").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| {
            if path.is_dir() {
                return declared(&path);
            }
            let source = fs::read_to_string(&path).expect("text");
            let gives = |line: &&str| line.starts_with("pub fn ") && line.ends_with(") -> DeviceNode {");
            source.lines().filter(gives).count()
        })
        .sum()
}

/// The interrupts of a device, and those that only its devicetree description has.
fn gsis(node: &DeviceNode) -> Vec<u32> {
    let below = node.devicetree.iter().flat_map(|identity| {
        identity.properties.iter().chain(identity.children.iter().flat_map(|child| &child.properties))
    });
    let described = below.filter_map(|(_, property)| match property {
        Property::Interrupts(lines) => Some(lines),
        _ => None,
    });
    node.interrupts.iter().chain(described.flatten()).map(|line| line.gsi).collect()
}

#[test]
fn names_registers_and_interrupts_are_unique_in_a_machine() {
    for nodes in [machine(Arch::X86_64), machine(Arch::Aarch64)] {
        for (index, node) in nodes.iter().enumerate() {
            for other in &nodes[..index] {
                assert_ne!(node.name, other.name);
                assert!(!node.windows.iter().any(|window| other.windows.contains(window)), "{}", node.name);
                let others = gsis(other);
                assert!(!gsis(node).iter().any(|gsi| others.contains(gsi)), "{}", node.name);
                if let (Some(acpi), Some(other)) = (&node.acpi, &other.acpi) {
                    assert_ne!(acpi.name, other.name);
                }
            }
        }
    }
}

#[test]
fn arm_peripherals_have_a_page_each_and_the_serial_port_a_level_triggered_interrupt() {
    let nodes = machine(Arch::Aarch64);
    let peripherals = nodes.iter().filter(|node| {
        node.devicetree.as_ref().is_some_and(|identity| identity.compatible.contains(&"arm,primecell"))
    });
    let said: Vec<_> = peripherals
        .map(|node| {
            let gsis: Vec<_> = node.interrupts.iter().map(|line| (line.gsi, line.trigger)).collect();
            (node.name.as_str(), node.windows.clone(), gsis)
        })
        .collect();
    let page = |base| vec![Window::Mmio { base, len: 0x1000 }];
    assert_eq!(
        said,
        [
            ("serial0", page(aarch64::SERIAL_BASE), vec![(aarch64::SERIAL_INTID, Trigger::Level)]),
            ("rtc", page(aarch64::RTC_BASE), vec![]),
        ]
    );
}

#[test]
fn every_clock_has_a_name() {
    for node in machine(Arch::Aarch64) {
        let properties = node.devicetree.map(|identity| identity.properties).unwrap_or_default();
        let value = |name| properties.iter().find(|(named, _)| *named == name).map(|(_, value)| value);
        match (value("clocks"), value("clock-names")) {
            (Some(Property::Devices(clocks)), Some(Property::Text(names))) => {
                assert_eq!(clocks.len(), names.len());
                assert!(clocks.iter().all(|(clock, cells)| *clock == aarch64::APB_CLOCK && cells.is_empty()));
            }
            (None, None) => assert!(!["serial0", "rtc"].contains(&node.name.as_str())),
            other => panic!("{}: {other:?}", node.name),
        }
    }
}

/// The address of the id is aligned, in two halves of 32 bits, also if it is above 4 GiB.
#[test]
fn the_generation_id_is_where_its_descriptions_say() {
    let node = generation_id::x86_64_node(0x12_4000_5000, "ABCD0032");
    let identity = node.acpi.expect("listed");
    assert!(!identity.lists_windows, "ADDR is its address");
    let text = |name| AcpiObject::Text { name, value: "VM_Gen_Counter".into() };
    let address = AcpiObject::Integers { name: "ADDR", values: vec![0x4000_5000, 0x12] };
    assert_eq!(identity.objects, [text("_CID"), text("_DDN"), address]);
    for (node, machine) in [
        (
            generation_id::x86_64_node(x86_64::GENERATION_ID.start, "ABCD0032"),
            x86_64::memory_map(&x86_64::Layout::REFERENCE, 2 << 20),
        ),
        (aarch64_generation_id(), aarch64::memory_map(&aarch64::Layout::REFERENCE, 64 << 20)),
    ] {
        let [Window::Mmio { base, len }] = node.windows[..] else { panic!("a page: {:?}", node.windows) };
        let page = Range { start: base, len };
        assert!(machine.is_ram(page) && base.is_multiple_of(0x1000));
        let regions: Vec<_> = machine.regions.iter().filter(|region| region.range.overlaps(page)).collect();
        assert!(regions.len() == 1 && regions[0].kind == RegionKind::Reserved, "{regions:x?}");
        assert!(!machine.tables.overlaps(page), "tables that a poisoned page of the id would take with it");
    }
}

#[test]
fn every_event_notifies_its_device_and_the_power_button_is_described_twice() {
    for nodes in [machine(Arch::X86_64), machine(Arch::Aarch64)] {
        let targets: Vec<_> = nodes
            .iter()
            .flat_map(|node| node.acpi.iter().flat_map(|identity| &identity.objects))
            .flat_map(|object| match object {
                AcpiObject::GenericEvents { sources, .. } => {
                    sources.iter().map(|source| source.target).collect()
                }
                _ => vec![],
            })
            .collect();
        let name_of = |name: &str| {
            let node = nodes.iter().find(|node| node.name == name).expect("in the machine");
            node.acpi.as_ref().expect("listed").name
        };
        assert_eq!(targets, ["power-button", "error-device", "generation-id"].map(name_of));
    }
    let nodes = machine(Arch::Aarch64);
    let button = nodes
        .iter()
        .find_map(|node| node.devicetree.as_ref().filter(|identity| identity.compatible == ["gpio-keys"]));
    let key = &button.expect("listed").children[0];
    let line = Interrupt { gsi: aarch64::POWER_BUTTON_INTID, trigger: Trigger::Edge };
    assert!(key.properties.contains(&("interrupts", Property::Interrupts(vec![line]))));
    assert!(key.properties.contains(&("linux,code", Property::Cells(vec![116]))));
}
