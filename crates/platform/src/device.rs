//! A device as tables describe it.
//!
//! What both languages say (registers, interrupts) stands here once; what only one of them says (an `_HID`, a
//! `compatible`) stands beside it. A table builder takes the window and the interrupt from the shared part, so the ACPI
//! and the devicetree description of a device cannot drift apart.

/// One contiguous block of a device's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// x86 I/O ports.
    Ports {
        /// First port.
        base: u16,
        /// Number of ports.
        len: u16,
    },
    /// Memory-mapped registers.
    Mmio {
        /// First GPA.
        base: u64,
        /// Bytes.
        len: u64,
    },
}

impl Window {
    /// First port or GPA, whichever the window is in.
    #[must_use]
    pub const fn base(self) -> u64 {
        match self {
            Window::Ports { base, .. } => base as u64,
            Window::Mmio { base, .. } => base,
        }
    }
}

/// When an interrupt line is taken to be active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Rising edge.
    Edge,
    /// High level.
    Level,
}

/// An interrupt line of a device. Active high on both architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Global system interrupt. On aarch64 this is the GIC INTID (an SPI starts at 32).
    pub gsi: u32,
    /// Edge or level.
    pub trigger: Trigger,
}

/// An object in a device's ACPI scope, beyond `_HID`, `_UID`, `_CRS` and `_STA`, which every device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcpiObject {
    /// `Name (name, integer)`.
    Integer {
        /// Four-character name.
        name: &'static str,
        /// Value.
        value: u64,
    },
    /// `Name (name, "text")`.
    Text {
        /// Four-character name.
        name: &'static str,
        /// Value.
        value: String,
    },
    /// The `_EVT` method of a Generic Event Device (ACPI 6.5, 5.6.9): reads `selector`, a 32-bit register of bits that
    /// clears as it is read, and notifies the device behind each bit that is set.
    GenericEvents {
        /// The register, four bytes.
        selector: Window,
        /// What each bit stands for.
        sources: Vec<EventSource>,
    },
}

/// A bit of a Generic Event Device's selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSource {
    /// The bit, alone: 1, 2, 4 ...
    pub mask: u32,
    /// Four-character name, under `\_SB`, of the device to notify.
    pub target: &'static str,
    /// Notification value (0x80 for a button and for an error device).
    pub value: u8,
}

/// What ACPI says of a device and nothing else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiIdentity {
    /// Four-character name under `\_SB`.
    pub name: &'static str,
    /// `_HID`: an EISA id (`PNP0501`) or an ACPI id (`ACPI0013`, `LNRO0005`).
    pub hid: &'static str,
    /// `_UID`.
    pub uid: u32,
    /// Other objects in the device's scope.
    pub objects: Vec<AcpiObject>,
}

/// What a devicetree says of a device and nothing else does. `reg` and `interrupts` come from the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicetreeIdentity {
    /// Generic node name (Devicetree Specification 0.4, 2.2.2), without the unit address.
    pub node_name: &'static str,
    /// `compatible`, most specific first.
    pub compatible: Vec<&'static str>,
    /// Further properties.
    pub properties: Vec<(&'static str, Property)>,
    /// Nodes below it.
    pub children: Vec<DevicetreeChild>,
}

/// A node below a device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicetreeChild {
    /// Its name.
    pub node_name: &'static str,
    /// Its properties.
    pub properties: Vec<(&'static str, Property)>,
}

/// The value of a devicetree property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// No value: its presence says it.
    Flag,
    /// 32-bit cells.
    Cells(Vec<u32>),
    /// A string list.
    Text(Vec<String>),
    /// Other devices of the platform, by [`DeviceNode::name`], each with the cells that follow its phandle.
    Devices(Vec<(&'static str, Vec<u32>)>),
    /// Interrupts, as the machine's interrupt controller has them.
    Interrupts(Vec<Interrupt>),
}

/// A device, described for every kind of table that knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// The name by which the VMM knows it (`serial0`); unique in a platform.
    pub name: String,
    /// Its registers.
    pub windows: Vec<Window>,
    /// Its interrupts.
    pub interrupts: Vec<Interrupt>,
    /// Its ACPI description; none where ACPI does not list the device.
    pub acpi: Option<AcpiIdentity>,
    /// Its devicetree description; none where a devicetree does not list the device.
    pub devicetree: Option<DevicetreeIdentity>,
}
