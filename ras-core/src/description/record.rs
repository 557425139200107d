//! CPER records and firmware error records.

use alloc::string::ToString;

use super::Description;
use crate::cper::SectionView;
use crate::cper::firmware_record::FirmwareRecord;
use crate::cper::record::{FLAG_NAMES, Record, SectionDescriptor, notification_name, section_valid, valid};
use crate::decode_error::DecodeError;
use crate::severity::Severity;
use crate::status_block::section_flags;

impl Description {
    /// A record.
    #[must_use]
    pub fn of_record(record: &Record<'_>) -> Self {
        let header = record.header;
        let is_valid = |bit| header.validation.get() & bit != 0;
        let notification = header.notification_type;
        let notification = notification_name(notification).map_or(notification.to_string(), str::to_string);
        Description::default()
            .hex("revision", header.revision.get())
            .named("severity", Severity::from_number(header.severity.get()), header.severity.get())
            .number("record_length", header.record_length.get())
            .reserved("reserved_validation_bits", header.validation.get() & !valid::ALL)
            .when(is_valid(valid::TIMESTAMP), |described| {
                described.time(&header.timestamp, header.time_encoding())
            })
            .when(is_valid(valid::PLATFORM_ID), |described| described.text("platform_id", header.platform_id))
            .when(is_valid(valid::PARTITION_ID), |described| {
                described.text("partition_id", header.partition_id)
            })
            .text("creator_id", header.creator_id)
            .text("notification", notification)
            .hex("record_id", header.record_id.get())
            .flags("flags", header.flags.get(), &FLAG_NAMES)
            .hex("persistence", header.persistence.get())
            .reserved_bytes("reserved", &header.reserved)
            .list(
                "section",
                record.sections().map(|(descriptor, section, bytes)| {
                    Description::of_record_section(descriptor, section, bytes)
                }),
            )
            .reserved_bytes("bytes_behind", record.unused())
    }

    /// A section with its descriptor.
    pub(super) fn of_record_section(
        descriptor: &SectionDescriptor,
        section: Result<SectionView<'_>, DecodeError>,
        bytes: &[u8],
    ) -> Self {
        let severity = descriptor.severity.get();
        Description::default()
            .named("severity", Severity::from_number(severity), severity)
            .hex("revision", descriptor.revision.get())
            .reserved("reserved_validation_bits", descriptor.validation & !section_valid::ALL)
            .reserved("reserved", descriptor.reserved)
            .flags("flags", descriptor.flags.get(), &section_flags::NAMES)
            .when(descriptor.validation & section_valid::FRU_ID != 0, |described| {
                described.text("fru_id", descriptor.fru_id)
            })
            .when(descriptor.validation & section_valid::FRU_TEXT != 0, |described| {
                described.text("fru_text", descriptor.fru_text)
            })
            .section(descriptor.section_type, section, bytes)
    }

    pub(super) fn of_firmware_record(firmware: &FirmwareRecord<'_>) -> Self {
        const KINDS: [&str; 3] = ["IPF SAL", "system on chip, type 1", "system on chip, type 2"];
        let header = firmware.header();
        let mut description = Description::default()
            .named("kind", KINDS.get(usize::from(header.kind)), header.kind)
            .number("revision", header.revision)
            .reserved_bytes("reserved", &header.reserved);
        if let Some(id) = firmware.id() {
            description = description.hex("id", id);
        }
        if let Some(guid) = firmware.guid() {
            description = description.text("guid", guid);
        }
        description.bytes("record", firmware.record())
    }
}
