//! SPCR: the serial port of the console.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::console::GAS_LEN;
use super::{AcpiTable, Body, Context};
use crate::BuildError;

/// Baud rate: 115200.
const BAUD_115200: u8 = 7;
/// Stop bits: one.
const ONE_STOP_BIT: u8 = 1;
/// Terminal type: VT-UTF8.
const TERMINAL_VT_UTF8: u8 = 2;
/// PCI device and vendor id of a port that is not on PCI.
const NOT_PCI: u16 = 0xffff;

/// Serial Port Console Redirection table, revision 2 (Microsoft, version 1.03), if the console is a serial port that it
/// can describe. Every kernel reads this revision.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"SPCR", name: "spcr", file_name: "spcr.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let Some(port) = &context.console else { return Ok(None) };
    let redirection = Redirection {
        interface_type: port.kind.number(),
        reserved: [0; 3],
        base_address: port.registers,
        interrupt_type: port.interrupt.map_or(0, |(_, controller)| controller as u8),
        irq: 0,
        gsi: U32::new(port.interrupt.map_or(0, |(gsi, _)| gsi)),
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
    Ok(Some(Body { revision: 2, bytes: redirection.as_bytes().to_vec() }))
}

/// The table without its header (Serial Port Console Redirection table 1.03).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Redirection {
    interface_type: u8,
    reserved: [u8; 3],
    base_address: [u8; GAS_LEN],
    interrupt_type: u8,
    /// The 8259 line; not used, as bit 0 of the interrupt type is clear.
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

const _: () = assert!(size_of::<Redirection>() == 80 - 36);
