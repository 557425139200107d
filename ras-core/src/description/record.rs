//! CPER records and their sections.

use alloc::string::ToString;

use zerocopy::IntoBytes;

use super::block::of_header;
use super::{Description, Value};
use crate::cper::record::{Record, RecordHeader, RecordSection, SectionDescriptor};
use crate::cper::{RawSection, section_type};
use crate::decode_error::DecodeError;
use crate::guid::Guid;
use crate::layout::describe;

impl Description {
    /// A record.
    #[must_use]
    pub fn of_record(record: &Record<'_>) -> Self {
        let mut description = of_header(describe(RecordHeader::LAYOUT, record.header.as_bytes(), 0));
        let mut end = record.descriptors_end();
        let sections = record.sections().map(|section| {
            let start = section.descriptor.offset.get() as usize;
            let mut description = Description::of_record_section(&section, start);
            if start != end {
                description.add(Self::SECTION_OFFSET, Value::Hex(start as u64));
                let before = record.bytes().get(end..start).unwrap_or_default();
                if before.iter().any(|byte| *byte != 0) {
                    description.add(Self::BYTES_BEFORE, Value::Bytes(before.to_vec()));
                }
            }
            end = end.max(start.saturating_add(section.bytes.len()));
            description
        });
        description.add_list(Self::SECTION, sections);
        description.add_bytes(Self::BYTES_BEHIND, Self::ZERO_BYTES_BEHIND, record.unused());
        description
    }

    /// A section with its descriptor. Offsets in errors are relative to `offset`.
    pub(super) fn of_record_section(section: &RecordSection<'_>, offset: usize) -> Self {
        let descriptor = section.descriptor;
        let mut description = of_header(describe(SectionDescriptor::LAYOUT, descriptor.as_bytes(), 0));
        match section.problem {
            None => {
                let kind = descriptor.section_type;
                description.add_section(&RawSection { kind, bytes: section.bytes }, offset);
            }
            Some(problem) => {
                description.add_raw_section(descriptor.section_type, Some(problem), section.bytes)
            }
        }
        description
    }

    /// Adds a section; if it cannot be decoded, the error and its bytes.
    pub(super) fn add_section(&mut self, section: &RawSection<'_>, offset: usize) {
        let Some((key, layout)) = section_type(section.kind).and_then(|known| known.body) else {
            return self.add_raw_section(section.kind, None, section.bytes);
        };
        match describe(layout, section.bytes, offset) {
            Ok(described) => {
                self.add(key, Value::Group(described.description));
                let behind = section.bytes.get(described.len..).unwrap_or_default();
                self.add_bytes(Self::BYTES_BEHIND, Self::ZERO_BYTES_BEHIND, behind);
            }
            Err(error) => self.add_raw_section(section.kind, Some(error), section.bytes),
        }
    }

    fn add_raw_section(&mut self, kind: Guid, error: Option<DecodeError>, bytes: &[u8]) {
        self.add(Self::SECTION_TYPE, Value::Text(kind.to_string()));
        if let Some(known) = section_type(kind) {
            self.add(Self::SECTION_NAME, Value::Text(known.name.to_string()));
        }
        if let Some(error) = error {
            self.add(Self::BROKEN, Value::Text(error.to_string()));
        }
        if !bytes.is_empty() {
            self.add(Self::SECTION, Value::Bytes(bytes.to_vec()));
        }
    }
}
