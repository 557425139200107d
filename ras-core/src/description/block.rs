//! Status blocks and their entries.

use super::Description;
use crate::cper::SectionView;
use crate::decode_error::DecodeError;
use crate::guid::Guid;
use crate::status_block::{Entry, StatusBlock, block_status, section_flags};

impl Description {
    /// A status block.
    #[must_use]
    pub fn of_block(block: &StatusBlock<'_>) -> Self {
        let header = block.header;
        Description::default()
            .flags("block_status", block_status::names(header.block_status.get()))
            .number("entry_count", header.entry_count())
            .number("data_length", header.data_length.get())
            .named("severity", header.severity(), header.severity.get())
            .list("entry", block.entries().map(|entry| Description::of_entry(&entry)))
            .bytes("raw_data", block.raw_data)
    }

    fn of_entry(entry: &Entry<'_>) -> Self {
        let mut description = Description::default()
            .named("severity", entry.severity(), entry.header.severity.get())
            .hex("revision", entry.header.revision.get())
            .flags("flags", section_flags::names(entry.header.flags));
        if let Some(id) = entry.fru_id() {
            description = description.text("fru_id", id);
        }
        if let Some(text) = entry.fru_text() {
            description = description.text("fru_text", text);
        }
        if let Some(time) = entry.time() {
            description = description.text("time", time);
        }
        description.section(entry.header.section_type, entry.section(), entry.payload)
    }

    /// Adds a section; if it cannot be decoded, the error and its bytes.
    pub(super) fn section(
        self,
        kind: Guid,
        section: Result<SectionView<'_>, DecodeError>,
        bytes: &[u8],
    ) -> Self {
        match section {
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
            Ok(SectionView::Other(_)) => self.text("section_type", kind).bytes("section", bytes),
            Err(error) => self.text("section_type", kind).text("broken", error).bytes("section", bytes),
        }
    }
}
