//! The power button, which has no registers of its own: another device tells of it.
//!
//! - ACPI: a control-method button (ACPI 6.5, 4.8.2.2.1.2) that the event device notifies ([`crate::ged`]).
//! - Devicetree, on aarch64: a key on a pin ([`crate::pl061`]; binding `gpio-keys.yaml`). An x86_64 machine has no pins.

use platform::{AcpiIdentity, DeviceNode, DevicetreeChild, DevicetreeIdentity, Property};

use crate::pl061;

/// The button of an x86_64 machine.
#[must_use]
pub fn x86_64_node() -> DeviceNode {
    node(None)
}

/// The button of an aarch64 machine, whose pins must be in the same platform.
#[must_use]
pub fn aarch64_node() -> DeviceNode {
    node(Some(DevicetreeIdentity {
        node_name: "gpio-keys",
        compatible: vec!["gpio-keys"],
        properties: vec![],
        children: vec![DevicetreeChild {
            node_name: "power-button",
            properties: vec![
                ("label", Property::Text(vec!["Power Button".into()])),
                ("linux,code", Property::Cells(vec![KEY_POWER])),
                ("gpios", Property::Devices(vec![(pl061::NAME, vec![pl061::POWER_BUTTON_PIN, ACTIVE_HIGH])])),
            ],
        }],
    }))
}

/// Four-character name, under `\_SB`, of the button.
pub(crate) const ACPI_NAME: &str = "PWRB";
/// KEY_POWER (Linux, include/uapi/linux/input-event-codes.h).
const KEY_POWER: u32 = 116;
/// GPIO_ACTIVE_HIGH (Linux, include/dt-bindings/gpio/gpio.h).
const ACTIVE_HIGH: u32 = 0;

fn node(devicetree: Option<DevicetreeIdentity>) -> DeviceNode {
    DeviceNode {
        name: "power-button".into(),
        windows: vec![],
        interrupts: vec![],
        acpi: Some(AcpiIdentity { name: ACPI_NAME, hid: "PNP0C0C", uid: 0, objects: vec![] }),
        devicetree,
    }
}
