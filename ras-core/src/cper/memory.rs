//! Memory errors.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::{Section, error_status};
use crate::guid::Guid;
use crate::layout::{Kind, flags, wire};

/// Section type of memory errors.
pub const KIND: Guid =
    Guid::new(0xa5bc_1114, 0x6f64, 0x4ede, [0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1]);

/// Section type of memory errors since UEFI 2.8.
pub(super) const KIND_2: Guid =
    Guid::new(0x61ec_04fc, 0x48e6, 0xd813, [0x25, 0xc9, 0x8d, 0xaa, 0x44, 0x75, 0x0b, 0x12]);

wire! {
    /// Memory Error Section (UEFI 2.10, N.2.5). In UEFI 2.1 and 2.2 it ends behind the error's type.
    pub struct MemorySection: 80, "length of the memory error section" {
        /// Which of the members are valid.
        validation: U64 = Kind::Validation;
        /// Error status: the component that detected the error, and its type.
        error_status: U64 ?0 = Kind::Hex,
            error_status_type[8..16] = error_status::TYPE,
            error_status_flags[0..64] = error_status::FLAGS;
        /// Guest physical address. Linux offlines its 4 KiB page and uses no other field of the section.
        physical_address: U64 ?1 = Kind::Hex;
        /// Mask of the valid bits of the address. Linux prints it, and offlines one page in any case.
        physical_address_mask: U64 ?2 = Kind::Hex;
        /// Node.
        node: U16 ?3 = Kind::Number;
        /// Card.
        card: U16 ?4 = Kind::Number;
        /// Module.
        module: U16 ?5 = Kind::Number;
        /// Bank; or its address in the lower byte (validation bit 20), and its group in the upper one (validation bit 19).
        bank: U16 ?6 = Kind::Number,
            bank_address[0..8] ?20 = Kind::Number,
            bank_group[8..16] ?19 = Kind::Number;
        /// Device.
        device: U16 ?7 = Kind::Number;
        /// Row.
        row: U16 ?8 = Kind::Number;
        /// Column.
        column: U16 ?9 = Kind::Number;
        /// Bit position of the error.
        bit_position: U16 ?10 = Kind::Number;
        /// Requestor id.
        requestor_id: U64 ?11 = Kind::Hex;
        /// Responder id.
        responder_id: U64 ?12 = Kind::Hex;
        /// Target id.
        target_id: U64 ?13 = Kind::Hex;
        /// [`MemoryErrorType`].
        error_type: u8 ?14 = Kind::Named(&MemoryErrorType::NAMES);
        /// Bits 0 and 1: bits 16 and 17 of the row (validation bit 18); bits 5 to 7: chip (validation bit 21).
        extended: u8 = Kind::Parts,
            row_bits_16_17[0..2] ?18 = Kind::Number,
            reserved_row_bits[2..5] = Kind::Reserved,
            chip[5..8] ?21 = Kind::Number;
        /// Rank.
        rank: U16 ?15 = Kind::Number;
        /// SMBIOS handle of the memory array.
        card_handle: U16 ?16 = Kind::Number;
        /// SMBIOS handle of the memory device.
        module_handle: U16 ?17 = Kind::Number;
    }
    min = 73;
}

wire! {
    /// Memory Error Section 2 (UEFI 2.10, N.2.6).
    pub(super) struct MemorySection2: 96, "length of the memory error section 2" {
        validation: U64 = Kind::Validation;
        error_status: U64 ?0 = Kind::Hex,
            error_status_type[8..16] = error_status::TYPE,
            error_status_flags[0..64] = error_status::FLAGS;
        physical_address: U64 ?1 = Kind::Hex;
        physical_address_mask: U64 ?2 = Kind::Hex;
        node: U16 ?3 = Kind::Number;
        card: U16 ?4 = Kind::Number;
        module: U16 ?5 = Kind::Number;
        bank: U16 ?6 = Kind::Number,
            bank_address[0..8] ?21 = Kind::Number,
            bank_group[8..16] ?20 = Kind::Number;
        device: U32 ?7 = Kind::Number;
        row: U32 ?8 = Kind::Number;
        column: U32 ?9 = Kind::Number;
        rank: U32 ?10 = Kind::Number;
        bit_position: U32 ?11 = Kind::Number;
        chip: u8 ?12 = Kind::Number;
        error_type: u8 ?13 = Kind::Named(&MemoryErrorType::NAMES);
        status: u8 ?14 = flags(&["not-corrected"]);
        reserved: u8 = Kind::Reserved;
        requestor_id: U64 ?15 = Kind::Hex;
        responder_id: U64 ?16 = Kind::Hex;
        target_id: U64 ?17 = Kind::Hex;
        card_handle: U32 ?18 = Kind::Number;
        module_handle: U32 ?19 = Kind::Number;
    }
}

/// Bits of [`MemorySection::validation`].
mod valid {
    pub(super) const PHYSICAL_ADDRESS: u64 = 1 << 1;
    pub(super) const PHYSICAL_ADDRESS_MASK: u64 = 1 << 2;
    pub(super) const ERROR_TYPE: u64 = 1 << 14;
}

/// Type of a memory error (UEFI 2.10, N.2.5, memory error type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MemoryErrorType {
    /// Unknown: a host reports no more to its VMM than that the memory is poisoned.
    Unknown,
    /// No error.
    NoError,
    /// Single-bit ECC error.
    SingleBitEcc,
    /// Multi-bit ECC error.
    MultiBitEcc,
    /// Single-symbol chipkill ECC error.
    SingleSymbolChipkill,
    /// Multi-symbol chipkill ECC error.
    MultiSymbolChipkill,
    /// Master abort.
    MasterAbort,
    /// Target abort.
    TargetAbort,
    /// Parity error.
    Parity,
    /// Watchdog timeout.
    WatchdogTimeout,
    /// Invalid address.
    InvalidAddress,
    /// Mirror broken.
    MirrorBroken,
    /// Memory sparing.
    MemorySparing,
    /// Corrected by scrubbing.
    ScrubCorrected,
    /// Uncorrected by scrubbing.
    ScrubUncorrected,
    /// Physical memory map-out.
    MapOut,
}

impl MemoryErrorType {
    /// By their numbers.
    const NAMES: [&str; 16] = [
        "unknown",
        "no error",
        "single-bit ECC",
        "multi-bit ECC",
        "single-symbol chipkill ECC",
        "multi-symbol chipkill ECC",
        "master abort",
        "target abort",
        "parity error",
        "watchdog timeout",
        "invalid address",
        "mirror broken",
        "memory sparing",
        "scrub corrected error",
        "scrub uncorrected error",
        "physical memory map-out",
    ];

    /// Its number in records.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.number())).unwrap_or(&"unknown")
    }
}

impl MemorySection {
    /// The section for an error in the page of 4 KiB that starts at `gpa`, with no further details.
    #[must_use]
    pub fn of_page(gpa: u64) -> Self {
        let mut section = Self::new_zeroed();
        section.validation =
            U64::new(valid::PHYSICAL_ADDRESS | valid::PHYSICAL_ADDRESS_MASK | valid::ERROR_TYPE);
        section.physical_address = U64::new(gpa);
        section.physical_address_mask = U64::new(!0xfff);
        section.error_type = MemoryErrorType::Unknown.number();
        section
    }
}

impl Section for MemorySection {
    fn kind(&self) -> Guid {
        KIND
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.as_bytes());
    }
}
