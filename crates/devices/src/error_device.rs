//! The error device (ACPI 6.5, 18.3.2.7.2): a device without registers. When the Generic Event Device notifies it, the guest
//! checks every error source whose notification type is SCI, GPIO signal or GSIV.

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
