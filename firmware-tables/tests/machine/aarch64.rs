//! The aarch64 machine of the tests: the devices that every machine has, and a number of virtio-mmio transports, with
//! ACPI and devicetree descriptions.

use platform::aarch64::{self, Features};
use platform::{
    AcpiIdentity, AcpiObject, Chosen, DeviceNode, DeviceRole, DevicetreeChild, DevicetreeIdentity,
    ErrorInjection, ErrorSerialization, EventSource, Interrupt, Platform, Property, Range, Trigger, Window,
};
use ras_core::{ErrorSource, Notification};

/// Everything that a host may support.
pub(crate) const ALL: Features = Features { gic: 3, performance_monitors: true };

/// Two processors and one transport, on a host that supports everything.
pub(crate) fn default_machine() -> Platform {
    machine(2, ALL, 1)
}

/// A machine with a device that sends message-signalled interrupts, and so with an ITS.
#[allow(dead_code, reason = "not every test needs an ITS")]
pub(crate) fn machine_with_its() -> Platform {
    let sender = node("sender", Some((0x904_0000, 0x1000, 38))).msi();
    aarch64::platform(&aarch64::Layout::REFERENCE, 2, 1 << 30, ALL, vec![serial(), sender], Some("serial0"))
}

/// A machine of 1 GiB with `transports` virtio-mmio transports.
pub(crate) fn machine(vcpus: u32, features: Features, transports: usize) -> Platform {
    let mut devices = vec![serial(), clock(), event_device(), power_button(), error_device()];
    devices.extend((0..transports).map(transport));
    aarch64::platform(&aarch64::Layout::REFERENCE, vcpus, 1 << 30, features, devices, Some("serial0"))
}

/// Registers of a store for error records at their place.
#[allow(dead_code, reason = "not every test has a store")]
pub(crate) fn error_serialization() -> ErrorSerialization {
    let register = |number: u64| aarch64::ERROR_SERIALIZATION_BASE + 8 * number;
    ErrorSerialization {
        operation: register(0),
        end: register(1),
        offset: register(2),
        execute: register(3),
        busy: register(4),
        status: register(5),
        record_id: register(6),
        count: register(7),
        log_address: register(8),
        log_len: register(9),
        log_attributes: register(10),
        timings: register(11),
    }
}

/// Error injection: registers in the order of EINJ's actions, and memory.
#[allow(dead_code, reason = "not every test has error injection")]
pub(crate) fn error_injection(memory: Range) -> ErrorInjection {
    let register = |number: u64| aarch64::ERROR_INJECTION_BASE + 8 * number;
    ErrorInjection {
        begin: register(0),
        trigger_pointer: register(1),
        error_type: register(2),
        error_types: register(3),
        end: register(4),
        execute: register(5),
        busy: register(6),
        status: register(7),
        trigger: register(8),
        parameters: memory.start,
        trigger_table: memory.start + 0x40,
    }
}

/// One source for consumed errors, one for detected errors.
#[allow(dead_code, reason = "not every test has error sources")]
pub(crate) fn error_sources() -> Vec<ErrorSource> {
    [Notification::Sea, Notification::Gsiv]
        .into_iter()
        .zip(0..)
        .map(|(notification, id)| ErrorSource { id, notification })
        .collect()
}

/// A source that a devicetree can describe: one with its own interrupt.
#[allow(dead_code, reason = "not every test has error sources")]
pub(crate) fn own_source() -> Vec<ErrorSource> {
    vec![ErrorSource { id: 1, notification: Notification::External { gsi: aarch64::ERROR_INTID } }]
}

/// Boot parameters with every optional part.
pub(crate) fn chosen() -> Chosen {
    Chosen {
        command_line: "console=ttyAMA0 panic=-1".into(),
        initrd: Some(Range { start: 0x4800_0000, len: 0x12_3456 }),
        kaslr_seed: Some(0x0123_4567_89ab_cdef),
        rng_seed: Some(std::array::from_fn(|index| index as u8)),
    }
}

fn serial() -> DeviceNode {
    let mut serial = node("serial0", Some((aarch64::SERIAL_BASE, 0x1000, aarch64::SERIAL_INTID)));
    serial.role = Some(DeviceRole::Pl011);
    serial.acpi = acpi("COM0", "ARMH0011", 0);
    serial.devicetree = Some(DevicetreeIdentity {
        properties: bus_clocks(&["uartclk", "apb_pclk"]),
        ..devicetree("serial", &["arm,pl011", "arm,primecell"])
    });
    serial
}

fn clock() -> DeviceNode {
    let mut clock = node("rtc", Some((aarch64::RTC_BASE, 0x1000, aarch64::RTC_INTID)));
    clock.devicetree = Some(DevicetreeIdentity {
        properties: bus_clocks(&["apb_pclk"]),
        ..devicetree("rtc", &["arm,pl031", "arm,primecell"])
    });
    clock
}

fn event_device() -> DeviceNode {
    let mut ged = node("ged", Some((aarch64::GED_BASE, 8, aarch64::GED_INTID)));
    ged.interrupts[0].trigger = Trigger::Edge;
    ged.acpi = acpi("GED0", "ACPI0013", 0);
    if let Some(identity) = &mut ged.acpi {
        identity.objects.push(AcpiObject::GenericEvents {
            selector: Window::Mmio { base: aarch64::GED_BASE, len: 4 },
            sources: vec![
                EventSource { mask: 2, target: "PWRB", value: 0x80 },
                EventSource { mask: 0x20, target: "GERR", value: 0x80 },
            ],
        });
    }
    ged
}

fn power_button() -> DeviceNode {
    let mut button = node("power-button", None);
    let press = Interrupt { gsi: aarch64::POWER_BUTTON_INTID, trigger: Trigger::Edge };
    button.acpi = acpi("PWRB", "PNP0C0C", 0);
    button.devicetree = Some(DevicetreeIdentity {
        children: vec![DevicetreeChild {
            node_name: "power-button",
            properties: vec![
                ("label", Property::Text(vec!["Power off".into()])),
                ("linux,code", Property::Cells(vec![116])),
                ("interrupts", Property::Interrupts(vec![press])),
            ],
        }],
        ..devicetree("gpio-keys", &["gpio-keys"])
    });
    button
}

fn error_device() -> DeviceNode {
    node("error-device", None).role(DeviceRole::ErrorDevice).acpi(AcpiIdentity::new("GERR", "PNP0C33"))
}

fn transport(number: usize) -> DeviceNode {
    let base = aarch64::VIRTIO_MMIO.start + number as u64 * 0x1000;
    let intid = aarch64::VIRTIO_FIRST_INTID + number as u32;
    let mut transport = node(&format!("virtio{number}"), Some((base, 0x200, intid)));
    transport.interrupts[0].trigger = Trigger::Edge;
    let name: &'static str = format!("VR{number:02X}").leak();
    transport.acpi = acpi(name, "LNRO0005", number as u32);
    if let Some(identity) = &mut transport.acpi {
        identity.objects.push(AcpiObject::Integer { name: "_CCA", value: 1 });
    }
    transport.devicetree = Some(DevicetreeIdentity {
        properties: vec![("dma-coherent", Property::Flag)],
        ..devicetree("virtio_mmio", &["virtio,mmio"])
    });
    transport
}

/// A device without descriptions; its resources are base, length, and the INTID of a level interrupt.
fn node(name: &str, resources: Option<(u64, u64, u32)>) -> DeviceNode {
    match resources {
        Some((base, len, intid)) => DeviceNode::new(name).mmio(base, len).interrupt(intid, Trigger::Level),
        None => DeviceNode::new(name),
    }
}

fn acpi(name: &'static str, hid: &'static str, uid: u32) -> Option<AcpiIdentity> {
    Some(AcpiIdentity::new(name, hid).uid(uid))
}

fn devicetree(node_name: &'static str, compatible: &[&'static str]) -> DevicetreeIdentity {
    DevicetreeIdentity::new(node_name, compatible)
}

/// References to the clock of the bus, one for each name.
fn bus_clocks(names: &[&str]) -> Vec<(&'static str, Property)> {
    vec![
        ("clocks", Property::Devices(vec![(aarch64::APB_CLOCK, Vec::new()); names.len()])),
        ("clock-names", Property::Text(names.iter().map(ToString::to_string).collect())),
    ]
}
