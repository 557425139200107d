//! Generic addresses: how ACPI tables refer to registers.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GenericAddress {
    /// Address space: 0 memory, 1 I/O ports.
    pub space: u8,
    /// Width of the register in bits.
    pub bit_width: u8,
    /// Offset of its first bit.
    pub bit_offset: u8,
    /// Access size, 1 to 4: byte, word, doubleword, quadword. Linux's APEI code refuses 0, which the specification defines as "undefined".
    pub access_size: u8,
    /// The address.
    pub address: U64,
}

const _: () = assert!(size_of::<GenericAddress>() == 12);

impl GenericAddress {
    /// A 64-bit register in memory, accessed as a quadword.
    #[must_use]
    pub const fn quadword(gpa: u64) -> Self {
        GenericAddress { space: 0, bit_width: 64, bit_offset: 0, access_size: 4, address: U64::new(gpa) }
    }

    /// A 32-bit register in memory, accessed as a doubleword.
    #[must_use]
    pub const fn doubleword(gpa: u64) -> Self {
        GenericAddress { space: 0, bit_width: 32, bit_offset: 0, access_size: 3, address: U64::new(gpa) }
    }
}
