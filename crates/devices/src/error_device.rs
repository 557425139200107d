//! The error device (ACPI 6.5, 18.3.2.7.2): a device without registers. When the Generic Event Device notifies it, the guest
//! checks every error source whose notification type is SCI, GPIO signal or GSIV.

use platform::{AcpiIdentity, DeviceNode};

/// The device.
#[must_use]
pub fn node() -> DeviceNode {
    DeviceNode {
        name: "error-device".into(),
        windows: vec![],
        interrupts: vec![],
        acpi: Some(AcpiIdentity { name: ACPI_NAME, hid: "PNP0C33", uid: 0, objects: vec![] }),
        devicetree: None,
    }
}

/// Its name under `\_SB`.
pub(crate) const ACPI_NAME: &str = "GERR";
