//! The console's serial port, as SPCR and DBG2 describe it.

use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use platform::{AcpiIdentity, DeviceNode, DeviceRole, InterruptController, Platform, Window};

/// Length of a Generic Address Structure in bytes (ACPI 6.5, 5.2.3.2, table 5.1).
pub(super) const GAS_LEN: usize = 12;

const _: () = assert!(size_of::<GAS>() == GAS_LEN);

/// The kinds of serial ports that these tables can describe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A full 16550.
    Full16550,
    /// An Arm PL011.
    Pl011,
}

impl Kind {
    /// Interface type in SPCR, port subtype in DBG2 (Microsoft, DBG2, table 3).
    pub(super) const fn number(self) -> u8 {
        match self {
            Kind::Full16550 => 0,
            Kind::Pl011 => 3,
        }
    }
}

/// The serial port that is the guest's console.
pub(super) struct Port<'a> {
    pub(super) kind: Kind,
    pub(super) identity: &'a AcpiIdentity,
    /// Address and access width of its registers: a Generic Address Structure.
    pub(super) registers: [u8; GAS_LEN],
    /// Length of its registers in bytes.
    pub(super) len: u32,
    /// GSI and interrupt controller. `None` if the port has no interrupt.
    pub(super) interrupt: Option<(u32, Controller)>,
}

/// Interrupt types of SPCR.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Controller {
    /// An I/O APIC.
    IoApic = 1 << 1,
    /// A GIC.
    Gic = 1 << 3,
}

impl<'a> Port<'a> {
    /// `None` if the console is not a serial port that these tables can describe.
    pub(super) fn of(platform: &'a Platform) -> Option<Self> {
        let device = platform.console_device()?;
        let identity = device.acpi.as_ref()?;
        let kind = match device.role? {
            DeviceRole::Ns16550 => Kind::Full16550,
            DeviceRole::Pl011 => Kind::Pl011,
            _ => return None,
        };
        let (space, len) = match *device.windows.first()? {
            Window::Ports { len, .. } => (AddressSpace::SystemIo, u32::from(len)),
            Window::Mmio { len, .. } => (AddressSpace::SystemMemory, u32::try_from(len).ok()?),
        };
        let (width, access) = match kind {
            Kind::Full16550 => (8, AccessSize::ByteAccess),
            Kind::Pl011 => (32, AccessSize::DwordAccess),
        };
        let registers = GAS::new(space, width, 0, access, device.windows.first()?.base());
        let interrupt = interrupt(platform, device);
        Some(Port { kind, identity, registers: zerocopy::transmute!(registers), len, interrupt })
    }
}

fn interrupt(platform: &Platform, device: &DeviceNode) -> Option<(u32, Controller)> {
    let controller = match platform.interrupts {
        InterruptController::Apic { .. } => Controller::IoApic,
        InterruptController::Gicv3 { .. } | InterruptController::Gicv2 { .. } => Controller::Gic,
    };
    Some((device.interrupts.first()?.gsi, controller))
}
