//! The description of the port.

use platform::{AcpiIdentity, DeviceNode, DeviceRole, DevicetreeIdentity, Trigger};

use crate::primecell;

/// The name of the port, the same as on x86_64: a machine has one of the two.
pub use crate::serial::NAME;

/// Bytes of the registers.
pub const LEN: u64 = primecell::LEN;

/// The port at a GPA and on an INTID.
///
/// Its ACPI id is Arm's for the PL011 (`ARMH0011`). The Linux driver of that id is the one for the generic UART of the Server
/// Base System Architecture, a subset of the PL011 that firmware has initialised.
#[must_use]
pub fn node(base: u64, intid: u32) -> DeviceNode {
    DeviceNode::new(NAME)
        .mmio(base, LEN)
        .interrupt(intid, Trigger::Level)
        .role(DeviceRole::Pl011)
        .acpi(AcpiIdentity::new("COM0", "ARMH0011"))
        .devicetree(
            DevicetreeIdentity::new("serial", ["arm,pl011", "arm,primecell"])
                .properties(primecell::clocks(&["uartclk", "apb_pclk"])),
        )
}
