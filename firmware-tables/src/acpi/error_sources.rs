//! Validation of error sources, and the placement of their records.
//!
//! A source that cannot notify a guest of this platform is an error here: an unreported memory error is worse than a
//! machine that does not start. SEI conforms to the specification and is built, although Linux refuses such a source.

use std::collections::BTreeSet;

use platform::{AcpiObject, DeviceRole, Platform};
use ras_core::plan::decision::has_notification;
use ras_core::{ErrorSource, Notification, RecordArea};

use super::SET;
use crate::{BuildError, records};

/// The layout of the records of all sources. `None` if there are no sources.
pub(super) fn record_area(platform: &Platform) -> Result<Option<RecordArea>, BuildError> {
    let sources = &platform.error_sources;
    if sources.is_empty() {
        return Ok(None);
    }
    for ErrorSource { id, notification } in sources.iter().copied() {
        if let Some(reason) = obstacle(platform, notification) {
            return Err(BuildError::ErrorSource { set: SET, id, notification, reason });
        }
    }
    records::lay_out(SET, platform).map(Some)
}

/// The ISA interrupts of external sources.
pub(super) fn isa_lines(sources: &[ErrorSource]) -> BTreeSet<u8> {
    let external = sources.iter().filter_map(|source| match source.notification {
        Notification::External { gsi } => isa_line(gsi),
        _ => None,
    });
    external.collect()
}

/// The reason why a guest would never be notified. `None` if it is.
fn obstacle(platform: &Platform, notification: Notification) -> Option<&'static str> {
    if !has_notification(platform.arch, SET, notification) {
        return Some("no response on this architecture uses it");
    }
    match notification {
        Notification::External { gsi } if isa_line(gsi).is_none() => {
            Some("its GSI must be that of an ISA interrupt, 1 or 3 to 15 (0 and 2 are the timer's)")
        }
        Notification::External { gsi } if records::is_taken(platform, gsi) => {
            Some("a device uses its interrupt")
        }
        _ if notification.needs_error_device() && !has_error_device(platform) => {
            Some("no event device notifies an error device (ACPI 6.5, 18.3.2.7.2)")
        }
        _ => None,
    }
}

/// Linux maps the GSI of a source by the MADT's interrupt source overrides, which describe ISA interrupts.
fn isa_line(gsi: u32) -> Option<u8> {
    u8::try_from(gsi).ok().filter(|line| matches!(line, 1 | 3..=15))
}

/// Whether an event notifies an error device. The DSDT checks that the target of every event exists.
pub(super) fn has_error_device(platform: &Platform) -> bool {
    let notified = |name: &str| {
        let listed = platform.devices.iter().filter_map(|device| device.acpi.as_ref());
        listed.flat_map(|identity| &identity.objects).any(|object| match object {
            AcpiObject::GenericEvents { sources, .. } => sources.iter().any(|source| source.target == name),
            _ => false,
        })
    };
    let mut error_devices =
        platform.devices.iter().filter(|device| device.role == Some(DeviceRole::ErrorDevice));
    error_devices.any(|device| device.acpi.as_ref().is_some_and(|identity| notified(identity.name)))
}
