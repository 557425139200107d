//! Addresses of registers, as ACPI writes them.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GenericAddress {
    /// 0: memory; 1: ports.
    pub space: u8,
    /// Bits of the register.
    pub bit_width: u8,
    /// Its first bit.
    pub bit_offset: u8,
    /// 1 to 4: bytes, words, doublewords, quadwords. Linux's APEI code refuses 0, which the specification has for "any".
    pub access_size: u8,
    /// Where.
    pub address: U64,
}

const _: () = assert!(size_of::<GenericAddress>() == 12);

impl GenericAddress {
    /// A 64-bit register in memory, read and written as a whole.
    #[must_use]
    pub const fn quadword(gpa: u64) -> Self {
        GenericAddress { space: 0, bit_width: 64, bit_offset: 0, access_size: 4, address: U64::new(gpa) }
    }
}
