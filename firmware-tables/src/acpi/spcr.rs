//! SPCR: the serial port that is the console.

use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use platform::{DeviceNode, Platform, Window};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::header;

/// The hardware id of a 16550A serial port.
const SERIAL_16550: &str = "PNP0501";
/// Interface type: a full 16550.
const INTERFACE_16550: u8 = 0;
/// Interrupt type: an I/O APIC's pin, given as a GSI.
const INTERRUPT_IO_APIC: u8 = 1 << 1;
/// Baud rate: 115200.
const BAUD_115200: u8 = 7;
/// Stop bits: one.
const ONE_STOP_BIT: u8 = 1;
/// Terminal type: VT-UTF8.
const TERMINAL_VT_UTF8: u8 = 2;
/// PCI device and vendor of what is not on PCI.
const NOT_PCI: u16 = 0xffff;

/// Serial Port Console Redirection table, revision 2 (Microsoft, version 1.03): what all kernels since have read without
/// complaint. None where the console is not a 16550.
pub(super) fn bytes(platform: &Platform) -> Option<Vec<u8>> {
    let console = platform.console_device().filter(|device| is_16550(device))?;
    let (space, base) = match *console.windows.first()? {
        Window::Ports { base, .. } => (AddressSpace::SystemIo, base.into()),
        Window::Mmio { base, .. } => (AddressSpace::SystemMemory, base),
    };
    let interrupt = console.interrupts.first();
    let body = Body {
        interface_type: INTERFACE_16550,
        reserved: [0; 3],
        base_address: gas_bytes(GAS::new(space, 8, 0, AccessSize::ByteAccess, base)),
        interrupt_type: interrupt.map_or(0, |_| INTERRUPT_IO_APIC),
        irq: 0,
        gsi: U32::new(interrupt.map_or(0, |interrupt| interrupt.gsi)),
        baud_rate: BAUD_115200,
        parity: 0,
        stop_bits: ONE_STOP_BIT,
        flow_control: 0,
        terminal_type: TERMINAL_VT_UTF8,
        language: 0,
        pci_device_id: U16::new(NOT_PCI),
        pci_vendor_id: U16::new(NOT_PCI),
        pci_bus: 0,
        pci_device: 0,
        pci_function: 0,
        pci_flags: U32::ZERO,
        pci_segment: 0,
        reserved2: U32::ZERO,
    };
    Some(header::table(*b"SPCR", 2, body.as_bytes()))
}

fn is_16550(device: &DeviceNode) -> bool {
    device.acpi.as_ref().is_some_and(|identity| identity.hid == SERIAL_16550)
}

/// Bytes of a Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).
const GAS_LEN: usize = 12;

const _: () = assert!(size_of::<GAS>() == GAS_LEN);

fn gas_bytes(gas: GAS) -> [u8; GAS_LEN] {
    zerocopy::transmute!(gas)
}

/// The table behind its header (Serial Port Console Redirection table 1.03).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    interface_type: u8,
    reserved: [u8; 3],
    base_address: [u8; GAS_LEN],
    interrupt_type: u8,
    /// The line at the 8259s, which this table does not name.
    irq: u8,
    gsi: U32,
    baud_rate: u8,
    parity: u8,
    stop_bits: u8,
    flow_control: u8,
    terminal_type: u8,
    language: u8,
    pci_device_id: U16,
    pci_vendor_id: U16,
    pci_bus: u8,
    pci_device: u8,
    pci_function: u8,
    pci_flags: U32,
    pci_segment: u8,
    reserved2: U32,
}

const _: () = assert!(size_of::<Body>() == 80 - 36);
