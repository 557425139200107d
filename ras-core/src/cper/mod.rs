//! Sections: the bodies of error records (UEFI 2.10, appendix N.2).
//!
//! Each has its wire structure, a [`Section`] that writes it, and a view that reads it without copying. A field whose validation bit is
//! clear is not valid: views contain it nevertheless, [`Description`](crate::Description) omits it.

pub mod arm_processor;
pub mod error_status;
pub mod firmware_record;
pub mod generic_processor;
pub mod memory;
mod reading;
pub mod record;
mod section_names;
pub mod x86_processor;

use arm_processor::ArmProcessorView;
use firmware_record::FirmwareRecord;
use generic_processor::GenericProcessor;
use memory::MemoryView;
use x86_processor::X86ProcessorView;

use crate::decode_error::DecodeError;
use crate::guid::Guid;

pub use section_names::section_name;

/// The payload of an entry.
pub trait Section {
    /// Its type.
    fn kind(&self) -> Guid;

    /// Passes its bytes to `sink`, in order and in any number of parts. Every call passes the same bytes.
    fn parts(&self, sink: &mut dyn FnMut(&[u8]));
}

/// A section of any type, as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSection<'a> {
    /// Its type.
    pub kind: Guid,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Section for RawSection<'_> {
    fn kind(&self) -> Guid {
        self.kind
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.bytes);
    }
}

/// A section has more parts than it can count, or no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a section has parts that it cannot count")]
pub struct Uncountable;

/// A decoded section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionView<'a> {
    /// A memory error.
    Memory(MemoryView<'a>),
    /// An error of an Arm processor.
    ArmProcessor(ArmProcessorView<'a>),
    /// An error of an x86 processor.
    X86Processor(X86ProcessorView<'a>),
    /// An error of some processor.
    GenericProcessor(&'a GenericProcessor),
    /// A firmware error record.
    FirmwareRecord(FirmwareRecord<'a>),
    /// Another section type.
    Other(RawSection<'a>),
}

impl<'a> SectionView<'a> {
    /// Decodes a section of that type. Offsets in errors are relative to `offset`.
    ///
    /// # Errors
    /// Returns an error if there are too few bytes for its counts and lengths. An unknown type is not an error.
    pub fn read(kind: Guid, bytes: &'a [u8], offset: usize) -> Result<Self, DecodeError> {
        match kind {
            memory::KIND => MemoryView::read(bytes, offset).map(SectionView::Memory),
            arm_processor::KIND => ArmProcessorView::read(bytes, offset).map(SectionView::ArmProcessor),
            x86_processor::KIND => X86ProcessorView::read(bytes, offset).map(SectionView::X86Processor),
            generic_processor::KIND => {
                GenericProcessor::read(bytes, offset).map(SectionView::GenericProcessor)
            }
            firmware_record::KIND => FirmwareRecord::read(bytes, offset).map(SectionView::FirmwareRecord),
            _ => Ok(SectionView::Other(RawSection { kind, bytes })),
        }
    }

    /// Number of bytes of a section of `len` bytes that it describes. Those behind them have no meaning according to the specification.
    pub(crate) fn described_len(&self, len: usize) -> usize {
        match self {
            SectionView::Memory(memory) => size_of_val(memory.fields) + memory.added.map_or(0, size_of_val),
            SectionView::ArmProcessor(arm) => {
                size_of_val(arm.header).max(arm.header.section_length.get() as usize)
            }
            SectionView::X86Processor(x86) => x86.described_len(),
            SectionView::GenericProcessor(processor) => size_of_val(*processor),
            SectionView::FirmwareRecord(_) | SectionView::Other(_) => len,
        }
    }
}
