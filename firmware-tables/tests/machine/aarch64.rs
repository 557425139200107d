//! The aarch64 machine that tests describe: the devices that every machine has, in both languages, and as many
//! transports as asked for.

use platform::aarch64::{self, Features};
use platform::{
    AcpiIdentity, AcpiObject, Chosen, DeviceNode, DevicetreeChild, DevicetreeIdentity, EventSource,
    Interrupt, Platform, Property, Range, Trigger, Window,
};
use ras_core::{ErrorSource, Notification};

/// All that a host may offer.
pub(crate) const ALL: Features = Features { gic: 3, its: true, performance_monitors: true };

/// Two processors and one transport, on a host that offers all.
pub(crate) fn default_machine() -> Platform {
    machine(2, ALL, 1)
}

/// A machine of 1 GiB with `transports` virtio-mmio transports.
pub(crate) fn machine(vcpus: u32, features: Features, transports: usize) -> Platform {
    let mut devices = vec![serial(), clock(), event_device(), power_button(), error_device()];
    devices.extend((0..transports).map(transport));
    aarch64::platform(vcpus, 1 << 30, features, devices, Some("serial0"))
}

/// One source for an error that the guest runs into, one for what the host learns of first.
#[allow(dead_code, reason = "not every test has error sources")]
pub(crate) fn error_sources() -> Vec<ErrorSource> {
    [Notification::Sea, Notification::Gsiv]
        .into_iter()
        .zip(0..)
        .map(|(notification, id)| ErrorSource { id, notification })
        .collect()
}

/// The one source that a devicetree has words for: with an interrupt of its own.
#[allow(dead_code, reason = "not every test has error sources")]
pub(crate) fn own_source() -> Vec<ErrorSource> {
    vec![ErrorSource { id: 1, notification: Notification::External { gsi: aarch64::ERROR_INTID } }]
}

/// What a boot loader says when it has something to say on every point.
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
    DeviceNode { acpi: acpi("GERR", "PNP0C33", 0), ..node("error-device", None) }
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

/// A device of that name, in no language yet; registers as base, length and INTID of a level interrupt.
fn node(name: &str, resources: Option<(u64, u64, u32)>) -> DeviceNode {
    DeviceNode {
        name: name.into(),
        windows: resources.iter().map(|(base, len, _)| Window::Mmio { base: *base, len: *len }).collect(),
        interrupts: resources
            .iter()
            .map(|(_, _, intid)| Interrupt { gsi: *intid, trigger: Trigger::Level })
            .collect(),
        acpi: None,
        devicetree: None,
    }
}

fn acpi(name: &'static str, hid: &'static str, uid: u32) -> Option<AcpiIdentity> {
    Some(AcpiIdentity { name, hid, uid, objects: Vec::new() })
}

fn devicetree(node_name: &'static str, compatible: &[&'static str]) -> DevicetreeIdentity {
    DevicetreeIdentity {
        node_name,
        compatible: compatible.to_vec(),
        properties: Vec::new(),
        children: Vec::new(),
    }
}

/// All of a device's clocks are the bus's.
fn bus_clocks(names: &[&str]) -> Vec<(&'static str, Property)> {
    vec![
        ("clocks", Property::Devices(vec![(aarch64::APB_CLOCK, Vec::new()); names.len()])),
        ("clock-names", Property::Text(names.iter().map(ToString::to_string).collect())),
    ]
}
