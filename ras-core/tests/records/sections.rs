//! Sections of every type, with arbitrary contents.

use proptest::prelude::*;
use ras_core::cper::arm_processor::{ArmContext, ArmErrorInfo, ArmProcessor, ArmProcessorHeader};
use ras_core::cper::generic_processor::GenericProcessor;
use ras_core::cper::memory::MemorySection;
use ras_core::cper::x86_processor::{X86Context, X86ErrorInfo, X86Processor, X86ProcessorHeader};
use ras_core::cper::{RawSection, Section};
use ras_core::status_block::Entry;
use ras_core::{BlockWriter, BufferTooSmall, Description, Guid, Heading, Value};
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
        let mut result = Ok(());
        self.with(&mut |section| result = block.push(heading, section));
        result
    }

    /// Passes the section that is written.
    fn with(&self, use_it: &mut dyn FnMut(&dyn Section)) {
        match self {
            AnySection::Memory(memory) => use_it(memory),
            AnySection::Arm { header, infos, contexts, vendor } => {
                let contexts = arm_contexts(contexts);
                use_it(&ArmProcessor::new(*header, infos, &contexts, vendor).expect("countable"));
            }
            AnySection::X86 { header, infos, contexts } => {
                let contexts = x86_contexts(contexts);
                use_it(&X86Processor::new(*header, infos, &contexts).expect("countable"));
            }
            AnySection::Generic(processor) => use_it(processor),
            AnySection::Raw(kind, bytes) => use_it(&RawSection { kind: *kind, bytes }),
        }
    }

    /// Asserts that `entry` holds this section, and that it is described with all of its parts.
    pub(crate) fn assert_read(
        &self,
        entry: &Entry<'_>,
        described: &Description,
    ) -> Result<(), TestCaseError> {
        let mut written = (Guid::ZERO, Vec::new());
        self.with(&mut |section| {
            written.0 = section.kind();
            section.parts(&mut |part| written.1.extend_from_slice(part));
        });
        prop_assert_eq!(written, (entry.header.section_type, entry.payload.to_vec()));
        prop_assert!(described.get("broken").is_none(), "{}", described);
        let (name, errors, contexts) = match self {
            AnySection::Arm { infos, contexts, .. } => ("arm_processor_error", infos.len(), contexts.len()),
            AnySection::X86 { infos, contexts, .. } => ("x86_processor_error", infos.len(), contexts.len()),
            _ => return Ok(()),
        };
        let Some(Value::Group(section)) = described.get(name) else {
            return Err(TestCaseError::fail(format!("no {name}: {described}")));
        };
        let count = |name| match section.get(name) {
            Some(Value::List(items)) => items.len(),
            _ => 0,
        };
        prop_assert_eq!((count("error"), count("context")), (errors, contexts));
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
