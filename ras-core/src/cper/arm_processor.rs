//! Errors of Arm processors.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::reading::Remaining;
use super::{Section, Uncountable};
use crate::decode_error::{DecodeError, Expected};
use crate::guid::Guid;

/// Section type of errors of Arm processors.
pub const KIND: Guid =
    Guid::new(0xe19e_3d16, 0xbc11, 0x11e4, [0x9c, 0xaa, 0xc2, 0x05, 0x1d, 0x5d, 0x46, 0xb0]);

/// ARM Processor Error Section, fixed part (UEFI 2.10, N.2.4.4).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ArmProcessorHeader {
    /// [`valid`].
    pub validation: U32,
    /// Number of [`ArmErrorInfo`] structures that follow: at least one.
    pub info_count: U16,
    /// Number of contexts that follow those.
    pub context_count: U16,
    /// Length of the section in bytes.
    pub section_length: U32,
    /// Affinity level of the error: 0 a processor, 1 to 3 groups of processors.
    pub affinity_level: u8,
    /// Reserved: zero.
    pub reserved: [u8; 3],
    /// MPIDR_EL1.
    pub mpidr: U64,
    /// MIDR_EL1, always valid.
    pub midr: U64,
    /// Bit 0: the processor is running.
    pub running_state: U32,
    /// Its PSCI state, if it is not running.
    pub psci_state: U32,
}

const _: () = assert!(size_of::<ArmProcessorHeader>() == 40);

/// Bits of [`ArmProcessorHeader::validation`].
pub mod valid {
    /// The MPIDR.
    pub const MPIDR: u32 = 1 << 0;
    /// The affinity level.
    pub const AFFINITY_LEVEL: u32 = 1 << 1;
    /// Running and PSCI states.
    pub const RUNNING_STATE: u32 = 1 << 2;
    /// Vendor-specific data at the end of the section.
    pub const VENDOR: u32 = 1 << 3;
    /// Every bit that has a meaning.
    pub(crate) const ALL: u32 = (1 << 4) - 1;
}

/// ARM Processor Error Information (UEFI 2.10, N.2.4.4.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ArmErrorInfo {
    /// Version: 0.
    pub version: u8,
    /// Length in bytes: 32.
    pub length: u8,
    /// [`info_valid`].
    pub validation: U16,
    /// [`error_kind`].
    pub kind: u8,
    /// 0: one error; 1: several; otherwise their number.
    pub multiple: U16,
    /// Bit 0: first error, 1: last error, 2: propagated, 3: overflow.
    pub flags: u8,
    /// Error information, in the format of the kind.
    pub error_info: U64,
    /// Virtual fault address.
    pub virtual_address: U64,
    /// Physical fault address. If the kind is a cache error, Linux offlines its page.
    pub physical_address: U64,
}

const _: () = assert!(size_of::<ArmErrorInfo>() == 32);

impl ArmErrorInfo {
    /// [`ArmErrorInfo::length`].
    pub const LENGTH: u8 = size_of::<ArmErrorInfo>() as u8;
}

/// Bits of [`ArmErrorInfo::validation`].
pub mod info_valid {
    /// The number of errors.
    pub const MULTIPLE: u16 = 1 << 0;
    /// The flags.
    pub const FLAGS: u16 = 1 << 1;
    /// The information.
    pub const ERROR_INFO: u16 = 1 << 2;
    /// The virtual address.
    pub const VIRTUAL_ADDRESS: u16 = 1 << 3;
    /// The physical address.
    pub const PHYSICAL_ADDRESS: u16 = 1 << 4;
    /// Every bit that has a meaning.
    pub(crate) const ALL: u16 = (1 << 5) - 1;
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

/// ARM Processor Context Information, fixed part (UEFI 2.10, N.2.4.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ContextHeader {
    version: U16,
    kind: U16,
    register_bytes: U32,
}

const _: () = assert!(size_of::<ContextHeader>() == 8);

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
        let vendor_bit = if vendor.is_empty() { 0 } else { valid::VENDOR };
        header.validation = U32::new(header.validation.get() & !valid::VENDOR | vendor_bit);
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

/// A decoded section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmProcessorView<'a> {
    /// The fixed part.
    pub header: &'a ArmProcessorHeader,
    /// The errors.
    pub infos: &'a [ArmErrorInfo],
    /// Vendor-specific data after the contexts.
    pub vendor: &'a [u8],
    contexts: &'a [u8],
}

impl<'a> ArmProcessorView<'a> {
    pub(super) fn read(bytes: &'a [u8], offset: usize) -> Result<Self, DecodeError> {
        let mut remaining = Remaining { bytes, offset };
        let header: &ArmProcessorHeader = remaining.take("length of the Arm processor section")?;
        let section_length = header.section_length.get() as usize;
        if section_length > bytes.len() {
            return Err(DecodeError {
                offset: offset + core::mem::offset_of!(ArmProcessorHeader, section_length),
                what: "length of the Arm processor section",
                found: section_length as u64,
                expected: Expected::AtMost(bytes.len() as u64),
            });
        }
        let behind_header = section_length.saturating_sub(size_of::<ArmProcessorHeader>());
        remaining.bytes = remaining.bytes.get(..behind_header).unwrap_or_default();

        let infos_offset = remaining.offset;
        let infos: &[ArmErrorInfo] =
            remaining.take_many(header.info_count.get().into(), "length of error information")?;
        // With another length, the structures that follow would be misaligned.
        if let Some((index, info)) =
            infos.iter().enumerate().find(|(_, info)| info.length != ArmErrorInfo::LENGTH)
        {
            return Err(DecodeError {
                offset: infos_offset
                    + index * size_of::<ArmErrorInfo>()
                    + core::mem::offset_of!(ArmErrorInfo, length),
                what: "length of error information",
                found: info.length.into(),
                expected: Expected::Exactly(ArmErrorInfo::LENGTH.into()),
            });
        }

        let contexts = remaining.bytes;
        for _ in 0..header.context_count.get() {
            take_context(&mut remaining)?;
        }
        let contexts = contexts.get(..contexts.len() - remaining.bytes.len()).unwrap_or_default();
        Ok(ArmProcessorView { header, infos, contexts, vendor: remaining.bytes })
    }

    /// Registers, in their order.
    pub fn contexts(&self) -> impl Iterator<Item = ArmContext<'a>> + use<'a> {
        let mut remaining = Remaining { bytes: self.contexts, offset: 0 };
        // All of them could be read when the section was: an error is the end.
        core::iter::from_fn(move || take_context(&mut remaining).ok())
    }
}

fn take_context<'a>(remaining: &mut Remaining<'a>) -> Result<ArmContext<'a>, DecodeError> {
    let header: &ContextHeader = remaining.take("length of a context")?;
    let registers =
        remaining.take_bytes(header.register_bytes.get() as usize, "length of a context's registers")?;
    Ok(ArmContext { kind: header.kind.get(), registers })
}
