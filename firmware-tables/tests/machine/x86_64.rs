//! The x86_64 machine of the tests: the devices that every machine has, and a number of virtio-mmio transports.

use std::num::NonZeroU32;

use platform::{
    AcpiIdentity, AcpiObject, DeviceNode, DeviceRole, ErrorInjection, ErrorSerialization, EventSource,
    Platform, Range, Trigger, Window, x86_64,
};
use ras_core::{ErrorSource, Notification};

/// Two processors, memory below and above the hole, one transport.
pub(crate) fn default_machine() -> Platform {
    machine(2, 6 << 30, 1)
}

/// A machine with `transports` virtio-mmio transports.
pub(crate) fn machine(vcpus: u32, memory: u64, transports: usize) -> Platform {
    let mut devices =
        vec![serial(), clock(), event_device(), power_button(), error_device(), generation_id()];
    devices.extend((0..transports).map(transport));
    x86_64::platform(&x86_64::Layout::REFERENCE, vcpus, memory, devices, Some("serial0"))
}

/// Registers of a store for error records at their place.
#[allow(dead_code, reason = "not every test has a store")]
pub(crate) fn error_serialization() -> ErrorSerialization {
    let register = |number: u64| x86_64::ERROR_SERIALIZATION_BASE + 8 * number;
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
    let register = |number: u64| x86_64::ERROR_INJECTION_BASE + 8 * number;
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

/// Sources with different notifications, all of which Linux supports on x86_64.
#[allow(dead_code, reason = "not every test has error sources")]
pub(crate) fn error_sources() -> Vec<ErrorSource> {
    let interval_ms = NonZeroU32::new(1000).expect("not zero");
    [
        Notification::Nmi,
        Notification::Gsiv,
        Notification::Polled { interval_ms },
        Notification::External { gsi: 6 },
    ]
    .into_iter()
    .zip(0..)
    .map(|(notification, id)| ErrorSource { id, notification })
    .collect()
}

fn serial() -> DeviceNode {
    let ports = Window::Ports { base: x86_64::SERIAL_PORT, len: 8 };
    node("serial0", "COM1", "PNP0501", 0, Some((ports, x86_64::SERIAL_GSI))).role(DeviceRole::Ns16550)
}

fn clock() -> DeviceNode {
    let ports = Window::Ports { base: x86_64::RTC_PORT, len: 2 };
    node("rtc", "RTC0", "PNP0B00", 0, Some((ports, x86_64::RTC_GSI))).role(DeviceRole::CmosRtc)
}

fn event_device() -> DeviceNode {
    let registers = Window::Mmio { base: x86_64::GED_BASE, len: 8 };
    let mut ged = node("ged", "GED0", "ACPI0013", 0, Some((registers, x86_64::GED_GSI)));
    if let Some(identity) = &mut ged.acpi {
        identity.objects.push(AcpiObject::GenericEvents {
            selector: Window::Mmio { base: x86_64::GED_BASE, len: 4 },
            sources: vec![
                EventSource { mask: 2, target: "PWRB", value: 0x80 },
                EventSource { mask: 0x20, target: "GERR", value: 0x80 },
                EventSource { mask: 0x40, target: "VGEN", value: 0x80 },
            ],
        });
    }
    ged
}

fn power_button() -> DeviceNode {
    node("power-button", "PWRB", "PNP0C0C", 0, None)
}

fn error_device() -> DeviceNode {
    node("error-device", "GERR", "PNP0C33", 0, None).role(DeviceRole::ErrorDevice)
}

/// A generation id, whose address has two halves.
fn generation_id() -> DeviceNode {
    let page = Window::Mmio { base: x86_64::GENERATION_ID.start, len: x86_64::GENERATION_ID.len };
    let mut id = node("generation-id", "VGEN", "ABCD0032", 0, None).window(page);
    if let Some(identity) = &mut id.acpi {
        identity.lists_windows = false;
        identity.objects.push(AcpiObject::Text { name: "_CID", value: "VM_Gen_Counter".into() });
        identity.objects.push(AcpiObject::Text { name: "_DDN", value: "VM_Gen_Counter".into() });
        let halves = vec![x86_64::GENERATION_ID.start, 0];
        identity.objects.push(AcpiObject::Integers { name: "ADDR", values: halves });
    }
    id
}

/// The transport of that number. Transports share GSIs if there are more of them than GSIs.
fn transport(number: usize) -> DeviceNode {
    let base = x86_64::VIRTIO_MMIO.start + number as u64 * x86_64::VIRTIO_MMIO_STRIDE;
    let registers = Window::Mmio { base, len: x86_64::VIRTIO_MMIO_STRIDE };
    let gsi = x86_64::VIRTIO_GSIS[number % x86_64::VIRTIO_GSIS.len()];
    let name: &'static str = format!("VR{number:02X}").leak();
    node(&format!("virtio{number}"), name, "LNRO0005", number as u32, Some((registers, gsi)))
}

fn node(
    name: &str,
    acpi_name: &'static str,
    hid: &'static str,
    uid: u32,
    resources: Option<(Window, u32)>,
) -> DeviceNode {
    let node = DeviceNode::new(name).acpi(AcpiIdentity::new(acpi_name, hid).uid(uid));
    match resources {
        Some((window, gsi)) => node.window(window).interrupt(gsi, Trigger::Edge),
        None => node,
    }
}
