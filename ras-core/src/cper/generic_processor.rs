//! Errors of processors of any kind.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U64};

use super::Section;
use crate::guid::Guid;
use crate::layout::{Kind, flags, wire};

/// Section type of errors of processors of any kind.
pub const KIND: Guid =
    Guid::new(0x9876_ccad, 0x47b4, 0x4bdb, [0xb6, 0x5e, 0x16, 0xf1, 0x93, 0xc4, 0xf3, 0xdb]);

wire! {
    /// Generic Processor Error Section (UEFI 2.10, N.2.4.1).
    pub struct GenericProcessor: 192, "length of the generic processor section" {
        /// Which of the members are valid.
        validation: U64 = Kind::Validation;
        /// Processor type: 0 IA-32 or x64, 1 IA-64, 2 Arm.
        processor_kind as processor: u8 ?0 = Kind::Named(&["x86", "IA-64", "Arm"]);
        /// Instruction set in use: 0 IA-32, 1 IA-64, 2 x64, 3 A32 or T32, 4 A64.
        instruction_set: u8 ?1 = Kind::Named(&["IA-32", "IA-64", "x64", "A32/T32", "A64"]);
        /// Error type: 0 unknown, or bits: 0 cache, 1 TLB, 2 bus, 3 micro-architectural.
        error_kind as kind_value: u8 ?2 = Kind::Hex,
            kind[0..8] = flags(&["cache", "tlb", "bus", "micro-architectural"]);
        /// Operation: 0 unknown, 1 data read, 2 data write, 3 instruction fetch.
        operation: u8 ?3 = Kind::Named(&["unknown", "data read", "data write", "instruction fetch"]);
        /// Bits: 0 restartable, 1 precise instruction pointer, 2 overflow, 3 corrected.
        flags: u8 ?4 = flags(&["restartable", "precise-ip", "overflow", "corrected"]);
        /// Level of the cache, TLB or bus.
        level: u8 ?5 = Kind::Number;
        /// Reserved: zero.
        reserved: U16 = Kind::Reserved;
        /// EAX of CPUID leaf 1, or MIDR_EL1.
        version: U64 ?6 = Kind::Hex;
        /// Brand string, padded with zeros.
        brand: [u8; 128] ?7 = Kind::Text;
        /// Local APIC id, or MPIDR_EL1.
        processor_id: U64 ?8 = Kind::Hex;
        /// Target address.
        target_address: U64 ?9 = Kind::Hex;
        /// Requestor id.
        requestor: U64 ?10 = Kind::Hex;
        /// Responder id.
        responder: U64 ?11 = Kind::Hex;
        /// Instruction pointer.
        instruction_pointer: U64 ?12 = Kind::Hex;
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
