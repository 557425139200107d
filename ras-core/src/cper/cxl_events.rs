//! Events of CXL components. The type of a section is the identifier of its event record (CXL 3.1, 8.2.9.2.1).

use zerocopy::little_endian::{U16, U32, U64};

use crate::guid::Guid;
use crate::layout::{ByteString, Kind, Layout, Part, Selector, View, bits, flags, wire};

pub(super) const GENERAL_MEDIA: Guid =
    Guid::new(0xfbcd_0a77, 0xc260, 0x417f, [0x85, 0xa9, 0x08, 0x8b, 0x16, 0x21, 0xeb, 0xa6]);
pub(super) const DRAM: Guid =
    Guid::new(0x601d_cbb3, 0x9c06, 0x4eab, [0xb8, 0xaf, 0x4e, 0x9b, 0xfb, 0x5c, 0x96, 0x24]);
pub(super) const MEMORY_MODULE: Guid =
    Guid::new(0xfe92_7475, 0xdd59, 0x4339, [0xa5, 0x86, 0x79, 0xba, 0xb1, 0x13, 0xb7, 0x74]);
pub(super) const MEMORY_SPARING: Guid =
    Guid::new(0xe71f_3a40, 0x2d29, 0x4092, [0x8a, 0x39, 0x4d, 0x1c, 0x96, 0x6c, 0x7c, 0x65]);
pub(super) const PHYSICAL_SWITCH: Guid =
    Guid::new(0x77cf_9271, 0x9c02, 0x470b, [0x9f, 0xe4, 0xbc, 0x7b, 0x75, 0xf2, 0xda, 0x97]);
pub(super) const VIRTUAL_SWITCH: Guid =
    Guid::new(0x40d2_6425, 0x3396, 0x4c4d, [0xa5, 0xda, 0x3d, 0x47, 0x26, 0x3a, 0xf4, 0x25]);
pub(super) const MLD_PORT: Guid =
    Guid::new(0x8dc4_4363, 0x0c96, 0x4710, [0xb7, 0xbf, 0x04, 0xbb, 0x99, 0x53, 0x4c, 0x3f]);
pub(super) const DYNAMIC_CAPACITY: Guid =
    Guid::new(0xca95_afa7, 0xf183, 0x4018, [0x8c, 0x2f, 0x95, 0x26, 0x8e, 0x10, 0x1a, 0x2a]);

/// The section with an event of that layout: its length, then the event record from its byte 16 on.
macro_rules! section {
    ($structure:ident, $event:ident) => {
        wire! {
            /// CXL Component Events Section, fixed part (UEFI 2.10, N.2.14).
            struct $structure: 32, "length of the CXL event section" {
                length: U32 = Kind::Computed;
                validation: U64 = Kind::Validation;
                device_id: EventDeviceId ?0 = Kind::Group(EventDeviceId::LAYOUT);
                serial_number: U64 ?1 = Kind::Hex;
            }
            total = length;
            parts = [Part::Bytes(ByteString {
                name: "event_log",
                what: "length of the CXL event record",
                len: None,
                valid: Some((2, "invalid_event_log_bytes")),
                view: Some(View {
                    name: "event",
                    by: bits!($structure, length),
                    of: &[(Selector::Any, $event::LAYOUT)],
                }),
            })];
        }
    };
}

section!(GeneralMediaSection, GeneralMediaEvent);
section!(DramSection, DramEvent);
section!(MemoryModuleSection, MemoryModuleEvent);
section!(MemorySparingSection, MemorySparingEvent);
section!(OtherSection, OtherEvent);

pub(super) const GENERAL_MEDIA_LAYOUT: &Layout = GeneralMediaSection::LAYOUT;
pub(super) const DRAM_LAYOUT: &Layout = DramSection::LAYOUT;
pub(super) const MEMORY_MODULE_LAYOUT: &Layout = MemoryModuleSection::LAYOUT;
pub(super) const MEMORY_SPARING_LAYOUT: &Layout = MemorySparingSection::LAYOUT;
/// Events whose body is bytes: of switches, MLD ports and dynamic capacity.
pub(super) const OTHER_LAYOUT: &Layout = OtherSection::LAYOUT;

wire! {
    /// Device ID of a CXL event (UEFI 2.10, N.2.14).
    struct EventDeviceId: 12, "length of a device id" {
        vendor_id: U16 = Kind::Hex;
        device_id: U16 = Kind::Hex;
        function: u8 = Kind::Number;
        device: u8 = Kind::Number;
        bus: u8 = Kind::Number;
        segment: U16 = Kind::Number;
        slot_number: U16 = Kind::Parts,
            reserved_slot_bits[0..3] = Kind::Reserved,
            slot[3..16] = Kind::Number;
        reserved: u8 = Kind::Reserved;
    }
}

wire! {
    /// Common Event Record, behind its identifier (CXL 3.1, 8.2.9.2.1, table 8-43; LD-ID and head id: CXL 3.2, table 8-55).
    struct EventHeader: 32, "length of an event record's header" {
        event_length: u8 = Kind::Number;
        event_flags: [u8; 3] = Kind::Parts,
            severity[0..2] = Kind::Named(&["informational", "warning", "failure", "fatal"]),
            flags[2..24] = flags(&[
                "permanent",
                "maintenance-needed",
                "performance-degraded",
                "replacement-needed",
                "maintenance-subclass-valid",
                "ld-id-valid",
                "head-id-valid",
            ]);
        handle: U16 = Kind::Hex;
        related_handle: U16 = Kind::Hex;
        // Nanoseconds since 1970.
        timestamp_ns: U64 = Kind::Number;
        maintenance_class: u8 = Kind::Number;
        maintenance_subclass: u8 = Kind::Number;
        ld_id: U16 = Kind::Number;
        head_id: u8 = Kind::Number;
        reserved: [u8; 11] = Kind::Reserved;
    }
}

const DESCRIPTOR: Kind = flags(&["uncorrectable", "threshold", "poison-list-overflow"]);

const TRANSACTION: Kind = Kind::Named(&[
    "unknown",
    "host read",
    "host write",
    "host scan media",
    "host inject poison",
    "internal media scrub",
    "internal media management",
    "internal media error check scrub",
    "media initialization",
]);

const THRESHOLD_FLAGS: Kind = flags(&["multiple-components", "threshold-exceeded"]);

wire! {
    /// General Media Event Record (CXL 3.1, 8.2.9.2.1.1, table 8-45).
    struct GeneralMediaEvent: 112, "length of a general media event" {
        header: EventHeader = Kind::Group(EventHeader::LAYOUT);
        device_physical_address: U64 = Kind::Hex,
            address_flags[0..6] = flags(&["volatile", "not-repairable"]);
        descriptor: u8 = DESCRIPTOR;
        error_type: u8 = Kind::Named(&[
            "ECC error",
            "invalid address",
            "data path error",
            "TEE state violation",
            "scrub media ECC error",
            "corrected error counter expired",
            "CKID violation",
        ]);
        transaction: u8 = TRANSACTION;
        validity: U16 = Kind::Validation,
            component_id_is_pldm[4..5] = Kind::YES_OR_NO;
        channel: u8 ?0 = Kind::Number;
        rank: u8 ?1 = Kind::Number;
        device: [u8; 3] ?2 = Kind::Bytes;
        component_id: [u8; 16] ?3 = Kind::Bytes;
        threshold_flags: u8 = THRESHOLD_FLAGS;
        corrected_count: [u8; 3] = Kind::Parts,
            corrected_count[0..24] = Kind::Number;
        subtype: u8 = Kind::Number;
        reserved: [u8; 41] = Kind::Reserved;
    }
}

wire! {
    /// DRAM Event Record (CXL 3.1, 8.2.9.2.1.2, table 8-46).
    struct DramEvent: 112, "length of a DRAM event" {
        header: EventHeader = Kind::Group(EventHeader::LAYOUT);
        device_physical_address: U64 = Kind::Hex,
            address_flags[0..6] = flags(&["volatile", "not-repairable"]);
        descriptor: u8 = DESCRIPTOR;
        error_type: u8 = Kind::Named(&[
            "media ECC error",
            "scrub media ECC error",
            "invalid address",
            "data path error",
            "TEE state violation",
            "corrected error counter expired",
            "CKID violation",
        ]);
        transaction: u8 = TRANSACTION;
        validity: U16 = Kind::Validation,
            component_id_is_pldm[9..10] = Kind::YES_OR_NO;
        channel: u8 ?0 = Kind::Number;
        rank: u8 ?1 = Kind::Number;
        nibble_mask: [u8; 3] ?2 = Kind::Bytes;
        bank_group: u8 ?3 = Kind::Number;
        bank: u8 ?4 = Kind::Number;
        row: [u8; 3] ?5 = Kind::Parts,
            row[0..24] ?5 = Kind::Number;
        column: U16 ?6 = Kind::Number;
        correction_mask: [u8; 32] ?7 = Kind::Bytes;
        component_id: [u8; 16] ?8 = Kind::Bytes;
        subchannel: u8 ?10 = Kind::Number;
        threshold_flags: u8 = THRESHOLD_FLAGS;
        corrected_volatile_count: [u8; 3] = Kind::Parts,
            corrected_volatile_count[0..24] = Kind::Number;
        subtype: u8 = Kind::Number;
        reserved: u8 = Kind::Reserved;
    }
}

wire! {
    /// Memory Module Event Record (CXL 3.1, 8.2.9.2.1.3, table 8-47).
    struct MemoryModuleEvent: 112, "length of a memory module event" {
        header: EventHeader = Kind::Group(EventHeader::LAYOUT);
        event_type: u8 = Kind::Named(&[
            "health status change",
            "media status change",
            "life used change",
            "temperature change",
            "data path error",
            "LSA error",
            "unrecoverable internal sideband bus error",
            "memory media FRU error",
            "power management fault",
        ]);
        health: DeviceHealth = Kind::Group(DeviceHealth::LAYOUT);
        validity: U16 = Kind::Validation,
            component_id_is_pldm[1..2] = Kind::YES_OR_NO;
        component_id: [u8; 16] ?0 = Kind::Bytes;
        subtype: u8 = Kind::Number;
        reserved: [u8; 42] = Kind::Reserved;
    }
}

wire! {
    /// Get Health Info output payload (CXL 3.1, 8.2.9.9.3.1, table 8-133).
    struct DeviceHealth: 18, "length of a device's health" {
        health_status: u8 = flags(&[
            "maintenance-needed",
            "performance-degraded",
            "replacement-needed",
            "capacity-degraded",
        ]);
        media_status: u8 = Kind::Named(&[
            "normal",
            "not ready",
            "write persistency lost",
            "all data lost",
            "write persistency loss at power loss",
            "write persistency loss at shutdown",
            "write persistency loss imminent",
            "data loss at power loss",
            "data loss at shutdown",
            "data loss imminent",
        ]);
        additional_status: u8 = Kind::Hex;
        life_used_percent: u8 = Kind::Number;
        // Degrees Celsius, in two's complement.
        temperature: U16 = Kind::Hex;
        dirty_shutdowns: U32 = Kind::Number;
        corrected_volatile_errors: U32 = Kind::Number;
        corrected_persistent_errors: U32 = Kind::Number;
    }
}

wire! {
    /// Memory Sparing Event Record (CXL 3.2, 8.2.10.2.1.4, table 8-60).
    struct MemorySparingEvent: 112, "length of a memory sparing event" {
        header: EventHeader = Kind::Group(EventHeader::LAYOUT);
        maintenance_class: u8 = Kind::Number;
        maintenance_subclass: u8 = Kind::Number;
        flags: u8 = flags(&["query-resources", "hard-sparing", "device-initiated"]);
        result: u8 = Kind::Hex;
        validity: U16 = Kind::Validation,
            component_id_is_pldm[8..9] = Kind::YES_OR_NO;
        reserved: [u8; 6] = Kind::Reserved;
        resources_available: U16 = Kind::Number;
        channel: u8 ?0 = Kind::Number;
        rank: u8 ?1 = Kind::Number;
        nibble_mask: [u8; 3] ?2 = Kind::Bytes;
        bank_group: u8 ?3 = Kind::Number;
        bank: u8 ?4 = Kind::Number;
        row: [u8; 3] ?5 = Kind::Parts,
            row[0..24] ?5 = Kind::Number;
        column: U16 ?6 = Kind::Number;
        component_id: [u8; 16] ?7 = Kind::Bytes;
        subchannel: u8 ?9 = Kind::Number;
        reserved_2: [u8; 37] = Kind::Reserved;
    }
}

wire! {
    /// Common Event Record with a body of another format (CXL 3.1, table 8-43).
    struct OtherEvent: 112, "length of an event" {
        header: EventHeader = Kind::Group(EventHeader::LAYOUT);
        data: [u8; 80] = Kind::Bytes;
    }
}
