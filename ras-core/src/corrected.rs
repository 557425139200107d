//! Corrected errors: when a page has had too many of them, and their numbers.

use core::num::NonZeroU32;

/// So many corrected errors of one page, and the page should no longer be used: the record of the last one says so
/// ([`THRESHOLD_EXCEEDED`](crate::status_block::section_flags::THRESHOLD_EXCEEDED)), and Linux soft-offlines the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Threshold {
    /// Number of errors.
    pub errors: NonZeroU32,
    /// They count if they are within so many milliseconds of the first.
    pub window_ms: NonZeroU32,
}

/// Numbers of corrected errors, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorrectedErrors {
    /// All.
    pub errors: u64,
    /// Those that no guest was notified of: the queue was full, their record could not be written, or the guest was reset before.
    pub not_reported: u64,
    /// How often the errors of a page have reached the [`Threshold`].
    pub thresholds: u64,
}
