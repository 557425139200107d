//! Error sources: which of them a machine can have, and where their records go.
//!
//! A source that the guest would refuse, or never hear of, is refused here: an error that nobody is told of is worse than a
//! machine that does not start.

use std::collections::BTreeSet;

use platform::{AcpiObject, Arch, Platform};
use ras_core::{ErrorSource, Notification, RecordArea};

use super::NAME;
use crate::{BuildError, records};

/// The hardware id of the error device (ACPI 6.5, 18.3.2.7.2).
const ERROR_DEVICE: &str = "PNP0C33";

/// The records of all sources, in the platform's room for them; none where there are no sources.
pub(super) fn record_area(platform: &Platform) -> Result<Option<RecordArea>, BuildError> {
    let sources = &platform.error_sources;
    if sources.is_empty() {
        return Ok(None);
    }
    for ErrorSource { id, notification } in sources.iter().copied() {
        if let Some(reason) = obstacle(platform, notification) {
            return Err(BuildError::ErrorSource { tables: NAME, id, notification, reason });
        }
    }
    records::lay_out(NAME, platform).map(Some)
}

/// The ISA lines that sources raise.
pub(super) fn isa_lines(sources: &[ErrorSource]) -> BTreeSet<u8> {
    let external = sources.iter().filter_map(|source| match source.notification {
        Notification::External { gsi } => isa_line(gsi),
        _ => None,
    });
    external.collect()
}

/// Why the guest would never hear of an error in that way.
fn obstacle(platform: &Platform, notification: Notification) -> Option<&'static str> {
    match (notification, platform.arch) {
        (Notification::Sea | Notification::Sei, Arch::X86_64) => Some("only Arm processors take such aborts"),
        (Notification::Nmi, Arch::Aarch64) => Some("only x86 processors take it"),
        (Notification::External { .. }, Arch::Aarch64) => Some("Linux maps the interrupt on x86 only"),
        (Notification::External { gsi }, Arch::X86_64) if isa_line(gsi).is_none() => {
            Some("Linux maps the lines of an ISA bus only, GSI 1 and 3 to 15, and 0 and 2 are the timer's")
        }
        (Notification::External { gsi }, Arch::X86_64) if records::is_taken(platform, gsi) => {
            Some("a device has that interrupt for itself")
        }
        _ if notification.needs_error_device() && !has_error_device(platform) => {
            Some("no event device notifies an error device (PNP0C33)")
        }
        _ => None,
    }
}

/// Linux maps a GSI for a source by the entries of the MADT, and these are of the ISA bus.
fn isa_line(gsi: u32) -> Option<u8> {
    u8::try_from(gsi).ok().filter(|line| matches!(line, 1 | 3..=15))
}

/// Whether an event leads to an error device. That every event leads to some device is the DSDT's to check.
fn has_error_device(platform: &Platform) -> bool {
    let listed = || platform.devices.iter().filter_map(|device| device.acpi.as_ref());
    let notified = |name: &str| {
        listed().flat_map(|identity| &identity.objects).any(|object| match object {
            AcpiObject::GenericEvents { sources, .. } => sources.iter().any(|source| source.target == name),
            _ => false,
        })
    };
    listed().any(|identity| identity.hid == ERROR_DEVICE && notified(identity.name))
}
