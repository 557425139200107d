//! The power button, which has no registers.
//!
//! - ACPI: a control-method button (ACPI 6.5, 4.8.2.2.1.2) that the event device notifies ([`crate::ged`]).
//! - Devicetree, on aarch64: a key on an interrupt line, one edge for each press (binding `gpio-keys.yaml`, which takes a line in
//!   place of a pin). An MP table has no words for one.

use platform::{AcpiIdentity, DeviceNode, DevicetreeChild, DevicetreeIdentity, Interrupt, Property, Trigger};

/// The button of an x86_64 machine.
#[must_use]
pub fn x86_64_node() -> DeviceNode {
    node(None)
}

/// The button of an aarch64 machine, on an INTID that only a devicetree tells of.
#[must_use]
pub fn aarch64_node(intid: u32) -> DeviceNode {
    node(Some(DevicetreeIdentity {
        node_name: "gpio-keys",
        compatible: vec!["gpio-keys"],
        properties: vec![],
        children: vec![DevicetreeChild {
            node_name: "power-button",
            properties: vec![
                ("label", Property::Text(vec!["Power Button".into()])),
                ("linux,code", Property::Cells(vec![KEY_POWER])),
                ("interrupts", Property::Interrupts(vec![Interrupt { gsi: intid, trigger: Trigger::Edge }])),
            ],
        }],
    }))
}

/// Four-character name, under `\_SB`, of the button.
pub(crate) const ACPI_NAME: &str = "PWRB";
/// KEY_POWER (Linux, include/uapi/linux/input-event-codes.h).
const KEY_POWER: u32 = 116;

fn node(devicetree: Option<DevicetreeIdentity>) -> DeviceNode {
    DeviceNode {
        name: "power-button".into(),
        windows: vec![],
        interrupts: vec![],
        acpi: Some(AcpiIdentity { name: ACPI_NAME, hid: "PNP0C0C", uid: 0, objects: vec![] }),
        devicetree,
    }
}
