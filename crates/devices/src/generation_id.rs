//! The generation id of a machine, which has no registers: 128 bits in a page of memory that the guest does not use as its own. The VMM
//! changes it when the machine may continue from a state that another machine, or the same one, has continued from before. What the guest
//! took to be unique is not then: Linux reseeds its random number generator ("Virtual Machine Generation ID", Microsoft, 2012).
//!
//! - ACPI: a device whose object `ADDR` is the address of the id in two halves, and which the event device notifies ([`crate::ged`]).
//! - Devicetree, on aarch64: the page, and an interrupt line, one edge for each change (Linux, `rng/microsoft,vmgenid.yaml`). An MP table
//!   cannot describe one.

use platform::{AcpiIdentity, AcpiObject, DeviceNode, DevicetreeIdentity, Interrupt, Property, Trigger};

/// Bytes of the id.
pub const LEN: usize = 16;

/// The id at the start of a page of an x86_64 machine, with the `_HID` that ACPI lists it by (`ABCD0032`: a vendor's id, as the
/// specification leaves it to the vendor).
#[must_use]
pub fn x86_64_node(page: u64, hid: &'static str) -> DeviceNode {
    let halves = vec![page & u64::from(u32::MAX), page >> 32];
    DeviceNode::new("generation-id").mmio(page, PAGE).acpi(
        AcpiIdentity::new(ACPI_NAME, hid)
            // It is memory, which a resource of a device would be inserted into.
            .without_windows()
            .object(AcpiObject::Text { name: "_CID", value: COMPATIBLE.into() })
            .object(AcpiObject::Text { name: "_DDN", value: COMPATIBLE.into() })
            .object(AcpiObject::Integers { name: "ADDR", values: halves }),
    )
}

/// The id of an aarch64 machine, which also has an INTID that only a devicetree describes.
#[must_use]
pub fn aarch64_node(page: u64, hid: &'static str, intid: u32) -> DeviceNode {
    let line = Interrupt { gsi: intid, trigger: Trigger::Edge };
    x86_64_node(page, hid).devicetree(
        DevicetreeIdentity::new("rng", ["microsoft,vmgenid"])
            .property("interrupts", Property::Interrupts(vec![line])),
    )
}

/// Bytes of the page.
const PAGE: u64 = 0x1000;
/// `_CID` and `_DDN`, as the specification requires them. ACPICA converts it to upper case, as Linux's driver has it.
const COMPATIBLE: &str = "VM_Gen_Counter";
/// Its name under `\_SB`.
pub(crate) const ACPI_NAME: &str = "VGEN";
