//! Errors of DMA remapping units.

use zerocopy::little_endian::{U16, U32, U64};

use crate::guid::Guid;
use crate::layout::{Kind, wire};

/// Section type of DMA remapping errors of any architecture.
pub(super) const GENERIC: Guid =
    Guid::new(0x5b51_fef7, 0xc79d, 0x4434, [0x8f, 0x1b, 0xaa, 0x62, 0xde, 0x3e, 0x2c, 0x64]);

/// Section type of errors of Intel VT for Directed I/O.
pub(super) const VTD: Guid =
    Guid::new(0x7176_1d37, 0x32b2, 0x45cd, [0xa7, 0xd0, 0xb0, 0xfe, 0xdd, 0x93, 0xe8, 0xcf]);

/// Section type of errors of AMD's IOMMU.
pub(super) const IOMMU: Guid =
    Guid::new(0x036f_84e1, 0x7f37, 0x428c, [0xa7, 0x9e, 0x57, 0x5f, 0xdf, 0xaa, 0x84, 0xec]);

wire! {
    /// DMAr Generic Error Section (UEFI 2.10, N.2.11.1).
    pub(super) struct DmarError: 32, "length of the DMAr generic error section" {
        requester_id: U16 = Kind::Hex;
        segment: U16 = Kind::Number;
        fault_reason: u8 = Kind::Named(&[
            "",
            "domain mapping table entry is not present",
            "invalid domain mapping table entry",
            "access to the domain mapping table failed",
            "reserved bit in a domain mapping table entry",
            "address beyond the device address width",
            "invalid read or write",
            "invalid device request",
            "access to the address translation table failed",
            "reserved bit in an address translation table entry",
            "illegal command",
            "access to the command buffer failed",
        ]);
        access_type: u8 = Kind::Named(&["DMA write", "DMA read"]);
        address_type: u8 = Kind::Named(&["untranslated request", "translation request"]);
        architecture_type: u8 = Kind::Named(&["VT-d", "IOMMU"]);
        device_address: U64 = Kind::Hex;
        reserved: [u8; 16] = Kind::Reserved;
    }
}

wire! {
    /// Intel VT for Directed I/O specific DMAr Error Section (UEFI 2.10, N.2.11.2).
    pub(super) struct VtdError: 144, "length of the VT-d error section" {
        version: u8 = Kind::Hex;
        revision: u8 = Kind::Hex;
        oem_id: [u8; 6] = Kind::Bytes;
        capability: U64 = Kind::Hex;
        extended_capability: U64 = Kind::Hex;
        global_command: U32 = Kind::Hex;
        global_status: U32 = Kind::Hex;
        fault_status: U32 = Kind::Hex;
        reserved: [u8; 12] = Kind::Reserved;
        fault_record: FaultRecord = Kind::Group(FaultRecord::LAYOUT);
        root_entry: [u8; 16] = Kind::Bytes;
        context_entry: [u8; 16] = Kind::Bytes;
        level_6_entry: U64 = Kind::Hex;
        level_5_entry: U64 = Kind::Hex;
        level_4_entry: U64 = Kind::Hex;
        level_3_entry: U64 = Kind::Hex;
        level_2_entry: U64 = Kind::Hex;
        level_1_entry: U64 = Kind::Hex;
    }
}

wire! {
    /// Fault Recording Register (Intel VT-d 4.1, 11.4.7.6).
    pub(super) struct FaultRecord: 16, "length of a fault record" {
        fault_information: U64 = Kind::Parts,
            reserved_low[0..12] = Kind::Reserved,
            fault_page[12..64] = Kind::Hex;
        details: U64 = Kind::Parts,
            source_id[0..16] = Kind::Hex,
            reserved_middle[16..29] = Kind::Reserved,
            privileged[29..30] = Kind::YES_OR_NO,
            execute[30..31] = Kind::YES_OR_NO,
            pasid_present[31..32] = Kind::YES_OR_NO,
            fault_reason[32..40] = Kind::Hex,
            pasid[40..60] = Kind::Hex,
            address_type[60..62] = Kind::Number,
            request[62..63] = Kind::Named(&["write", "read or AtomicOp"]),
            reserved_high[63..64] = Kind::Reserved;
    }
}

wire! {
    /// IOMMU Specific DMAr Error Section (UEFI 2.10, N.2.11.3).
    pub(super) struct IommuError: 144, "length of the IOMMU error section" {
        revision: u8 = Kind::Hex;
        reserved: [u8; 7] = Kind::Reserved;
        control: U64 = Kind::Hex;
        status: U64 = Kind::Hex;
        reserved_2: [u8; 8] = Kind::Reserved;
        event_log_entry: [u8; 16] = Kind::Bytes;
        reserved_3: [u8; 16] = Kind::Reserved;
        device_table_entry: [u8; 32] = Kind::Bytes;
        level_6_entry: U64 = Kind::Hex;
        level_5_entry: U64 = Kind::Hex;
        level_4_entry: U64 = Kind::Hex;
        level_3_entry: U64 = Kind::Hex;
        level_2_entry: U64 = Kind::Hex;
        level_1_entry: U64 = Kind::Hex;
    }
}
