//! Errors of PCI and PCI-X buses and components.

use zerocopy::little_endian::{U16, U32, U64};

use super::error_status;
use crate::guid::Guid;
use crate::layout::{Kind, Part, bits, wire};

/// Section type of PCI bus errors.
pub(super) const BUS: Guid =
    Guid::new(0xc575_3963, 0x3b84, 0x4095, [0xbf, 0x78, 0xed, 0xda, 0xd3, 0xf9, 0xc9, 0xdd]);

/// Section type of errors of PCI components.
pub(super) const DEVICE: Guid =
    Guid::new(0xeb5e_4685, 0xca66, 0x4769, [0xb6, 0xa2, 0x26, 0x06, 0x8b, 0x00, 0x13, 0x26]);

wire! {
    /// PCI/PCI-X Bus Error Section (UEFI 2.10, N.2.8).
    pub(super) struct PciBusError: 72, "length of the PCI bus error section" {
        validation: U64 = Kind::Validation;
        error_status: U64 ?0 = Kind::Hex,
            error_status_type[8..16] = error_status::TYPE,
            error_status_flags[0..64] = error_status::FLAGS;
        error_type: U16 ?1 = Kind::Named(&[
            "unknown",
            "data parity error",
            "system error",
            "master abort",
            "bus timeout or no device present",
            "master data parity error",
            "address parity error",
            "command parity error",
        ]);
        bus_id: U16 ?2 = Kind::Parts,
            bus[0..8] ?2 = Kind::Number,
            segment[8..16] ?2 = Kind::Number;
        reserved: U32 = Kind::Reserved;
        bus_address: U64 ?3 = Kind::Hex;
        bus_data: U64 ?4 = Kind::Hex;
        bus_command: U64 ?5 = Kind::Hex;
        requestor_id: U64 ?6 = Kind::Hex;
        completer_id: U64 ?7 = Kind::Hex;
        target_id: U64 ?8 = Kind::Hex;
    }
}

wire! {
    /// PCI/PCI-X Component Error Section, fixed part (UEFI 2.10, N.2.9).
    pub(super) struct PciDeviceError: 40, "length of the PCI device error section" {
        validation: U64 = Kind::Validation;
        error_status: U64 ?0 = Kind::Hex,
            error_status_type[8..16] = error_status::TYPE,
            error_status_flags[0..64] = error_status::FLAGS;
        device_id: PciDeviceId ?1 = Kind::Group(PciDeviceId::LAYOUT);
        memory_number: U32 ?2 = Kind::Number;
        io_number: U32 ?3 = Kind::Number;
    }
    parts = [
        Part::List {
            name: "memory_register",
            count: bits!(PciDeviceError, memory_number),
            valid: &[2, 4],
            item: RegisterPair::LAYOUT,
        },
        Part::List {
            name: "io_register",
            count: bits!(PciDeviceError, io_number),
            valid: &[3, 4],
            item: RegisterPair::LAYOUT,
        },
    ];
}

wire! {
    /// ID information of a PCI component (UEFI 2.10, N.2.9).
    pub(super) struct PciDeviceId: 16, "length of a device id" {
        vendor_id: U16 = Kind::Hex;
        device_id: U16 = Kind::Hex;
        class_code: [u8; 3] = Kind::Parts,
            class_code[0..24] = Kind::Hex;
        function: u8 = Kind::Number;
        device: u8 = Kind::Number;
        bus: u8 = Kind::Number;
        segment: u8 = Kind::Number;
        reserved: [u8; 5] = Kind::Reserved;
    }
}

wire! {
    /// Register data pair of a PCI component (UEFI 2.10, N.2.9).
    pub(super) struct RegisterPair: 16, "length of a register data pair" {
        address: U64 = Kind::Hex;
        value: U64 = Kind::Hex;
    }
}
