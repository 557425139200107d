//! Errors of processors of any kind.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Section;
use super::reading::Remaining;
use crate::decode_error::DecodeError;
use crate::guid::Guid;

/// Section type of errors of processors of any kind.
pub const KIND: Guid =
    Guid::new(0x9876_ccad, 0x47b4, 0x4bdb, [0xb6, 0x5e, 0x16, 0xf1, 0x93, 0xc4, 0xf3, 0xdb]);

/// Generic Processor Error Section (UEFI 2.10, N.2.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GenericProcessor {
    /// [`valid`].
    pub validation: U64,
    /// Processor type: 0 IA-32 or x64, 1 IA-64, 2 Arm.
    pub processor_kind: u8,
    /// Instruction set in use: 0 IA-32, 1 IA-64, 2 x64, 3 A32 or T32, 4 A64.
    pub instruction_set: u8,
    /// Error type: 0 unknown, or bits: 0 cache, 1 TLB, 2 bus, 3 micro-architectural.
    pub error_kind: u8,
    /// Operation: 0 unknown, 1 data read, 2 data write, 3 instruction fetch.
    pub operation: u8,
    /// Flags: bit 0 restartable, 1 precise instruction pointer, 2 overflow, 3 corrected.
    pub flags: u8,
    /// Level of the cache, TLB or bus.
    pub level: u8,
    /// Reserved: zero.
    pub reserved: U16,
    /// EAX of CPUID leaf 1, or MIDR_EL1.
    pub version: U64,
    /// Brand string, padded with zeros.
    pub brand: [u8; 128],
    /// Local APIC id, or MPIDR_EL1.
    pub processor_id: U64,
    /// Target address.
    pub target_address: U64,
    /// Requestor id.
    pub requestor: U64,
    /// Responder id.
    pub responder: U64,
    /// Instruction pointer.
    pub instruction_pointer: U64,
}

const _: () = assert!(size_of::<GenericProcessor>() == 192);

/// Bits of [`GenericProcessor::validation`].
pub mod valid {
    /// The processor's kind.
    pub const PROCESSOR_KIND: u64 = 1 << 0;
    /// The instruction set.
    pub const INSTRUCTION_SET: u64 = 1 << 1;
    /// The error's kind.
    pub const ERROR_KIND: u64 = 1 << 2;
    /// The operation.
    pub const OPERATION: u64 = 1 << 3;
    /// The flags.
    pub const FLAGS: u64 = 1 << 4;
    /// The level.
    pub const LEVEL: u64 = 1 << 5;
    /// The version.
    pub const VERSION: u64 = 1 << 6;
    /// The brand.
    pub const BRAND: u64 = 1 << 7;
    /// The processor's id.
    pub const PROCESSOR_ID: u64 = 1 << 8;
    /// The target.
    pub const TARGET_ADDRESS: u64 = 1 << 9;
    /// The requestor.
    pub const REQUESTOR: u64 = 1 << 10;
    /// The responder.
    pub const RESPONDER: u64 = 1 << 11;
    /// The instruction pointer.
    pub const INSTRUCTION_POINTER: u64 = 1 << 12;
    /// Every bit that has a meaning.
    pub(crate) const ALL: u64 = (1 << 13) - 1;
}

impl GenericProcessor {
    pub(super) fn read(bytes: &[u8], offset: usize) -> Result<&Self, DecodeError> {
        Remaining { bytes, offset }.take("length of the generic processor section")
    }
}

impl Section for GenericProcessor {
    fn kind(&self) -> Guid {
        KIND
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.as_bytes());
    }
}
