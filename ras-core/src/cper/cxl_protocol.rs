//! Protocol errors of CXL components.

use zerocopy::little_endian::{U16, U32, U64};

use super::pcie::PcieCapability;
use crate::guid::Guid;
use crate::layout::{ByteString, Kind, Part, Selector, View, bits, flags, wire};

/// Section type of CXL protocol errors.
pub(super) const KIND: Guid =
    Guid::new(0x80b9_efb4, 0x52b5, 0x4de3, [0xa7, 0x77, 0x68, 0x78, 0x4b, 0x77, 0x10, 0x48]);

wire! {
    /// Compute Express Link (CXL) Protocol Error Section, fixed part (UEFI 2.10, N.2.13).
    pub(super) struct CxlProtocolError: 116, "length of the CXL protocol error section" {
        validation: U64 = Kind::Validation;
        agent_type: u8 ?0 = Kind::Named(&[
            "restricted CXL device",
            "restricted CXL host downstream port",
            "CXL device",
            "CXL logical device",
            "CXL fabric manager managed logical device",
            "CXL root port",
            "CXL downstream switch port",
            "CXL upstream switch port",
        ]);
        reserved: [u8; 7] = Kind::Reserved;
        // That of a restricted host's port is the address of its registers (RCRB).
        agent_address: U64 ?1 = Kind::Hex,
            agent[0..64] = Kind::Choice {
                by: bits!(CxlProtocolError, agent_type),
                if_valid: Some(0),
                of: &[
                    (Selector::Number(0), AgentAddress::LAYOUT),
                    (Selector::Number(2), AgentAddress::LAYOUT),
                    (Selector::Number(3), AgentAddress::LAYOUT),
                    (Selector::Number(4), AgentAddress::LAYOUT),
                    (Selector::Number(5), AgentAddress::LAYOUT),
                    (Selector::Number(6), AgentAddress::LAYOUT),
                    (Selector::Number(7), AgentAddress::LAYOUT),
                ],
            };
        device_id: CxlDeviceId ?2 = Kind::Group(CxlDeviceId::LAYOUT);
        serial_number: U64 ?3 = Kind::Hex;
        capability: PcieCapability ?4 = Kind::Group(PcieCapability::LAYOUT);
        dvsec_length: U16 = Kind::Computed;
        error_log_length: U16 = Kind::Computed;
        reserved_2: U32 = Kind::Reserved;
    }
    parts = [
        Part::Bytes(ByteString {
            name: "dvsec",
            what: "length of the CXL DVSEC",
            len: Some(bits!(CxlProtocolError, dvsec_length)),
            valid: Some((5, "invalid_dvsec_bytes")),
            view: None,
        }),
        Part::Bytes(ByteString {
            name: "error_log",
            what: "length of the CXL error log",
            len: Some(bits!(CxlProtocolError, error_log_length)),
            valid: Some((6, "invalid_error_log_bytes")),
            view: Some(View {
                name: "ras_capability",
                by: bits!(CxlProtocolError, error_log_length),
                of: &[(Selector::Any, RasCapability::LAYOUT)],
            }),
        }),
    ];
}

wire! {
    /// CXL Agent Address of a device (UEFI 2.10, N.2.13).
    pub(super) struct AgentAddress: 8, "length of an agent address" {
        function: u8 = Kind::Number;
        device: u8 = Kind::Number;
        bus: u8 = Kind::Number;
        segment: U16 = Kind::Number;
        reserved: [u8; 3] = Kind::Reserved;
    }
}

wire! {
    /// Device ID of a CXL protocol error (UEFI 2.10, N.2.13).
    pub(super) struct CxlDeviceId: 16, "length of a device id" {
        vendor_id: U16 = Kind::Hex;
        device_id: U16 = Kind::Hex;
        subsystem_vendor_id: U16 = Kind::Hex;
        subsystem_id: U16 = Kind::Hex;
        class_code: U16 = Kind::Hex;
        slot_number: U16 = Kind::Parts,
            reserved_slot_bits[0..3] = Kind::Reserved,
            slot[3..16] = Kind::Number;
        reserved: U32 = Kind::Reserved;
    }
}

wire! {
    /// CXL RAS Capability Structure (CXL 3.1, 8.2.4.17).
    pub(super) struct RasCapability: 88, "length of a CXL RAS capability" {
        uncorrectable_status: U32 = Kind::Hex,
            uncorrectable_errors[0..32] = flags(&[
                "cache-data-parity",
                "cache-address-parity",
                "cache-byte-enable-parity",
                "cache-data-ecc",
                "memory-data-parity",
                "memory-address-parity",
                "memory-byte-enable-parity",
                "memory-data-ecc",
                "reinit-threshold",
                "reserved-encoding",
                "poison-received",
                "receiver-overflow",
                "",
                "",
                "internal",
                "ide-tx",
                "ide-rx",
            ]);
        uncorrectable_mask: U32 = Kind::Hex;
        uncorrectable_severity: U32 = Kind::Hex;
        correctable_status: U32 = Kind::Hex,
            correctable_errors[0..32] = flags(&[
                "cache-data-ecc",
                "memory-data-ecc",
                "crc-threshold",
                "retry-threshold",
                "cache-poison-received",
                "memory-poison-received",
                "physical-layer",
            ]);
        correctable_mask: U32 = Kind::Hex;
        capabilities_control: U32 = Kind::Hex;
        header_log: [u8; 64] = Kind::Bytes;
    }
}
