//! Status blocks and their entries.

use super::Description;
use crate::cper::{SectionView, section_name};
use crate::decode_error::DecodeError;
use crate::guid::Guid;
use crate::status_block::{Entry, StatusBlock, block_status, section_flags, valid};
use crate::timestamp::TimeEncoding;

impl Description {
    /// A status block.
    #[must_use]
    pub fn of_block(block: &StatusBlock<'_>) -> Self {
        const COUNT: u32 = block_status::MAX_COUNT << block_status::COUNT_SHIFT;
        let header = block.header;
        Description::default()
            .flags("block_status", header.block_status.get() & !COUNT, &block_status::NAMES)
            .number("entry_count", header.entry_count())
            .number("data_length", header.data_length.get())
            .named("severity", header.severity(), header.severity.get())
            .list("entry", block.entries().map(|entry| Description::of_entry(&entry)))
            .reserved_bytes("bytes_before_raw_data", block.gap())
            .bytes("raw_data", block.raw_data)
    }

    fn of_entry(entry: &Entry<'_>) -> Self {
        let header = entry.header;
        let defined = if header.has_timestamp() { valid::ALL } else { valid::ALL & !valid::TIMESTAMP };
        let mut description = Description::default()
            .named("severity", entry.severity(), header.severity.get())
            .hex("revision", header.revision.get())
            .reserved("reserved_validation_bits", header.validation & !defined)
            .flags("flags", header.flags, &section_flags::NAMES);
        if let Some(id) = entry.fru_id() {
            description = description.text("fru_id", id);
        }
        if let Some(text) = entry.fru_text() {
            description = description.text("fru_text", text);
        }
        if let Some(time) = entry.time() {
            description = description.time(&time, TimeEncoding::Bcd);
        }
        description.section(header.section_type, entry.section(), entry.payload)
    }

    /// Adds a section; if it cannot be decoded, the error and its bytes.
    pub(super) fn section(
        self,
        kind: Guid,
        section: Result<SectionView<'_>, DecodeError>,
        bytes: &[u8],
    ) -> Self {
        let described = section.as_ref().map_or(bytes.len(), |section| section.described_len(bytes.len()));
        let behind = bytes.get(described..).unwrap_or_default();
        let unknown = |described: Self| {
            let described = described.text("section_type", kind);
            match section_name(kind) {
                Some(name) => described.text("section_name", name),
                None => described,
            }
        };
        let description = match section {
            Ok(SectionView::Memory(memory)) => self.group("memory_error", Description::of_memory(&memory)),
            Ok(SectionView::ArmProcessor(arm)) => {
                self.group("arm_processor_error", Description::of_arm_processor(&arm))
            }
            Ok(SectionView::X86Processor(x86)) => {
                self.group("x86_processor_error", Description::of_x86_processor(&x86))
            }
            Ok(SectionView::GenericProcessor(processor)) => {
                self.group("processor_error", Description::of_generic_processor(processor))
            }
            Ok(SectionView::FirmwareRecord(record)) => {
                self.group("firmware_record", Description::of_firmware_record(&record))
            }
            Ok(SectionView::Other(_)) => unknown(self).bytes("section", bytes),
            Err(error) => unknown(self).text("broken", error).bytes("section", bytes),
        };
        description.reserved_bytes("bytes_behind", behind)
    }
}
