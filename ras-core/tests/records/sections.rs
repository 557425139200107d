//! Sections of every type, with arbitrary contents.

use proptest::prelude::*;
use ras_core::cper::arm_processor::{self, ArmContext, ArmErrorInfo, ArmProcessor, ArmProcessorHeader};
use ras_core::cper::firmware_record::FirmwareRecord;
use ras_core::cper::generic_processor::GenericProcessor;
use ras_core::cper::memory::MemorySection;
use ras_core::cper::x86_processor::{self, X86Context, X86ErrorInfo, X86Processor, X86ProcessorHeader};
use ras_core::cper::{RawSection, SectionView};
use ras_core::status_block::Entry;
use ras_core::{BlockWriter, BufferTooSmall, Guid, Heading};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A section that owns its parts.
#[derive(Clone, Debug)]
pub(crate) enum AnySection {
    Memory(MemorySection),
    Arm {
        header: ArmProcessorHeader,
        infos: Vec<ArmErrorInfo>,
        contexts: Vec<(u16, Vec<u8>)>,
        vendor: Vec<u8>,
    },
    X86 {
        header: X86ProcessorHeader,
        infos: Vec<X86ErrorInfo>,
        contexts: Vec<(u16, u32, u64, Vec<u8>)>,
    },
    Generic(GenericProcessor),
    Firmware(Vec<u8>),
    Raw(Guid, Vec<u8>),
}

/// A structure for which any bytes are valid.
fn wire<T: FromBytes + KnownLayout + Immutable + core::fmt::Debug>() -> impl Strategy<Value = T> {
    prop::collection::vec(any::<u8>(), size_of::<T>())
        .prop_filter_map("size", |bytes| T::read_from_bytes(&bytes).ok())
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=max)
}

pub(crate) fn any_section() -> impl Strategy<Value = AnySection> {
    let arm_info = wire().prop_map(|info| ArmErrorInfo { length: ArmErrorInfo::LENGTH, ..info });
    let arm = (
        wire(),
        prop::collection::vec(arm_info, 1..5),
        prop::collection::vec((any::<u16>(), bytes(64)), 0..4),
        bytes(16),
    );
    let x86_context = (any::<u16>(), any::<u32>(), any::<u64>(), bytes(64));
    let x86 = (wire(), prop::collection::vec(wire(), 0..5), prop::collection::vec(x86_context, 0..4));
    prop_oneof![
        wire().prop_map(AnySection::Memory),
        arm.prop_map(|(header, infos, contexts, vendor)| AnySection::Arm { header, infos, contexts, vendor }),
        x86.prop_map(|(header, infos, contexts)| AnySection::X86 { header, infos, contexts }),
        wire().prop_map(AnySection::Generic),
        prop::collection::vec(any::<u8>(), 32..80).prop_map(AnySection::Firmware),
        (any::<[u8; 16]>(), bytes(300))
            .prop_map(|(kind, bytes)| AnySection::Raw(Guid::from_bytes(kind), bytes)),
    ]
}

impl AnySection {
    pub(crate) fn push_to(
        &self,
        block: &mut BlockWriter<'_>,
        heading: &Heading,
    ) -> Result<(), BufferTooSmall> {
        match self {
            AnySection::Memory(memory) => block.push(heading, memory),
            AnySection::Arm { header, infos, contexts, vendor } => {
                let contexts = arm_contexts(contexts);
                block.push(heading, &ArmProcessor::new(*header, infos, &contexts, vendor).expect("countable"))
            }
            AnySection::X86 { header, infos, contexts } => {
                let contexts = x86_contexts(contexts);
                block.push(heading, &X86Processor::new(*header, infos, &contexts).expect("countable"))
            }
            AnySection::Generic(processor) => block.push(heading, processor),
            AnySection::Firmware(bytes) => {
                block.push(heading, &FirmwareRecord::read(bytes, 0).expect("long enough for every revision"))
            }
            AnySection::Raw(kind, bytes) => block.push(heading, &RawSection { kind: *kind, bytes }),
        }
    }

    /// Asserts that `entry` holds this section, field by field.
    pub(crate) fn assert_read(&self, entry: &Entry<'_>) -> Result<(), TestCaseError> {
        match (self, entry.section()?) {
            (AnySection::Memory(memory), SectionView::Memory(read)) => {
                prop_assert_eq!((&memory.fields, Some(&memory.added)), (read.fields, read.added));
            }
            (AnySection::Arm { header, infos, contexts, vendor }, SectionView::ArmProcessor(read)) => {
                let written_contexts = arm_contexts(contexts);
                let written = ArmProcessor::new(*header, infos, &written_contexts, vendor)?;
                prop_assert_eq!(written.header(), read.header);
                prop_assert_eq!(usize::from(read.header.info_count.get()), infos.len());
                prop_assert_eq!(usize::from(read.header.context_count.get()), contexts.len());
                prop_assert_eq!(read.header.section_length.get() as usize, entry.payload.len());
                let has_vendor = read.header.validation.get() & arm_processor::valid::VENDOR != 0;
                prop_assert_eq!(has_vendor, !vendor.is_empty());
                prop_assert_eq!(&infos[..], read.infos);
                prop_assert_eq!(written_contexts, read.contexts().collect::<Vec<_>>());
                prop_assert_eq!(&vendor[..], read.vendor);
            }
            (AnySection::X86 { header, infos, contexts }, SectionView::X86Processor(read)) => {
                let identity = x86_processor::valid::APIC_ID | x86_processor::valid::CPUID;
                prop_assert_eq!(header.validation.get() & identity, read.header.validation.get() & identity);
                prop_assert_eq!((header.apic_id, header.cpuid), (read.header.apic_id, read.header.cpuid));
                prop_assert_eq!(&infos[..], read.infos);
                prop_assert_eq!(x86_contexts(contexts), read.contexts().collect::<Vec<_>>());
            }
            (AnySection::Generic(processor), SectionView::GenericProcessor(read)) => {
                prop_assert_eq!(processor, read);
            }
            (AnySection::Firmware(bytes), SectionView::FirmwareRecord(read)) => {
                prop_assert_eq!(FirmwareRecord::read(bytes, 0)?, read);
                prop_assert_eq!(&bytes[..], entry.payload);
            }
            (AnySection::Raw(kind, bytes), SectionView::Other(read)) => {
                prop_assert_eq!(RawSection { kind: *kind, bytes }, read);
            }
            (written, read) => prop_assert!(false, "{written:?} was decoded as {read:?}"),
        }
        Ok(())
    }
}

fn arm_contexts(contexts: &[(u16, Vec<u8>)]) -> Vec<ArmContext<'_>> {
    contexts.iter().map(|(kind, registers)| ArmContext { kind: *kind, registers }).collect()
}

fn x86_contexts(contexts: &[(u16, u32, u64, Vec<u8>)]) -> Vec<X86Context<'_>> {
    contexts
        .iter()
        .map(|&(kind, msr, memory_register, ref registers)| X86Context {
            kind,
            msr,
            memory_register,
            registers,
        })
        .collect()
}
