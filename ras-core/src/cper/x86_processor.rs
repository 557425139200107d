//! Errors of IA-32 and x64 processors.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::{Section, Uncountable, x86_registers};
use crate::guid::Guid;
use crate::layout::{ByteString, Kind, Part, Selector, View, bits, wire};

/// Section type of errors of x86 processors.
pub const KIND: Guid =
    Guid::new(0xdc3e_a0b0, 0xa144, 0x4797, [0xb9, 0x5b, 0x53, 0xfa, 0x24, 0x2b, 0x6e, 0x1d]);

wire! {
    /// IA32/X64 Processor Error Section, fixed part (UEFI 2.10, N.2.4.2).
    pub struct X86ProcessorHeader: 64, "length of the x86 processor section" {
        /// Which of the members are valid, and the numbers of errors (bits 2 to 7) and contexts (bits 8 to 13) that follow.
        validation: U64 = Kind::Validation;
        /// Local APIC id.
        apic_id: U64 ?0 = Kind::Number;
        /// EAX, EBX, ECX and EDX of CPUID leaf 1, 8 bytes each, and 16 reserved bytes.
        cpuid: [u8; 48] ?1 = Kind::Bytes;
    }
    parts = [
        Part::List {
            name: "error",
            count: bits!(X86ProcessorHeader, validation).range(2, 8),
            valid: &[],
            item: X86ErrorInfo::LAYOUT,
        },
        Part::List {
            name: "context",
            count: bits!(X86ProcessorHeader, validation).range(8, 14),
            valid: &[],
            item: ContextHeader::LAYOUT,
        },
    ];
}

/// Bits of [`X86ProcessorHeader::validation`].
mod valid {
    /// First of the six bits that count errors.
    pub(super) const INFO_COUNT_SHIFT: u32 = 2;
    /// First of the six bits that count contexts.
    pub(super) const CONTEXT_COUNT_SHIFT: u32 = 8;
    /// The largest six-bit count.
    pub(super) const MAX_COUNT: u64 = (1 << 6) - 1;
}

wire! {
    /// IA32/X64 Processor Error Information (UEFI 2.10, N.2.4.2.1).
    pub struct X86ErrorInfo: 64, "length of error information" {
        /// [`error_kind`].
        kind: Guid = Kind::NamedGuid(&error_kind::NAMES);
        /// Which of the members are valid.
        validation: U64 = Kind::Validation;
        /// Check information, in the format of the kind.
        check_info: U64 ?0 = Kind::Hex,
            check[0..64] = Kind::Choice {
                by: bits!(X86ErrorInfo, kind),
                if_valid: None,
                of: &[
                    (Selector::Guid(error_kind::CACHE), CacheCheck::LAYOUT),
                    (Selector::Guid(error_kind::TLB), CacheCheck::LAYOUT),
                    (Selector::Guid(error_kind::BUS), BusCheck::LAYOUT),
                    (Selector::Guid(error_kind::MICRO_ARCHITECTURAL), MicroArchitecturalCheck::LAYOUT),
                ],
            };
        /// Target address.
        target: U64 ?1 = Kind::Hex;
        /// Requestor id.
        requestor: U64 ?2 = Kind::Hex;
        /// Responder id.
        responder: U64 ?3 = Kind::Hex;
        /// Instruction pointer.
        instruction_pointer: U64 ?4 = Kind::Hex;
    }
}

/// Values of [`X86ErrorInfo::kind`].
pub mod error_kind {
    use crate::guid::Guid;

    /// Cache check.
    pub const CACHE: Guid =
        Guid::new(0xa557_01f5, 0xe3ef, 0x43de, [0xac, 0x72, 0x24, 0x9b, 0x57, 0x3f, 0xad, 0x2c]);
    /// TLB check.
    pub const TLB: Guid =
        Guid::new(0xfc06_b535, 0x5e1f, 0x4562, [0x9f, 0x25, 0x0a, 0x3b, 0x9a, 0xdb, 0x63, 0xc3]);
    /// Bus check.
    pub const BUS: Guid =
        Guid::new(0x1cf3_f8b3, 0xc5b1, 0x49a2, [0xaa, 0x59, 0x5e, 0xef, 0x92, 0xff, 0xa6, 0x3c]);
    /// Micro-architecture-specific check.
    pub const MICRO_ARCHITECTURAL: Guid =
        Guid::new(0x48ab_7f57, 0xdc34, 0x4f6c, [0xa7, 0xd3, 0xb0, 0xb5, 0xb0, 0xa7, 0x43, 0x14]);

    /// Their names.
    pub(super) const NAMES: [(Guid, &str); 4] =
        [(CACHE, "cache"), (TLB, "TLB"), (BUS, "bus"), (MICRO_ARCHITECTURAL, "micro-architectural")];
}

const TRANSACTION: Kind = Kind::Named(&["instruction", "data access", "generic"]);

const OPERATION: Kind = Kind::Named(&[
    "generic",
    "generic read",
    "generic write",
    "data read",
    "data write",
    "instruction fetch",
    "prefetch",
    "eviction",
    "snoop",
]);

wire! {
    /// IA32/X64 Cache Check and TLB Check Structures (UEFI 2.10, N.2.4.2.1).
    struct CacheCheck: 8, "length of a check" {
        validation: U16 = Kind::Validation;
        details: [u8; 6] = Kind::Parts,
            transaction[0..2] ?0 = TRANSACTION,
            operation[2..6] ?1 = OPERATION,
            level[6..9] ?2 = Kind::Number,
            context_corrupt[9..10] ?3 = Kind::YES_OR_NO,
            uncorrected[10..11] ?4 = Kind::YES_OR_NO,
            precise_ip[11..12] ?5 = Kind::YES_OR_NO,
            restartable_ip[12..13] ?6 = Kind::YES_OR_NO,
            overflow[13..14] ?7 = Kind::YES_OR_NO,
            reserved[14..48] = Kind::Reserved;
    }
}

wire! {
    /// IA32/X64 Bus Check Structure (UEFI 2.10, N.2.4.2.1).
    struct BusCheck: 8, "length of a check" {
        validation: U16 = Kind::Validation;
        details: [u8; 6] = Kind::Parts,
            transaction[0..2] ?0 = TRANSACTION,
            operation[2..6] ?1 = OPERATION,
            level[6..9] ?2 = Kind::Number,
            context_corrupt[9..10] ?3 = Kind::YES_OR_NO,
            uncorrected[10..11] ?4 = Kind::YES_OR_NO,
            precise_ip[11..12] ?5 = Kind::YES_OR_NO,
            restartable_ip[12..13] ?6 = Kind::YES_OR_NO,
            overflow[13..14] ?7 = Kind::YES_OR_NO,
            participation[14..16] ?8 = Kind::Named(&["originated", "responded", "observed", "generic"]),
            timeout[16..17] ?9 = Kind::YES_OR_NO,
            address_space[17..19] ?10 = Kind::Named(&["memory", "", "I/O", "other"]),
            reserved[19..48] = Kind::Reserved;
    }
}

wire! {
    /// IA32/X64 MS Check Structure (UEFI 2.10, N.2.4.2.1).
    struct MicroArchitecturalCheck: 8, "length of a check" {
        validation: U16 = Kind::Validation;
        details: [u8; 6] = Kind::Parts,
            error_type[0..3] ?0 = Kind::Named(&[
                "no error",
                "unclassified",
                "microcode ROM parity error",
                "external error",
                "FRC error",
                "internal unclassified",
            ]),
            context_corrupt[3..4] ?1 = Kind::YES_OR_NO,
            uncorrected[4..5] ?2 = Kind::YES_OR_NO,
            precise_ip[5..6] ?3 = Kind::YES_OR_NO,
            restartable_ip[6..7] ?4 = Kind::YES_OR_NO,
            overflow[7..8] ?5 = Kind::YES_OR_NO,
            reserved[8..48] = Kind::Reserved;
    }
}

wire! {
    /// IA32/X64 Processor Context Information, fixed part (UEFI 2.10, N.2.4.2.2).
    struct ContextHeader: 16, "length of a context" {
        kind: U16 = Kind::Number;
        register_bytes: U16 = Kind::Computed;
        msr: U32 = Kind::Hex;
        memory_register: U64 = Kind::Hex;
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
                of: x86_registers::OF_KINDS,
            }),
        }),
    ];
}

/// Registers of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X86Context<'a> {
    /// Register set: 0 unclassified, 1 model-specific, 2 and 3 of 32 and 64 bit code, 4 FXSAVE, 5 and 6 debug registers of both, 7 in memory.
    pub kind: u16,
    /// Number of the first register, for model-specific registers.
    pub msr: u32,
    /// Address of the first register, for memory-mapped registers.
    pub memory_register: u64,
    /// Their values.
    pub registers: &'a [u8],
}

/// A section to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X86Processor<'a> {
    header: X86ProcessorHeader,
    infos: &'a [X86ErrorInfo],
    contexts: &'a [X86Context<'a>],
}

impl<'a> X86Processor<'a> {
    /// A section about the processor in `header`; its counts are filled in.
    ///
    /// # Errors
    /// Returns an error if there are more parts than a section can count: 63 errors, 63 contexts, 65,535 bytes of registers in each.
    pub fn new(
        mut header: X86ProcessorHeader,
        infos: &'a [X86ErrorInfo],
        contexts: &'a [X86Context<'a>],
    ) -> Result<Self, Uncountable> {
        let (info_count, context_count) = (infos.len() as u64, contexts.len() as u64);
        let fits = info_count <= valid::MAX_COUNT
            && context_count <= valid::MAX_COUNT
            && contexts.iter().all(|context| u16::try_from(context.registers.len()).is_ok());
        if !fits {
            return Err(Uncountable);
        }
        let counts =
            valid::MAX_COUNT << valid::INFO_COUNT_SHIFT | valid::MAX_COUNT << valid::CONTEXT_COUNT_SHIFT;
        header.validation = U64::new(
            header.validation.get() & !counts
                | info_count << valid::INFO_COUNT_SHIFT
                | context_count << valid::CONTEXT_COUNT_SHIFT,
        );
        Ok(X86Processor { header, infos, contexts })
    }

    /// The header with its counts.
    #[must_use]
    pub fn header(&self) -> &X86ProcessorHeader {
        &self.header
    }
}

impl Section for X86Processor<'_> {
    fn kind(&self) -> Guid {
        KIND
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.header.as_bytes());
        sink(self.infos.as_bytes());
        for context in self.contexts {
            let header = ContextHeader {
                kind: U16::new(context.kind),
                register_bytes: U16::new(context.registers.len() as u16),
                msr: U32::new(context.msr),
                memory_register: U64::new(context.memory_register),
            };
            sink(header.as_bytes());
            sink(context.registers);
        }
    }
}
