//! The console's serial port, as SPCR and DBG2 both say it.

use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use platform::{AcpiIdentity, DeviceNode, InterruptController, Platform, Window};

/// Bytes of a Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).
pub(super) const GAS_LEN: usize = 12;

const _: () = assert!(size_of::<GAS>() == GAS_LEN);

/// A kind of serial port that these tables know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A full 16550.
    Full16550,
    /// Arm's PL011.
    Pl011,
}

impl Kind {
    /// Its number: SPCR's interface type, DBG2's subtype of serial ports (Microsoft, DBG2, table 3).
    pub(super) const fn number(self) -> u8 {
        match self {
            Kind::Full16550 => 0,
            Kind::Pl011 => 3,
        }
    }
}

/// The port that the guest's first console is on.
pub(super) struct Port<'a> {
    pub(super) kind: Kind,
    pub(super) identity: &'a AcpiIdentity,
    /// Where its registers are, and how they are accessed: a Generic Address Structure.
    pub(super) registers: [u8; GAS_LEN],
    /// Bytes of its registers.
    pub(super) len: u32,
    /// GSI, and the kind of the controller that it is a pin of.
    pub(super) interrupt: Option<(u32, Controller)>,
}

/// SPCR's bits for the kinds of interrupt controllers.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Controller {
    /// An I/O APIC.
    IoApic = 1 << 1,
    /// A GIC.
    Gic = 1 << 3,
}

impl<'a> Port<'a> {
    /// None where the console is no serial port of a known kind.
    pub(super) fn of(platform: &'a Platform) -> Option<Self> {
        let device = platform.console_device()?;
        let identity = device.acpi.as_ref()?;
        let kind = match identity.hid {
            "PNP0501" => Kind::Full16550,
            "ARMH0011" => Kind::Pl011,
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
