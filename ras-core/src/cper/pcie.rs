//! Errors of PCI Express components.

use zerocopy::little_endian::{U16, U32, U64};

use crate::guid::Guid;
use crate::layout::{Kind, flags, wire};

/// Section type of PCI Express errors.
pub(super) const KIND: Guid =
    Guid::new(0xd995_e954, 0xbbc1, 0x430f, [0xad, 0x91, 0xb4, 0x4d, 0xcb, 0x3c, 0x6f, 0x35]);

wire! {
    /// PCI Express Error Section (UEFI 2.10, N.2.7).
    pub(super) struct PcieError: 208, "length of the PCIe error section" {
        validation: U64 = Kind::Validation;
        port_type: U32 ?0 = Kind::Named(&[
            "endpoint",
            "legacy endpoint",
            "",
            "",
            "root port",
            "upstream switch port",
            "downstream switch port",
            "PCIe to PCI/PCI-X bridge",
            "PCI/PCI-X to PCIe bridge",
            "root complex integrated endpoint",
            "root complex event collector",
        ]);
        version: U32 ?1 = Kind::Hex;
        command_status: U32 ?2 = Kind::Parts,
            command[0..16] ?2 = Kind::Hex,
            status[16..32] ?2 = Kind::Hex;
        reserved: U32 = Kind::Reserved;
        device_id: PcieDeviceId ?3 = Kind::Group(PcieDeviceId::LAYOUT);
        serial_number: U64 ?4 = Kind::Hex;
        bridge_control_status: U32 ?5 = Kind::Parts,
            bridge_secondary_status[0..16] ?5 = Kind::Hex,
            bridge_control[16..32] ?5 = Kind::Hex;
        capability: PcieCapability ?6 = Kind::Group(PcieCapability::LAYOUT);
        aer: AdvancedErrors ?7 = Kind::Group(AdvancedErrors::LAYOUT);
    }
}

wire! {
    /// Device ID of a PCI Express error (UEFI 2.10, N.2.7).
    pub(super) struct PcieDeviceId: 16, "length of a device id" {
        vendor_id: U16 = Kind::Hex;
        device_id: U16 = Kind::Hex;
        class_code: [u8; 3] = Kind::Parts,
            class_code[0..24] = Kind::Hex;
        function: u8 = Kind::Number;
        device: u8 = Kind::Number;
        segment: U16 = Kind::Number;
        bus: u8 = Kind::Number;
        secondary_bus: u8 = Kind::Number;
        slot_number: U16 = Kind::Parts,
            reserved_slot_bits[0..3] = Kind::Reserved,
            slot[3..16] = Kind::Number;
        reserved: u8 = Kind::Reserved;
    }
}

wire! {
    /// PCI Express Capability structure (PCI Express Base Specification 6.0, 7.5.3). That of version 1 has 36 bytes, and zeros behind them.
    pub(super) struct PcieCapability: 60, "length of a PCIe capability" {
        capability_id: u8 = Kind::Hex;
        next_pointer: u8 = Kind::Hex;
        capabilities: U16 = Kind::Hex;
        device_capabilities: U32 = Kind::Hex;
        device_control: U16 = Kind::Hex;
        device_status: U16 = Kind::Hex,
            device_status_flags[0..16] = flags(&[
                "correctable-error",
                "non-fatal-error",
                "fatal-error",
                "unsupported-request",
                "aux-power",
                "transactions-pending",
                "emergency-power-reduction",
            ]);
        link_capabilities: U32 = Kind::Hex;
        link_control: U16 = Kind::Hex;
        link_status: U16 = Kind::Hex;
        slot_capabilities: U32 = Kind::Hex;
        slot_control: U16 = Kind::Hex;
        slot_status: U16 = Kind::Hex;
        root_control: U16 = Kind::Hex;
        root_capabilities: U16 = Kind::Hex;
        root_status: U32 = Kind::Hex;
        device_capabilities_2: U32 = Kind::Hex;
        device_control_2: U16 = Kind::Hex;
        device_status_2: U16 = Kind::Hex;
        link_capabilities_2: U32 = Kind::Hex;
        link_control_2: U16 = Kind::Hex;
        link_status_2: U16 = Kind::Hex;
        slot_capabilities_2: U32 = Kind::Hex;
        slot_control_2: U16 = Kind::Hex;
        slot_status_2: U16 = Kind::Hex;
    }
}

const UNCORRECTABLE_ERRORS: &[&str] = &[
    "",
    "",
    "",
    "",
    "data-link-protocol",
    "surprise-down",
    "",
    "",
    "",
    "",
    "",
    "",
    "poisoned-tlp",
    "flow-control-protocol",
    "completion-timeout",
    "completer-abort",
    "unexpected-completion",
    "receiver-overflow",
    "malformed-tlp",
    "ecrc",
    "unsupported-request",
    "acs-violation",
    "internal",
    "mc-blocked-tlp",
    "atomicop-egress-blocked",
    "tlp-prefix-blocked",
    "poisoned-tlp-egress-blocked",
    "dmwr-egress-blocked",
    "ide-check-failed",
    "misrouted-ide-tlp",
    "pcrc-check-failed",
    "tlp-translation-egress-blocked",
];

const CORRECTABLE_ERRORS: &[&str] = &[
    "receiver",
    "",
    "",
    "",
    "",
    "",
    "bad-tlp",
    "bad-dllp",
    "replay-num-rollover",
    "",
    "",
    "",
    "replay-timer-timeout",
    "advisory-non-fatal",
    "corrected-internal",
    "header-log-overflow",
];

wire! {
    /// Advanced Error Reporting Extended Capability structure (PCI Express Base Specification 6.0, 7.8.4). The section has 96 bytes of it.
    pub(super) struct AdvancedErrors: 96, "length of advanced error reporting" {
        capability_header: U32 = Kind::Hex;
        uncorrectable_status: U32 = Kind::Hex,
            uncorrectable_errors[0..32] = flags(UNCORRECTABLE_ERRORS);
        uncorrectable_mask: U32 = Kind::Hex;
        uncorrectable_severity: U32 = Kind::Hex;
        correctable_status: U32 = Kind::Hex,
            correctable_errors[0..32] = flags(CORRECTABLE_ERRORS);
        correctable_mask: U32 = Kind::Hex;
        capabilities_control: U32 = Kind::Hex;
        header_log: [u8; 16] = Kind::Bytes;
        root_command: U32 = Kind::Hex;
        root_status: U32 = Kind::Hex;
        correctable_source: U16 = Kind::Hex;
        uncorrectable_source: U16 = Kind::Hex;
        tlp_prefix_log: [u8; 40] = Kind::Bytes;
    }
}
