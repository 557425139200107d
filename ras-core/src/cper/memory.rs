//! Memory errors.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Section;
use super::reading::Remaining;
use crate::decode_error::DecodeError;
use crate::guid::Guid;

/// Section type of memory errors.
pub const KIND: Guid =
    Guid::new(0xa5bc_1114, 0x6f64, 0x4ede, [0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1]);

/// Memory Error Section (UEFI 2.10, N.2.5).
///
/// A field is valid if its bit of [`valid`] is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MemorySection {
    /// The fields of UEFI 2.1.
    pub fields: MemoryFields,
    /// The fields that UEFI 2.3 added.
    pub added: AddedMemoryFields,
}

const _: () = assert!(size_of::<MemorySection>() == 80);

/// The memory error section of UEFI 2.1 and 2.2, and the start of later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MemoryFields {
    /// [`valid`].
    pub validation: U64,
    /// Error status: the component that detected the error, and its type.
    pub error_status: U64,
    /// Guest physical address. Linux offlines its 4 KiB page and uses no other field of the section.
    pub physical_address: U64,
    /// Mask of the valid bits of the address. Linux prints it, and offlines one page in any case.
    pub physical_address_mask: U64,
    /// Node.
    pub node: U16,
    /// Card.
    pub card: U16,
    /// Module.
    pub module: U16,
    /// Bank.
    pub bank: U16,
    /// Device.
    pub device: U16,
    /// Row.
    pub row: U16,
    /// Column.
    pub column: U16,
    /// Bit position of the error.
    pub bit_position: U16,
    /// Requestor id.
    pub requestor_id: U64,
    /// Responder id.
    pub responder_id: U64,
    /// Target id.
    pub target_id: U64,
    /// [`MemoryErrorType`].
    pub error_type: u8,
}

const _: () = assert!(size_of::<MemoryFields>() == 73);

/// The end of a memory error section since UEFI 2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AddedMemoryFields {
    /// Bits 0 and 1: bits 16 and 17 of the row; bits 2 to 4: reserved; bits 5 to 7: chip.
    pub extended: u8,
    /// Rank.
    pub rank: U16,
    /// SMBIOS handle of the memory array.
    pub card_handle: U16,
    /// SMBIOS handle of the memory device.
    pub module_handle: U16,
}

const _: () = assert!(size_of::<AddedMemoryFields>() == 7);

/// Bits of [`MemoryFields::validation`].
pub mod valid {
    /// The error status.
    pub const ERROR_STATUS: u64 = 1 << 0;
    /// The physical address.
    pub const PHYSICAL_ADDRESS: u64 = 1 << 1;
    /// Its mask.
    pub const PHYSICAL_ADDRESS_MASK: u64 = 1 << 2;
    /// The node.
    pub const NODE: u64 = 1 << 3;
    /// The card.
    pub const CARD: u64 = 1 << 4;
    /// The module.
    pub const MODULE: u64 = 1 << 5;
    /// The bank.
    pub const BANK: u64 = 1 << 6;
    /// The device.
    pub const DEVICE: u64 = 1 << 7;
    /// The row.
    pub const ROW: u64 = 1 << 8;
    /// The column.
    pub const COLUMN: u64 = 1 << 9;
    /// The bit position.
    pub const BIT_POSITION: u64 = 1 << 10;
    /// The requestor.
    pub const REQUESTOR_ID: u64 = 1 << 11;
    /// The responder.
    pub const RESPONDER_ID: u64 = 1 << 12;
    /// The target.
    pub const TARGET_ID: u64 = 1 << 13;
    /// The type of the error.
    pub const ERROR_TYPE: u64 = 1 << 14;
    /// The rank.
    pub const RANK: u64 = 1 << 15;
    /// The card's handle.
    pub const CARD_HANDLE: u64 = 1 << 16;
    /// The module's handle.
    pub const MODULE_HANDLE: u64 = 1 << 17;
    /// The row's upper bits.
    pub const EXTENDED_ROW: u64 = 1 << 18;
    /// The bank's group, in the upper byte of the bank.
    pub const BANK_GROUP: u64 = 1 << 19;
    /// The bank's address, in its lower byte.
    pub const BANK_ADDRESS: u64 = 1 << 20;
    /// The chip.
    pub const CHIP: u64 = 1 << 21;
    /// Every bit that has a meaning.
    pub(crate) const ALL: u64 = (1 << 22) - 1;
    /// The fields that UEFI 2.3 added.
    pub(crate) const ADDED: u64 = RANK | CARD_HANDLE | MODULE_HANDLE | EXTENDED_ROW | CHIP;
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
    const ALL: [(MemoryErrorType, &'static str); 16] = [
        (MemoryErrorType::Unknown, "unknown"),
        (MemoryErrorType::NoError, "no error"),
        (MemoryErrorType::SingleBitEcc, "single-bit ECC"),
        (MemoryErrorType::MultiBitEcc, "multi-bit ECC"),
        (MemoryErrorType::SingleSymbolChipkill, "single-symbol chipkill ECC"),
        (MemoryErrorType::MultiSymbolChipkill, "multi-symbol chipkill ECC"),
        (MemoryErrorType::MasterAbort, "master abort"),
        (MemoryErrorType::TargetAbort, "target abort"),
        (MemoryErrorType::Parity, "parity error"),
        (MemoryErrorType::WatchdogTimeout, "watchdog timeout"),
        (MemoryErrorType::InvalidAddress, "invalid address"),
        (MemoryErrorType::MirrorBroken, "mirror broken"),
        (MemoryErrorType::MemorySparing, "memory sparing"),
        (MemoryErrorType::ScrubCorrected, "scrub corrected error"),
        (MemoryErrorType::ScrubUncorrected, "scrub uncorrected error"),
        (MemoryErrorType::MapOut, "physical memory map-out"),
    ];

    /// Its number in records.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The type with that number. `None` if the number is not defined.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).map(|(kind, _)| *kind)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.get(usize::from(self.number())).map_or("unknown", |(_, name)| name)
    }
}

/// A decoded memory error section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryView<'a> {
    /// The fields of UEFI 2.1.
    pub fields: &'a MemoryFields,
    /// The fields that UEFI 2.3 added. `None` if the section ends before them.
    pub added: Option<&'a AddedMemoryFields>,
}

impl<'a> MemoryView<'a> {
    pub(super) fn read(bytes: &'a [u8], offset: usize) -> Result<Self, DecodeError> {
        let mut remaining = Remaining { bytes, offset };
        let fields = remaining.take("length of the memory error section")?;
        Ok(MemoryView { fields, added: remaining.take("length of the added fields").ok() })
    }

    /// The physical address, if it is valid.
    #[must_use]
    pub fn physical_address(&self) -> Option<u64> {
        let is_valid = self.fields.validation.get() & valid::PHYSICAL_ADDRESS != 0;
        is_valid.then_some(self.fields.physical_address.get())
    }
}

impl MemorySection {
    /// The section for a poisoned page of 4 KiB that starts at `gpa`, with no further details.
    #[must_use]
    pub fn poisoned_page(gpa: u64) -> Self {
        let mut section = Self::new_zeroed();
        section.fields.validation =
            U64::new(valid::PHYSICAL_ADDRESS | valid::PHYSICAL_ADDRESS_MASK | valid::ERROR_TYPE);
        section.fields.physical_address = U64::new(gpa);
        section.fields.physical_address_mask = U64::new(!0xfff);
        section.fields.error_type = MemoryErrorType::Unknown.number();
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
