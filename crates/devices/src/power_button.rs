//! The power button, which has no registers.
//!
//! - ACPI: a control-method button (ACPI 6.5, 4.8.2.2.1.2) that the event device notifies ([`crate::ged`]).
//! - Devicetree, on aarch64: a key on an interrupt line, one edge for each press (binding `gpio-keys.yaml`, which takes a line in
//!   place of a pin). An MP table cannot describe one.

use platform::{AcpiIdentity, DeviceNode, DevicetreeChild, DevicetreeIdentity, Interrupt, Property, Trigger};

/// The button of an x86_64 machine.
#[must_use]
pub fn x86_64_node() -> DeviceNode {
    DeviceNode::new("power-button").acpi(AcpiIdentity::new(ACPI_NAME, "PNP0C0C"))
}

/// The button of an aarch64 machine, on an INTID that only a devicetree describes.
#[must_use]
pub fn aarch64_node(intid: u32) -> DeviceNode {
    let key = DevicetreeChild {
        node_name: "power-button",
        properties: vec![
            ("label", Property::Text(vec!["Power Button".into()])),
            ("linux,code", Property::Cells(vec![KEY_POWER])),
            ("interrupts", Property::Interrupts(vec![Interrupt { gsi: intid, trigger: Trigger::Edge }])),
        ],
    };
    x86_64_node().devicetree(DevicetreeIdentity::new("gpio-keys", ["gpio-keys"]).child(key))
}

/// Four-character name, under `\_SB`, of the button.
pub(crate) const ACPI_NAME: &str = "PWRB";
/// KEY_POWER (Linux, include/uapi/linux/input-event-codes.h).
const KEY_POWER: u32 = 116;
