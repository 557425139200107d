//! Errors of decoders.

use core::fmt;

/// Bytes that are not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[error("at byte {offset:#x}: {what} is {found:#x}, expected {expected}")]
pub struct DecodeError {
    /// Offset in bytes from the start of the input.
    pub offset: usize,
    /// The field.
    pub what: &'static str,
    /// Its value.
    pub found: u64,
    /// The value that it should have.
    #[cfg_attr(feature = "serde", serde(rename = "wanted"))]
    pub expected: Expected,
}

/// The value that a field should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Expected {
    /// Exactly this.
    Exactly(u64),
    /// This or more.
    AtLeast(u64),
    /// This or less.
    AtMost(u64),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Exactly(number) => write!(f, "{number:#x}"),
            Expected::AtLeast(number) => write!(f, "at least {number:#x}"),
            Expected::AtMost(number) => write!(f, "at most {number:#x}"),
        }
    }
}
