//! Sections: the bodies of error records (UEFI 2.10, appendix N.2).
//!
//! Each has its wire structure, a [`Section`] that writes it, and a view that reads it without copying. A field whose validation bit is
//! clear says nothing: views show it all the same, [`Description`](crate::Description) leaves it out.

pub mod arm_processor;
pub mod firmware_record;
pub mod generic_processor;
pub mod memory;
mod reading;
pub mod record;
pub mod x86_processor;

use arm_processor::ArmProcessorView;
use firmware_record::FirmwareRecord;
use generic_processor::GenericProcessor;
use memory::MemoryView;
use x86_processor::X86ProcessorView;

use crate::decode_error::DecodeError;
use crate::guid::Guid;

/// What can be an entry's payload.
pub trait Section {
    /// Its type.
    fn kind(&self) -> Guid;

    /// ActionExecutor its bytes to `sink`, in their order and in as many parts as suits. Two calls give the same bytes.
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

/// A section has more parts than it can count, or not even one error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a section has parts that it cannot count")]
pub struct Uncountable;

/// A section that was read.
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
    /// A firmware's own record.
    FirmwareRecord(FirmwareRecord<'a>),
    /// Something else.
    Other(RawSection<'a>),
}

impl<'a> SectionView<'a> {
    /// Reads a section of that type from its bytes, which lie at `offset` of what errors count from.
    ///
    /// # Errors
    /// When the bytes are too few for what they say. A type that is not known is no error.
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
}
