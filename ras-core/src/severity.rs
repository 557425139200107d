//! How bad it is.

use core::fmt;

/// Severity of an error, the same in status blocks, data entries and CPER records (ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.1).
///
/// Linux panics on [`Fatal`](Self::Fatal), and on numbers that are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Severity {
    /// Uncorrected; the system can go on.
    Recoverable,
    /// Uncorrected; it cannot.
    Fatal,
    /// Corrected.
    Corrected,
    /// No error at all.
    Informational,
}

impl Severity {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Severity::Recoverable => 0,
            Severity::Fatal => 1,
            Severity::Corrected => 2,
            Severity::Informational => 3,
        }
    }

    /// The severity with that number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Severity::Recoverable),
            1 => Some(Severity::Fatal),
            2 => Some(Severity::Corrected),
            3 => Some(Severity::Informational),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Recoverable => "recoverable",
            Severity::Fatal => "fatal",
            Severity::Corrected => "corrected",
            Severity::Informational => "informational",
        }
    }

    /// The worse of two: what a block with both in it says of itself.
    #[must_use]
    pub const fn worse(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }

    /// The numbers on the wire are in no order.
    const fn rank(self) -> u8 {
        match self {
            Severity::Informational => 0,
            Severity::Corrected => 1,
            Severity::Recoverable => 2,
            Severity::Fatal => 3,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
