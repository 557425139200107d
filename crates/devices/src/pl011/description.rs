//! What tables say of the port.

use platform::{AcpiIdentity, DeviceNode, DeviceRole, DevicetreeIdentity, Trigger};

use crate::primecell;

/// The name of the port, the same as of a PC's: one machine has one or the other.
pub use crate::serial::NAME;

/// Bytes of the registers.
pub const LEN: u64 = primecell::LEN;

/// The port at a GPA and on an INTID.
///
/// ACPI knows it by the id that Arm gave to the PL011 (`ARMH0011`; the SPCR names it too), whose Linux driver is the one
/// for the Server Base System Architecture's generic UART: a subset of the PL011 that firmware has set up.
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
