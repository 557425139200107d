//! Where bytes are not what they should be.

use core::fmt;

/// Bytes that are no record, or a broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[error("at byte {offset:#x}: {what} is {found:#x}, wanted {wanted}")]
pub struct DecodeError {
    /// Where, from the start of what was read.
    pub offset: usize,
    /// Which quantity.
    pub what: &'static str,
    /// What it is.
    pub found: u64,
    /// What it should have been.
    pub wanted: Wanted,
}

/// What a quantity should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Wanted {
    /// This.
    Exactly(u64),
    /// This or more.
    AtLeast(u64),
    /// This or less.
    AtMost(u64),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Exactly(number) => write!(f, "{number:#x}"),
            Wanted::AtLeast(number) => write!(f, "at least {number:#x}"),
            Wanted::AtMost(number) => write!(f, "at most {number:#x}"),
        }
    }
}
