//! The error device (ACPI 6.5, 18.3.2.7.2): a device without registers. Notifying it tells the guest to look into every
//! error source whose notification is SCI, GPIO-signal or GSIV; the Generic Event Device does that.

use platform::{AcpiIdentity, DeviceNode, DeviceRole};

/// The device.
#[must_use]
pub fn node() -> DeviceNode {
    DeviceNode::new("error-device")
        .role(DeviceRole::ErrorDevice)
        .acpi(AcpiIdentity::new(ACPI_NAME, "PNP0C33"))
}

/// Its name under `\_SB`.
pub(crate) const ACPI_NAME: &str = "GERR";
