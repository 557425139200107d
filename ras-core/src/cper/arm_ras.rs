//! Error records of Arm's RAS architecture.

use zerocopy::little_endian::{U16, U32, U64};

use crate::guid::Guid;
use crate::layout::{Kind, Part, Selector, bits, flags, wire};

/// Section type of Arm RAS errors.
pub(super) const KIND: Guid =
    Guid::new(0xbf32_d4d5, 0xb427, 0x4025, [0x84, 0x95, 0x8a, 0x9e, 0x5d, 0x40, 0x30, 0xe4]);

wire! {
    /// Arm RAS System Architecture node, revision 1 (DEN0085, table 20).
    pub(super) struct ArmRasError: 80, "length of the Arm RAS section" {
        revision: U32 = Kind::Default(1);
        component_type: u8 = Kind::Named(&["processor", "memory", "SMMU", "vendor-defined", "GIC", "PCIe", "proxy"]);
        reserved: [u8; 3] = Kind::Reserved;
        error_count: U32 = Kind::Computed;
        errors_offset: U16 = Kind::Computed;
        auxiliary_offset: U16 = Kind::Computed;
        instance_format: u8 = Kind::Named(&[
            "processor",
            "system physical address",
            "local address",
            "SoC-specific",
        ]);
        type_format: u8 = Kind::Named(&["processor", "SMMU", "GIC", "peripheral id"]);
        reserved_2: [u8; 6] = Kind::Reserved;
        // MPIDR_EL1 of a processor; a physical address; an address space and an address in it.
        instance: [u8; 16] = Kind::Parts,
            instance[0..64] = Kind::Hex,
            instance_base_address[64..128] = Kind::Hex;
        component_id: [u8; 24] = Kind::Bytes,
            component[0..192] = Kind::Choice {
                by: bits!(ArmRasError, type_format),
                if_valid: None,
                of: &[
                    (Selector::Number(0), ProcessorId::LAYOUT),
                    (Selector::Number(1), ComponentIidr::LAYOUT),
                    (Selector::Number(2), ComponentIidr::LAYOUT),
                    (Selector::Number(3), PeripheralId::LAYOUT),
                ],
            };
        user_data: [u8; 16] = Kind::Text;
    }
    parts = [
        Part::At { what: "offset of the error records", member: bits!(ArmRasError, errors_offset) },
        Part::List {
            name: "error",
            count: bits!(ArmRasError, error_count),
            valid: &[],
            item: ErrorRecord::LAYOUT,
        },
        Part::Group {
            name: "auxiliary",
            at: bits!(ArmRasError, auxiliary_offset),
            layout: AuxiliaryData::LAYOUT,
        },
    ];
}

wire! {
    /// IP type of a processor (DEN0085, table 20).
    struct ProcessorId: 24, "length of an IP type" {
        midr: U64 = Kind::Hex;
        revidr: U64 = Kind::Hex;
        aidr: U64 = Kind::Hex;
    }
}

wire! {
    /// IP type of an SMMU or a GIC (DEN0085, table 20).
    struct ComponentIidr: 24, "length of an IP type" {
        iidr: U32 = Kind::Hex;
        aidr: U32 = Kind::Hex;
        reserved: [u8; 16] = Kind::Reserved;
    }
}

wire! {
    /// IP type by the peripheral identification registers, from PIDR3 down to PIDR0, then from PIDR7 (DEN0085, table 20).
    struct PeripheralId: 24, "length of an IP type" {
        pidr3: u8 = Kind::Hex;
        pidr2: u8 = Kind::Hex;
        pidr1: u8 = Kind::Hex;
        pidr0: u8 = Kind::Hex;
        pidr7: u8 = Kind::Hex;
        pidr6: u8 = Kind::Hex;
        pidr5: u8 = Kind::Hex;
        pidr4: u8 = Kind::Hex;
        reserved: [u8; 16] = Kind::Reserved;
    }
}

wire! {
    /// Error record descriptor, revision 1 (DEN0085, table 21).
    struct ErrorRecord: 72, "length of an error record" {
        index: U32 = Kind::Number;
        ras_extension: u8 = Kind::Hex;
        reserved: [u8; 3] = Kind::Reserved;
        err_fr: U64 = Kind::Hex;
        err_ctlr: U64 = Kind::Hex;
        err_status: U64 = Kind::Hex;
        err_addr: U64 = Kind::Hex;
        err_misc0: U64 = Kind::Hex;
        err_misc1: U64 = Kind::Hex;
        err_misc2: U64 = Kind::Hex;
        err_misc3: U64 = Kind::Hex;
    }
}

wire! {
    /// Auxiliary data, fixed part (DEN0085, table 22).
    struct AuxiliaryData: 16, "length of auxiliary data" {
        version: u8 = Kind::Default(1);
        reserved: u8 = Kind::Reserved;
        context_count: U16 = Kind::Computed;
        length: U32 = Kind::Computed;
        values_offset: U32 = Kind::Computed;
        value_count: U16 = Kind::Computed;
        reserved_2: U16 = Kind::Reserved;
    }
    total = length;
    parts = [
        Part::List {
            name: "context",
            count: bits!(AuxiliaryData, context_count),
            valid: &[],
            item: AuxiliaryContext::LAYOUT,
        },
        Part::At { what: "offset of the values", member: bits!(AuxiliaryData, values_offset) },
        Part::List {
            name: "value",
            count: bits!(AuxiliaryData, value_count),
            valid: &[],
            item: KeyAndValue::LAYOUT,
        },
    ];
}

wire! {
    /// Auxiliary context, fixed part (DEN0085, table 23).
    struct AuxiliaryContext: 16, "length of an auxiliary context" {
        length: U32 = Kind::Computed;
        flags: u8 = flags(&["local-address-space"]);
        reserved: u8 = Kind::Reserved;
        register_count: U16 = Kind::Computed;
        address_space: U16 = Kind::Number;
        reserved_2: [u8; 6] = Kind::Reserved;
    }
    total = length;
    parts = [
        Part::List {
            name: "register",
            count: bits!(AuxiliaryContext, register_count),
            valid: &[],
            item: Register::LAYOUT,
        },
    ];
}

wire! {
    /// Memory-mapped register (DEN0085, table 24).
    struct Register: 16, "length of a register" {
        address: U64 = Kind::Hex;
        value: U64 = Kind::Hex;
    }
}

wire! {
    /// Key-value pair (DEN0085, tables 25 and 26).
    struct KeyAndValue: 24, "length of a key-value pair" {
        key: Guid = Kind::NamedGuid(&[(
            Guid::new(0xebb4_5182, 0xfb03, 0x4bf9, [0x9a, 0xca, 0x86, 0x13, 0x70, 0x9f, 0xd7, 0x89]),
            "MPAM PARTID",
        )]);
        value: U64 = Kind::Hex;
    }
}
