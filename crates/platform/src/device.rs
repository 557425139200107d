//! A device as firmware tables describe it.
//!
//! A [`DeviceNode`] states once what ACPI and the devicetree both describe (registers, interrupts), and beside that what
//! only one of them describes (an `_HID`, a `compatible`). A table builder takes registers and interrupts from the
//! shared part, so the two descriptions of a device cannot differ.
//!
//! ```
//! use platform::{AcpiIdentity, DeviceNode, DeviceRole, DevicetreeIdentity, Trigger};
//!
//! let serial = DeviceNode::new("serial0")
//!     .mmio(0x900_0000, 0x1000)
//!     .interrupt(33, Trigger::Level)
//!     .role(DeviceRole::Pl011)
//!     .acpi(AcpiIdentity::new("COM0", "ARMH0011"))
//!     .devicetree(DevicetreeIdentity::new("serial", ["arm,pl011", "arm,primecell"]));
//! assert_eq!(serial.windows[0].base(), 0x900_0000);
//! ```

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
        /// Length in bytes.
        len: u64,
    },
}

impl Window {
    /// The first I/O port or the first GPA.
    #[must_use]
    pub const fn base(self) -> u64 {
        match self {
            Window::Ports { base, .. } => base as u64,
            Window::Mmio { base, .. } => base,
        }
    }
}

/// The trigger mode of an interrupt line.
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
    /// Global system interrupt. On aarch64 this is the GIC INTID (SPIs start at 32).
    pub gsi: u32,
    /// Edge or level.
    pub trigger: Trigger,
}

/// A function of a device that fixed firmware tables refer to.
///
/// Table builders use this, never a device's name or `_HID`, to decide what SPCR, DBG2, FADT and HEST contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceRole {
    /// A 16550-compatible serial port, registers one byte wide and adjacent. As the console: SPCR interface type 0.
    Ns16550,
    /// An Arm PL011 serial port (Arm DDI 0183). As the console: SPCR interface type 3, and a DBG2 debug port.
    Pl011,
    /// A CMOS real-time clock at ports 0x70 and 0x71. Without one the FADT sets CMOS RTC Not Present (x86).
    CmosRtc,
    /// An 8042 keyboard controller with a keyboard behind it. The FADT sets 8042 (x86).
    KeyboardController,
    /// The error device (ACPI 6.5, 18.3.2.7.2): the target of the Generic Event Device's notification that a hardware
    /// error was recorded.
    ErrorDevice,
}

/// An object in a device's ACPI scope, besides `_HID`, `_UID`, `_CRS` and `_STA`, which every device has.
///
/// Not `#[non_exhaustive]`: a table builder has to encode every one.
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
        /// Value: printable ASCII.
        value: String,
    },
    /// `Name (name, Package () { integers })`.
    Integers {
        /// Four-character name.
        name: &'static str,
        /// Values, at most 255.
        values: Vec<u64>,
    },
    /// The `_EVT` method of a Generic Event Device (ACPI 6.5, 5.6.9): reads `selector`, a 32-bit register that is
    /// cleared by the read, and notifies one device for each bit that is set.
    GenericEvents {
        /// The register, four bytes.
        selector: Window,
        /// The meaning of each bit.
        sources: Vec<EventSource>,
    },
}

/// A bit of a Generic Event Device's selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSource {
    /// The bit as a mask: 1, 2, 4 ...
    pub mask: u32,
    /// Four-character name, under `\_SB`, of the device to notify.
    pub target: &'static str,
    /// Notification value (ACPI 6.5, 5.6.6): 0x80 for a button, an error device and a generation counter.
    pub value: u8,
}

/// The ACPI-only part of a device's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiIdentity {
    /// Four-character name under `\_SB`.
    pub name: &'static str,
    /// `_HID`: an EISA id (`PNP0501`) or an ACPI id (`ACPI0013`, `LNRO0005`).
    pub hid: &'static str,
    /// `_UID`.
    pub uid: u32,
    /// Whether `_CRS` lists the device's register windows. Otherwise one of its objects has their address.
    pub lists_windows: bool,
    /// Further objects in the device's scope.
    pub objects: Vec<AcpiObject>,
}

impl AcpiIdentity {
    /// An identity with `_UID` 0 and no further objects.
    #[must_use]
    pub const fn new(name: &'static str, hid: &'static str) -> Self {
        AcpiIdentity { name, hid, uid: 0, lists_windows: true, objects: Vec::new() }
    }

    /// Sets `_UID`.
    #[must_use]
    pub fn uid(self, uid: u32) -> Self {
        AcpiIdentity { uid, ..self }
    }

    /// Leaves the register windows to an object of the device's scope: `_CRS` does not list them.
    #[must_use]
    pub fn without_windows(self) -> Self {
        AcpiIdentity { lists_windows: false, ..self }
    }

    /// Adds an object to the device's scope.
    #[must_use]
    pub fn object(mut self, object: AcpiObject) -> Self {
        self.objects.push(object);
        self
    }
}

/// The devicetree-only part of a device's description. `reg` and `interrupts` come from the [`DeviceNode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicetreeIdentity {
    /// Generic node name (Devicetree Specification 0.4, 2.2.2), without the unit address.
    pub node_name: &'static str,
    /// `compatible`, most specific first.
    pub compatible: Vec<&'static str>,
    /// Further properties.
    pub properties: Vec<(&'static str, Property)>,
    /// Child nodes.
    pub children: Vec<DevicetreeChild>,
}

impl DevicetreeIdentity {
    /// An identity without further properties and children.
    #[must_use]
    pub fn new(node_name: &'static str, compatible: impl Into<Vec<&'static str>>) -> Self {
        DevicetreeIdentity {
            node_name,
            compatible: compatible.into(),
            properties: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Adds a property.
    #[must_use]
    pub fn property(mut self, name: &'static str, value: Property) -> Self {
        self.properties.push((name, value));
        self
    }

    /// Adds several properties.
    #[must_use]
    pub fn properties(mut self, properties: impl IntoIterator<Item = (&'static str, Property)>) -> Self {
        self.properties.extend(properties);
        self
    }

    /// Adds a child node.
    #[must_use]
    pub fn child(mut self, child: DevicetreeChild) -> Self {
        self.children.push(child);
        self
    }
}

/// A child node of a device's devicetree node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicetreeChild {
    /// Node name.
    pub node_name: &'static str,
    /// Properties.
    pub properties: Vec<(&'static str, Property)>,
}

/// The value of a devicetree property.
///
/// Not `#[non_exhaustive]`: a table builder has to encode every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// An empty value: the property's presence is its meaning.
    Flag,
    /// 32-bit cells.
    Cells(Vec<u32>),
    /// A string list.
    Text(Vec<String>),
    /// References to devices of the platform by [`DeviceNode::name`], or to clocks by [`FixedClock::name`], each with
    /// the cells that follow its phandle.
    ///
    /// [`FixedClock::name`]: crate::FixedClock::name
    Devices(Vec<(&'static str, Vec<u32>)>),
    /// Interrupts, encoded as the machine's interrupt controller expects.
    Interrupts(Vec<Interrupt>),
}

/// A device and its description in every kind of table that lists it.
///
/// Made by [`new`](Self::new) and the methods that follow it, so that a new field changes no device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNode {
    /// The name by which the VMM identifies it (`serial0`); unique in a platform.
    pub name: String,
    /// Its registers. The first one gives the devicetree node its unit address.
    pub windows: Vec<Window>,
    /// Its interrupt lines.
    pub interrupts: Vec<Interrupt>,
    /// Whether it sends message-signalled interrupts (MSI). A GICv3 machine has an ITS only if a device does.
    pub msi: bool,
    /// What fixed tables refer to it as. `None` if they do not.
    pub role: Option<DeviceRole>,
    /// Its ACPI description. `None` if ACPI does not list the device.
    pub acpi: Option<AcpiIdentity>,
    /// Its devicetree description. `None` if a devicetree does not list the device.
    pub devicetree: Option<DevicetreeIdentity>,
}

impl DeviceNode {
    /// A device without registers and interrupts that no table lists.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        DeviceNode { name: name.into(), ..DeviceNode::default() }
    }

    /// Adds `len` I/O ports from `base` on.
    #[must_use]
    pub fn ports(self, base: u16, len: u16) -> Self {
        self.window(Window::Ports { base, len })
    }

    /// Adds `len` bytes of memory-mapped registers at the GPA `base`.
    #[must_use]
    pub fn mmio(self, base: u64, len: u64) -> Self {
        self.window(Window::Mmio { base, len })
    }

    /// Adds a register window.
    #[must_use]
    pub fn window(mut self, window: Window) -> Self {
        self.windows.push(window);
        self
    }

    /// Adds an interrupt line.
    #[must_use]
    pub fn interrupt(mut self, gsi: u32, trigger: Trigger) -> Self {
        self.interrupts.push(Interrupt { gsi, trigger });
        self
    }

    /// Declares that the device sends message-signalled interrupts.
    #[must_use]
    pub fn msi(self) -> Self {
        DeviceNode { msi: true, ..self }
    }

    /// Sets the device's role.
    #[must_use]
    pub fn role(self, role: DeviceRole) -> Self {
        DeviceNode { role: Some(role), ..self }
    }

    /// Sets the ACPI description.
    #[must_use]
    pub fn acpi(self, identity: AcpiIdentity) -> Self {
        DeviceNode { acpi: Some(identity), ..self }
    }

    /// Sets the devicetree description.
    #[must_use]
    pub fn devicetree(self, identity: DevicetreeIdentity) -> Self {
        DeviceNode { devicetree: Some(identity), ..self }
    }
}
