//! DBG2: the serial port for the early console of a kernel.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::console::{GAS_LEN, Kind};
use super::{AcpiTable, Body, Context, header};
use crate::BuildError;

/// Port type: serial.
const SERIAL: u16 = 0x8000;

/// Debug Port Table 2, revision 0 (Microsoft, "Debug Port Table 2", 2023), if the console is a PL011: one port.
pub(super) const TABLE: AcpiTable =
    AcpiTable { signature: *b"DBG2", name: "dbg2", file_name: "dbg2.aml", body };

fn body(context: &Context<'_>) -> Result<Option<Body>, BuildError> {
    let Some(port) = context.console.as_ref().filter(|port| port.kind == Kind::Pl011) else {
        return Ok(None);
    };
    let name = format!("\\_SB.{}\0", port.identity.name);
    let fixed = size_of::<Device>() as u16;
    let device = Device {
        revision: 0,
        length: U16::new(fixed + name.len() as u16),
        address_count: 1,
        name_length: U16::new(name.len() as u16),
        name_offset: U16::new(fixed),
        oem_data_length: U16::ZERO,
        oem_data_offset: U16::ZERO,
        port_type: U16::new(SERIAL),
        port_subtype: U16::new(port.kind.number().into()),
        reserved: U16::ZERO,
        address_offset: U16::new(std::mem::offset_of!(Device, address) as u16),
        address_size_offset: U16::new(std::mem::offset_of!(Device, address_size) as u16),
        address: port.registers,
        address_size: U32::new(port.len),
    };
    let devices = Devices { offset: U32::new(header::LEN + size_of::<Devices>() as u32), count: U32::new(1) };
    let bytes = [devices.as_bytes(), device.as_bytes(), name.as_bytes()].concat();
    Ok(Some(Body { revision: 0, bytes }))
}

/// The part between the header and the device information (table 1).
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Devices {
    /// Offset from the table's start.
    offset: U32,
    count: U32,
}

const _: () = assert!(size_of::<Devices>() == 8);

/// Debug Device Information structure (table 2) with one address; the ACPI path of the device follows.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Device {
    revision: u8,
    length: U16,
    address_count: u8,
    name_length: U16,
    name_offset: U16,
    oem_data_length: U16,
    oem_data_offset: U16,
    port_type: U16,
    port_subtype: U16,
    reserved: U16,
    address_offset: U16,
    address_size_offset: U16,
    address: [u8; GAS_LEN],
    address_size: U32,
}

const _: () = assert!(size_of::<Device>() == 22 + GAS_LEN + 4);
