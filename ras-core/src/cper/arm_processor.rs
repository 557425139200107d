//! Errors of Arm processors.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::{Section, Uncountable, arm_registers};
use crate::guid::Guid;
use crate::layout::{ByteString, Kind, Part, Selector, View, bits, flags, wire};

/// Section type of errors of Arm processors.
pub const KIND: Guid =
    Guid::new(0xe19e_3d16, 0xbc11, 0x11e4, [0x9c, 0xaa, 0xc2, 0x05, 0x1d, 0x5d, 0x46, 0xb0]);

wire! {
    /// ARM Processor Error Section, fixed part (UEFI 2.10, N.2.4.4).
    #[derive(Default)]
    pub struct ArmProcessorHeader: 40, "length of the Arm processor section" {
        /// Which of the members are valid; bit 3: vendor-specific data at the end of the section.
        validation: U32 = Kind::Validation;
        /// Number of [`ArmErrorInfo`] structures that follow: at least one.
        info_count: U16 = Kind::Computed;
        /// Number of contexts that follow those.
        context_count: U16 = Kind::Computed;
        /// Length of the section in bytes.
        section_length: U32 = Kind::Computed;
        /// Affinity level of the error: 0 a processor, 1 to 3 groups of processors.
        affinity_level: u8 ?1 = Kind::Number;
        /// Reserved: zero.
        reserved: [u8; 3] = Kind::Reserved;
        /// MPIDR_EL1.
        mpidr: U64 ?0 = Kind::Hex;
        /// MIDR_EL1, always valid.
        midr: U64 = Kind::Hex;
        /// Bit 0: the processor is running.
        running_state: U32 ?2 = Kind::Parts,
            running[0..1] ?2 = Kind::YES_OR_NO,
            reserved_running_state[1..32] = Kind::Reserved;
        /// Its PSCI state, if it is not running.
        psci_state: U32 ?2 = Kind::Hex;
    }
    total = section_length;
    parts = [
        Part::List {
            name: "error",
            count: bits!(ArmProcessorHeader, info_count),
            valid: &[],
            item: ArmErrorInfo::LAYOUT,
        },
        Part::List {
            name: "context",
            count: bits!(ArmProcessorHeader, context_count),
            valid: &[],
            item: ContextHeader::LAYOUT,
        },
        Part::Bytes(ByteString {
            name: "vendor",
            what: "length of vendor-specific data",
            len: None,
            valid: Some((3, "invalid_bytes")),
            view: None,
        }),
    ];
}

/// The bit of vendor-specific data in [`ArmProcessorHeader::validation`].
const VENDOR_IS_VALID: u32 = 1 << 3;

wire! {
    /// ARM Processor Error Information (UEFI 2.10, N.2.4.4.1).
    #[derive(Default)]
    pub struct ArmErrorInfo: 32, "length of error information" {
        /// Version: 0.
        version: u8 = Kind::Reserved;
        /// Length in bytes: 32.
        length: u8 = Kind::Computed;
        /// Which of the members are valid.
        validation: U16 = Kind::Validation;
        /// [`error_kind`].
        kind as kind_value: u8 = Kind::Hex,
            kind[0..8] = flags(&["", "cache", "tlb", "bus", "micro-architectural"]);
        /// 0: one error; 1: several; otherwise their number.
        multiple: U16 ?0 = Kind::Number;
        /// Bit 0: first error, 1: last error, 2: propagated, 3: overflow.
        flags: u8 ?1 = flags(&["first", "last", "propagated", "overflow"]);
        /// Error information, in the format of the kind.
        error_info: U64 ?2 = Kind::Hex,
            error_details[0..64] = Kind::Choice {
                by: bits!(ArmErrorInfo, kind),
                if_valid: None,
                of: &[
                    (Selector::Number(error_kind::CACHE as u64), CacheError::LAYOUT),
                    (Selector::Number(error_kind::TLB as u64), TlbError::LAYOUT),
                    (Selector::Number(error_kind::BUS as u64), BusError::LAYOUT),
                ],
            };
        /// Virtual fault address.
        virtual_address: U64 ?3 = Kind::Hex;
        /// Physical fault address. If the kind is a cache error, Linux offlines its page.
        physical_address: U64 ?4 = Kind::Hex;
    }
    total = length;
}

impl ArmErrorInfo {
    /// [`ArmErrorInfo::length`].
    pub const LENGTH: u8 = size_of::<ArmErrorInfo>() as u8;
}

/// Bits of [`ArmErrorInfo::kind`], since the errata of UEFI 2.9.
pub mod error_kind {
    /// Cache error.
    pub const CACHE: u8 = 1 << 1;
    /// TLB error.
    pub const TLB: u8 = 1 << 2;
    /// Bus error.
    pub const BUS: u8 = 1 << 3;
    /// Micro-architectural error.
    pub const MICRO_ARCHITECTURAL: u8 = 1 << 4;
}

const TRANSACTION: Kind = Kind::Named(&["instruction", "data access", "generic"]);

/// Operations of caches and buses.
const OPERATION: Kind = Kind::Named(&[
    "generic",
    "generic read",
    "generic write",
    "data read",
    "data write",
    "instruction fetch",
    "prefetch",
    "eviction",
    "snooping",
    "snooped",
    "management",
]);

wire! {
    /// ARM Cache Error Structure (UEFI 2.10, N.2.4.4.1.1).
    struct CacheError: 8, "length of a cache error" {
        validation: U16 = Kind::Validation;
        details: [u8; 6] = Kind::Parts,
            transaction[0..2] ?0 = TRANSACTION,
            operation[2..6] ?1 = OPERATION,
            level[6..9] ?2 = Kind::Number,
            context_corrupt[9..10] ?3 = Kind::YES_OR_NO,
            corrected[10..11] ?4 = Kind::YES_OR_NO,
            precise_pc[11..12] ?5 = Kind::YES_OR_NO,
            restartable_pc[12..13] ?6 = Kind::YES_OR_NO,
            reserved[13..48] = Kind::Reserved;
    }
}

wire! {
    /// ARM TLB Error Structure (UEFI 2.10, N.2.4.4.1.1).
    struct TlbError: 8, "length of a TLB error" {
        validation: U16 = Kind::Validation;
        details: [u8; 6] = Kind::Parts,
            transaction[0..2] ?0 = TRANSACTION,
            operation[2..6] ?1 = Kind::Named(&[
                "generic",
                "generic read",
                "generic write",
                "data read",
                "data write",
                "instruction fetch",
                "prefetch",
                "local management",
                "external management",
            ]),
            level[6..9] ?2 = Kind::Number,
            context_corrupt[9..10] ?3 = Kind::YES_OR_NO,
            corrected[10..11] ?4 = Kind::YES_OR_NO,
            precise_pc[11..12] ?5 = Kind::YES_OR_NO,
            restartable_pc[12..13] ?6 = Kind::YES_OR_NO,
            reserved[13..48] = Kind::Reserved;
    }
}

wire! {
    /// ARM Bus Error Structure (UEFI 2.10, N.2.4.4.1.1).
    struct BusError: 8, "length of a bus error" {
        validation: U16 = Kind::Validation;
        details: [u8; 6] = Kind::Parts,
            transaction[0..2] ?0 = TRANSACTION,
            operation[2..6] ?1 = OPERATION,
            level[6..9] ?2 = Kind::Number,
            context_corrupt[9..10] ?3 = Kind::YES_OR_NO,
            corrected[10..11] ?4 = Kind::YES_OR_NO,
            precise_pc[11..12] ?5 = Kind::YES_OR_NO,
            restartable_pc[12..13] ?6 = Kind::YES_OR_NO,
            participation[13..15] ?7 = Kind::Named(&["originated", "responded", "observed", "generic"]),
            timeout[15..16] ?8 = Kind::YES_OR_NO,
            address_space[16..18] ?9 = Kind::Named(&["external memory", "internal memory", "", "device memory"]),
            memory_attributes[18..27] ?10 = Kind::Hex,
            access_mode[27..28] ?11 = Kind::Named(&["secure", "normal"]),
            reserved[28..48] = Kind::Reserved;
    }
}

wire! {
    /// ARM Processor Context Information, fixed part (UEFI 2.10, N.2.4.4.2).
    struct ContextHeader: 8, "length of a context" {
        version: U16 = Kind::Reserved;
        kind: U16 = Kind::Number;
        register_bytes: U32 = Kind::Computed;
    }
    parts = [
        Part::Bytes(ByteString {
            name: "registers",
            what: "length of a context's registers",
            len: Some(bits!(ContextHeader, register_bytes)),
            valid: None,
            view: Some(View {
                name: "named_registers",
                by: bits!(ContextHeader, kind),
                of: arm_registers::OF_KINDS,
            }),
        }),
    ];
}

/// Registers of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmContext<'a> {
    /// Register set: 0 to 3 of AArch32 (general, EL1, EL2, secure), 4 to 7 of AArch64 (general, EL1, EL2, EL3), 8 others.
    pub kind: u16,
    /// Their values.
    pub registers: &'a [u8],
}

/// A section to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmProcessor<'a> {
    header: ArmProcessorHeader,
    infos: &'a [ArmErrorInfo],
    contexts: &'a [ArmContext<'a>],
    vendor: &'a [u8],
}

impl<'a> ArmProcessor<'a> {
    /// A section about the processor in `header`; its counts and lengths are filled in.
    ///
    /// # Errors
    /// Returns an error if there are more parts than a section can count, or no error.
    pub fn new(
        mut header: ArmProcessorHeader,
        infos: &'a [ArmErrorInfo],
        contexts: &'a [ArmContext<'a>],
        vendor: &'a [u8],
    ) -> Result<Self, Uncountable> {
        let mut len = size_of::<ArmProcessorHeader>() + size_of_val(infos) + vendor.len();
        for context in contexts {
            len += size_of::<ContextHeader>() + context.registers.len();
        }
        if infos.is_empty() || infos.iter().any(|info| info.length != ArmErrorInfo::LENGTH) {
            return Err(Uncountable);
        }
        header.info_count = U16::new(u16::try_from(infos.len()).map_err(|_| Uncountable)?);
        header.context_count = U16::new(u16::try_from(contexts.len()).map_err(|_| Uncountable)?);
        header.section_length = U32::new(u32::try_from(len).map_err(|_| Uncountable)?);
        let vendor_bit = if vendor.is_empty() { 0 } else { VENDOR_IS_VALID };
        header.validation = U32::new(header.validation.get() & !VENDOR_IS_VALID | vendor_bit);
        Ok(ArmProcessor { header, infos, contexts, vendor })
    }

    /// The header with its counts and lengths.
    #[must_use]
    pub fn header(&self) -> &ArmProcessorHeader {
        &self.header
    }
}

impl Section for ArmProcessor<'_> {
    fn kind(&self) -> Guid {
        KIND
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.header.as_bytes());
        sink(self.infos.as_bytes());
        for context in self.contexts {
            // The section's length, which has 32 bits too, counts these bytes.
            let register_bytes = U32::new(context.registers.len() as u32);
            let header = ContextHeader { version: U16::ZERO, kind: U16::new(context.kind), register_bytes };
            sink(header.as_bytes());
            sink(context.registers);
        }
        sink(self.vendor);
    }
}
