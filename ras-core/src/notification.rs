//! Notifications: how the guest is notified of a record.

use core::fmt;
use core::num::NonZeroU32;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How a generic hardware error source notifies the operating system (ACPI 6.5, 18.3.2.9).
///
/// | notification | type | what Linux's GHES driver does with it |
/// |---|---|---|
/// | [`Polled`](Self::Polled) | 0 | reads the block when a timer fires, up to a second late; refuses an interval of zero |
/// | [`External`](Self::External) | 1 | takes the interrupt on x86; on arm64 it cannot map the GSI and refuses the source |
/// | [`Sci`](Self::Sci) | 3 | as 7: the type only says how the platform raises the error device |
/// | [`Nmi`](Self::Nmi) | 4 | x86 only: the NMI handler reads every such source; other architectures refuse it |
/// | [`Gpio`](Self::Gpio) | 7 | reads every source of this type when the error device (PNP0C33) is notified |
/// | [`Sea`](Self::Sea) | 8 | arm64 only: an abort taken from user space reads every such source, on whatever processor it is taken |
/// | [`Sei`](Self::Sei) | 9 | refuses the source (unknown type): the guest takes a plain SError |
/// | [`Gsiv`](Self::Gsiv) | 10 | as 7: the type only says how the platform raises the error device |
///
/// In a devicetree a source is an arm,ras-cper node, which has an interrupt of its own: external, on arm64 too, because the GIC's binding
/// names the interrupt.
///
/// Linux refuses the other types (2, 5, 6, 11 and up), or handles them as one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Notification {
    /// The guest polls.
    Polled {
        /// Milliseconds between two polls.
        interval_ms: NonZeroU32,
    },
    /// An interrupt of the source's own.
    External {
        /// The global system interrupt.
        gsi: u32,
    },
    /// A system control interrupt: an event device (ACPI0013) notifies the error device (PNP0C33).
    Sci,
    /// A non-maskable interrupt.
    Nmi,
    /// A GPIO signal: an event device (ACPI0013) notifies the error device (PNP0C33).
    Gpio,
    /// A synchronous external abort.
    Sea,
    /// An asynchronous external abort: SError.
    Sei,
    /// A global system interrupt: an event device (ACPI0013) notifies the error device (PNP0C33).
    Gsiv,
}

/// What is known of a notification type.
struct Properties {
    number: u8,
    name: &'static str,
    needs_error_device: bool,
}

impl Notification {
    const fn properties(self) -> Properties {
        let (number, name, needs_error_device) = match self {
            Notification::Polled { .. } => (0, "polled", false),
            Notification::External { .. } => (1, "external", false),
            Notification::Sci => (3, "sci", true),
            Notification::Nmi => (4, "nmi", false),
            Notification::Gpio => (7, "gpio", true),
            Notification::Sea => (8, "sea", false),
            Notification::Sei => (9, "sei", false),
            Notification::Gsiv => (10, "gsiv", true),
        };
        Properties { number, name, needs_error_device }
    }

    /// The notification of that type, with the parameters that it takes: a poll interval, or an interrupt. `None` if the type is not
    /// supported, or the source needs an interrupt of its own and there is none.
    #[must_use]
    pub fn from_number(number: u8, interval_ms: NonZeroU32, own_gsi: Option<u32>) -> Option<Self> {
        let own_gsi = own_gsi.map(|gsi| Notification::External { gsi });
        let fixed = [
            Notification::Sci,
            Notification::Nmi,
            Notification::Gpio,
            Notification::Sea,
            Notification::Sei,
            Notification::Gsiv,
        ];
        let all = fixed.into_iter().chain([Notification::Polled { interval_ms }]).chain(own_gsi);
        all.into_iter().find(|notification| notification.number() == number)
    }

    /// The type number in HEST.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.properties().number
    }

    /// The name that profiles and plans use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.properties().name
    }

    /// Whether the instruction that consumed the error takes it: Linux attributes such a record to the current task, as action required.
    /// Only [`Sea`](Self::Sea) is: an NMI or an SError may be taken later, by any task.
    #[must_use]
    pub const fn is_synchronous(self) -> bool {
        matches!(self, Notification::Sea)
    }

    /// Whether it reaches the guest through the error device (PNP0C33), which the tables must then describe.
    #[must_use]
    pub const fn needs_error_device(self) -> bool {
        self.properties().needs_error_device
    }

    /// The structure in HEST.
    #[must_use]
    pub const fn structure(self) -> NotificationStructure {
        let (poll_interval_ms, vector) = match self {
            Notification::Polled { interval_ms } => (interval_ms.get(), 0),
            Notification::External { gsi } => (0, gsi),
            _ => (0, 0),
        };
        NotificationStructure {
            kind: self.number(),
            length: size_of::<NotificationStructure>() as u8,
            write_enable: U16::new(0),
            poll_interval_ms: U32::new(poll_interval_ms),
            vector: U32::new(vector),
            polling_threshold: U32::new(0),
            polling_threshold_window_ms: U32::new(0),
            error_threshold: U32::new(0),
            error_threshold_window_ms: U32::new(0),
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Hardware Error Notification Structure (ACPI 6.5, 18.3.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NotificationStructure {
    /// [`Notification::number`].
    pub kind: u8,
    /// Bytes of this structure: 28.
    pub length: u8,
    /// Which of the fields below the operating system may change: none.
    pub write_enable: U16,
    /// Poll interval in milliseconds, for a polled source.
    pub poll_interval_ms: U32,
    /// The interrupt, for an external source.
    pub vector: U32,
    /// Number of interrupts within the window after which the operating system switches to polling. Zero: never. There is no storm of them:
    /// the next record is written after the one before was acknowledged.
    pub polling_threshold: U32,
    /// That window, in milliseconds.
    pub polling_threshold_window_ms: U32,
    /// Number of errors within the window after which the operating system processes them. Zero: every error. The VMM counts corrected errors
    /// itself, by page ([`Threshold`](crate::Threshold)), and Linux uses neither of these fields.
    pub error_threshold: U32,
    /// That window, in milliseconds.
    pub error_threshold_window_ms: U32,
}

const _: () = assert!(size_of::<NotificationStructure>() == 28);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response;

    #[test]
    fn interval_and_interrupt_have_their_own_fields() {
        let interval_ms = NonZeroU32::new(0x0102).unwrap();
        let polled = Notification::Polled { interval_ms }.structure();
        assert_eq!(polled.as_bytes()[..12], [0, 28, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        let external = Notification::External { gsi: 0x0304 }.structure();
        assert_eq!(external.as_bytes()[..12], [1, 28, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0]);
    }

    #[test]
    fn every_response_with_a_record_has_a_notification_of_its_name() {
        for response in Response::ALL.iter().filter(|response| response.writes_record()) {
            let number = response.notification().unwrap();
            let notification = Notification::from_number(number, NonZeroU32::MIN, Some(3)).unwrap();
            assert_eq!((notification.number(), notification.name()), (number, response.name()));
        }
        assert_eq!(Notification::from_number(1, NonZeroU32::MIN, None), None);
    }
}
