//! Errors of IA-32 and x64 processors.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reading::Remaining;
use super::{Section, Uncountable};
use crate::decode_error::DecodeError;
use crate::guid::Guid;

/// Section type of errors of x86 processors.
pub const KIND: Guid =
    Guid::new(0xdc3e_a0b0, 0xa144, 0x4797, [0xb9, 0x5b, 0x53, 0xfa, 0x24, 0x2b, 0x6e, 0x1d]);

/// IA32/X64 Processor Error Section, fixed part (UEFI 2.10, N.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct X86ProcessorHeader {
    /// [`valid`], and the numbers of errors and contexts that follow.
    pub validation: U64,
    /// Local APIC id.
    pub apic_id: U64,
    /// EAX, EBX, ECX and EDX of CPUID leaf 1, 8 bytes each, and 16 reserved bytes.
    pub cpuid: [u8; 48],
}

const _: () = assert!(size_of::<X86ProcessorHeader>() == 64);

/// Bits of [`X86ProcessorHeader::validation`].
pub mod valid {
    /// The APIC id.
    pub const APIC_ID: u64 = 1 << 0;
    /// CPUID.
    pub const CPUID: u64 = 1 << 1;
    /// First of the six bits that count errors.
    pub(super) const INFO_COUNT_SHIFT: u32 = 2;
    /// First of the six bits that count contexts.
    pub(super) const CONTEXT_COUNT_SHIFT: u32 = 8;
    /// The largest six-bit count.
    pub(super) const MAX_COUNT: u64 = (1 << 6) - 1;
    /// Every bit that has a meaning.
    pub(crate) const ALL: u64 = (1 << 14) - 1;
}

impl X86ProcessorHeader {
    /// Number of errors that follow.
    #[must_use]
    pub const fn info_count(&self) -> usize {
        (self.validation.get() >> valid::INFO_COUNT_SHIFT & valid::MAX_COUNT) as usize
    }

    /// Number of contexts that follow those.
    #[must_use]
    pub const fn context_count(&self) -> usize {
        (self.validation.get() >> valid::CONTEXT_COUNT_SHIFT & valid::MAX_COUNT) as usize
    }
}

/// IA32/X64 Processor Error Information (UEFI 2.10, N.2.4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct X86ErrorInfo {
    /// [`error_kind`].
    pub kind: Guid,
    /// [`info_valid`].
    pub validation: U64,
    /// Check information, in the format of the kind.
    pub check_info: U64,
    /// Target address.
    pub target: U64,
    /// Requestor id.
    pub requestor: U64,
    /// Responder id.
    pub responder: U64,
    /// Instruction pointer.
    pub instruction_pointer: U64,
}

const _: () = assert!(size_of::<X86ErrorInfo>() == 64);

/// Bits of [`X86ErrorInfo::validation`].
pub mod info_valid {
    /// The check.
    pub const CHECK_INFO: u64 = 1 << 0;
    /// The target.
    pub const TARGET: u64 = 1 << 1;
    /// The requestor.
    pub const REQUESTOR: u64 = 1 << 2;
    /// The responder.
    pub const RESPONDER: u64 = 1 << 3;
    /// The instruction pointer.
    pub const INSTRUCTION_POINTER: u64 = 1 << 4;
    /// Every bit that has a meaning.
    pub(crate) const ALL: u64 = (1 << 5) - 1;
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

    /// Its name. `None` if the kind is not known.
    #[must_use]
    pub fn name(kind: Guid) -> Option<&'static str> {
        match kind {
            CACHE => Some("cache"),
            TLB => Some("TLB"),
            BUS => Some("bus"),
            MICRO_ARCHITECTURAL => Some("micro-architectural"),
            _ => None,
        }
    }
}

/// IA32/X64 Processor Context Information, fixed part (UEFI 2.10, N.2.4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ContextHeader {
    kind: U16,
    register_bytes: U16,
    msr: U32,
    memory_register: U64,
}

const _: () = assert!(size_of::<ContextHeader>() == 16);

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

/// A decoded section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X86ProcessorView<'a> {
    /// The fixed part.
    pub header: &'a X86ProcessorHeader,
    /// The errors.
    pub infos: &'a [X86ErrorInfo],
    contexts: &'a [u8],
}

impl<'a> X86ProcessorView<'a> {
    pub(super) fn read(bytes: &'a [u8], offset: usize) -> Result<Self, DecodeError> {
        let mut remaining = Remaining { bytes, offset };
        let header: &X86ProcessorHeader = remaining.take("length of the x86 processor section")?;
        let infos = remaining.take_many(header.info_count(), "length of error information")?;
        let contexts = remaining.bytes;
        for _ in 0..header.context_count() {
            take_context(&mut remaining)?;
        }
        let contexts = contexts.get(..contexts.len() - remaining.bytes.len()).unwrap_or_default();
        Ok(X86ProcessorView { header, infos, contexts })
    }

    pub(super) fn described_len(&self) -> usize {
        size_of_val(self.header) + size_of_val(self.infos) + self.contexts.len()
    }

    /// Registers, in their order.
    pub fn contexts(&self) -> impl Iterator<Item = X86Context<'a>> + use<'a> {
        let mut remaining = Remaining { bytes: self.contexts, offset: 0 };
        // All of them could be read when the section was: an error is the end.
        core::iter::from_fn(move || take_context(&mut remaining).ok())
    }
}

fn take_context<'a>(remaining: &mut Remaining<'a>) -> Result<X86Context<'a>, DecodeError> {
    let header: &ContextHeader = remaining.take("length of a context")?;
    let registers =
        remaining.take_bytes(header.register_bytes.get().into(), "length of a context's registers")?;
    Ok(X86Context {
        kind: header.kind.get(),
        msr: header.msr.get(),
        memory_register: header.memory_register.get(),
        registers,
    })
}
