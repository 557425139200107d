//! Severity of an error.

use core::fmt;

/// Severity of an error, the same in status blocks, data entries and CPER records (ACPI 6.5, 18.3.2.7.1; UEFI 2.10, N.2.1).
///
/// Linux panics on [`Fatal`](Self::Fatal), and on other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Severity {
    /// Uncorrected; the system can continue.
    Recoverable,
    /// Uncorrected; the system cannot continue.
    Fatal,
    /// Corrected.
    Corrected,
    /// Not an error.
    Informational,
}

impl Severity {
    /// Its number in records.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Severity::Recoverable => 0,
            Severity::Fatal => 1,
            Severity::Corrected => 2,
            Severity::Informational => 3,
        }
    }

    /// The severity with that number. `None` if the number is not defined.
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

    /// The more severe of the two: the severity of a block that contains both.
    #[must_use]
    pub const fn worse(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }

    /// The numbers in records are not sorted by severity.
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
