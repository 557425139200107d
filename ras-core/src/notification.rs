//! How the guest is told that a record is there.

use core::fmt;
use core::num::NonZeroU32;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How a generic hardware error source notifies the operating system (ACPI 6.5, 18.3.2.9).
///
/// | notification | number | what Linux's GHES driver does with it |
/// |---|---|---|
/// | [`Polled`](Self::Polled) | 0 | reads the block when a timer fires, up to a second late; refuses an interval of zero |
/// | [`External`](Self::External) | 1 | takes the interrupt on x86; on arm64 it finds no mapping for the GSI and refuses the source |
/// | [`Nmi`](Self::Nmi) | 4 | x86 only: the NMI handler asks every such source; others refuse it |
/// | [`Gpio`](Self::Gpio) | 7 | reads every source of this kind when the error device (PNP0C33) is notified |
/// | [`Sea`](Self::Sea) | 8 | arm64 only: an abort taken from user space asks every such source, on whatever processor it is taken |
/// | [`Sei`](Self::Sei) | 9 | refuses the source as of an unknown type: what the guest takes is a plain SError |
/// | [`Gsiv`](Self::Gsiv) | 10 | as 7: the number only says how the platform raises the error device |
///
/// In a devicetree a source is an arm,ras-cper node, which has an interrupt of its own: external, on arm64 too, where the GIC's binding
/// names the interrupt.
///
/// The numbers that are left out (2, 3, 5, 6, 11 and up) are either refused by Linux or another road to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Notification {
    /// The guest looks for itself, now and then.
    Polled {
        /// Milliseconds between two looks.
        interval_ms: NonZeroU32,
    },
    /// An interrupt of its own.
    External {
        /// The interrupt's number among the global system interrupts.
        gsi: u32,
    },
    /// A non-maskable interrupt.
    Nmi,
    /// A signal on a general-purpose pin: an event device (ACPI0013) that notifies the error device (PNP0C33).
    Gpio,
    /// A synchronous external abort.
    Sea,
    /// An asynchronous external abort: SError.
    Sei,
    /// A global system interrupt: an event device (ACPI0013) that notifies the error device (PNP0C33).
    Gsiv,
}

impl Notification {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Notification::Polled { .. } => 0,
            Notification::External { .. } => 1,
            Notification::Nmi => 4,
            Notification::Gpio => 7,
            Notification::Sea => 8,
            Notification::Sei => 9,
            Notification::Gsiv => 10,
        }
    }

    /// The name that profiles and plans use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Notification::Polled { .. } => "polled",
            Notification::External { .. } => "external",
            Notification::Nmi => "nmi",
            Notification::Gpio => "gpio",
            Notification::Sea => "sea",
            Notification::Sei => "sei",
            Notification::Gsiv => "gsiv",
        }
    }

    /// Whether it is taken by the instruction that consumed the error: Linux charges such a record to the task that runs, and asks for
    /// action. Only [`Sea`](Self::Sea) is: an NMI or an SError may be taken later, by anyone.
    #[must_use]
    pub const fn is_synchronous(self) -> bool {
        matches!(self, Notification::Sea)
    }

    /// Whether it reaches the guest through the error device (PNP0C33), which the tables must then hold.
    #[must_use]
    pub const fn needs_error_device(self) -> bool {
        matches!(self, Notification::Gpio | Notification::Gsiv)
    }

    /// As it stands in HEST.
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
    /// 28.
    pub length: u8,
    /// Which of the fields below the operating system may change. None.
    pub write_enable: U16,
    /// Milliseconds, for a polled source.
    pub poll_interval_ms: U32,
    /// Interrupt, for an external one.
    pub vector: U32,
    /// Interrupts within the window after which the operating system goes over to polling; zero leaves it alone.
    pub polling_threshold: U32,
    /// That window, in milliseconds.
    pub polling_threshold_window_ms: U32,
    /// Errors within the window after which they are reported; zero: every one.
    pub error_threshold: U32,
    /// That window, in milliseconds.
    pub error_threshold_window_ms: U32,
}

const _: () = assert!(size_of::<NotificationStructure>() == 28);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_and_an_interrupt_stand_in_fields_of_their_own() {
        let interval_ms = NonZeroU32::new(0x0102).unwrap();
        let polled = Notification::Polled { interval_ms }.structure();
        assert_eq!(polled.as_bytes()[..12], [0, 28, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        let external = Notification::External { gsi: 0x0304 }.structure();
        assert_eq!(external.as_bytes()[..12], [1, 28, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0]);
    }
}
