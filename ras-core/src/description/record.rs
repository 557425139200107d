//! CPER records and firmware error records.

use alloc::string::ToString;

use super::Description;
use crate::cper::SectionView;
use crate::cper::firmware_record::FirmwareRecord;
use crate::cper::record::{Record, SectionDescriptor, notification_name, valid};
use crate::decode_error::DecodeError;
use crate::severity::Severity;
use crate::status_block::section_flags;

impl Description {
    /// A record.
    #[must_use]
    pub fn of_record(record: &Record<'_>) -> Self {
        const FLAGS: [(u32, &str); 3] = [(1, "recovered"), (2, "previous"), (4, "simulated")];
        let header = record.header;
        let is_valid = |bit| header.validation.get() & bit != 0;
        let notification = header.notification_type;
        let notification = notification_name(notification).map_or(notification.to_string(), str::to_string);
        let flags = FLAGS.iter().filter(|(bit, _)| header.flags.get() & bit != 0).map(|(_, name)| *name);
        Description::default()
            .hex("revision", header.revision.get())
            .named("severity", Severity::from_number(header.severity.get()), header.severity.get())
            .number("record_length", header.record_length.get())
            .when(is_valid(valid::TIMESTAMP), |described| described.text("time", header.timestamp))
            .when(is_valid(valid::PLATFORM_ID), |described| described.text("platform_id", header.platform_id))
            .when(is_valid(valid::PARTITION_ID), |described| {
                described.text("partition_id", header.partition_id)
            })
            .text("creator_id", header.creator_id)
            .text("notification", notification)
            .hex("record_id", header.record_id.get())
            .flags("flags", flags)
            .list(
                "section",
                record.sections().map(|(descriptor, section, bytes)| {
                    Description::of_record_section(descriptor, section, bytes)
                }),
            )
    }

    fn of_record_section(
        descriptor: &SectionDescriptor,
        section: Result<SectionView<'_>, DecodeError>,
        bytes: &[u8],
    ) -> Self {
        let severity = descriptor.severity.get();
        // The bits above the first eight are reserved.
        let flags = descriptor.flags.get() as u8;
        Description::default()
            .named("severity", Severity::from_number(severity), severity)
            .flags("flags", section_flags::names(flags))
            .when(descriptor.validation & 1 != 0, |described| described.text("fru_id", descriptor.fru_id))
            .when(descriptor.validation & 2 != 0, |described| described.text("fru_text", descriptor.fru_text))
            .section(descriptor.section_type, section, bytes)
    }

    pub(super) fn of_firmware_record(firmware: &FirmwareRecord<'_>) -> Self {
        const KINDS: [&str; 3] = ["IPF SAL", "system on chip, type 1", "system on chip, type 2"];
        let header = firmware.header();
        let mut description = Description::default()
            .named("kind", KINDS.get(usize::from(header.kind)), header.kind)
            .number("revision", header.revision);
        if let Some(id) = firmware.id() {
            description = description.hex("id", id);
        }
        if let Some(guid) = firmware.guid() {
            description = description.text("guid", guid);
        }
        description.bytes("record", firmware.record())
    }
}
