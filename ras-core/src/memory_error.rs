//! Memory errors, as they are reported to the VMM.

use core::fmt;

use crate::severity::Severity;

/// A range of guest physical addresses that is poisoned: a power of two of bytes, aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Span {
    /// First GPA.
    pub gpa: u64,
    /// Binary logarithm of its size in bytes: 12 for a 4 KiB page. The host reports it (`si_addr_lsb` of a SIGBUS).
    pub log2_len: u8,
}

impl Span {
    /// The span of that size that contains `gpa`. Sizes are clamped to 4 KiB (12) to 1 GiB (30), the granules that hosts report.
    #[must_use]
    pub const fn around(gpa: u64, log2_len: u8) -> Self {
        let log2_len = if log2_len < 12 {
            12
        } else if log2_len > 30 {
            30
        } else {
            log2_len
        };
        Span { gpa: gpa & !((1 << log2_len) - 1), log2_len }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.log2_len
    }

    /// Whether it contains `gpa`.
    #[must_use]
    pub const fn contains(self, gpa: u64) -> bool {
        gpa >= self.gpa && gpa - self.gpa < self.bytes()
    }

    /// The first GPA of each of its 4 KiB pages.
    pub fn pages(self) -> impl ExactSizeIterator<Item = u64> {
        // At most 2^18 pages: the size is clamped to 1 GiB.
        (0..1_u32 << (self.log2_len - 12)).map(move |page| self.gpa + (u64::from(page) << 12))
    }
}

/// Whether the error was consumed, or is none that anything could consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    /// Action required (AR): a vCPU consumed it and cannot continue.
    #[cfg_attr(feature = "serde", serde(rename = "AR"))]
    ActionRequired,
    /// Action optional (AO): it was detected, and nothing has consumed it yet.
    #[cfg_attr(feature = "serde", serde(rename = "AO"))]
    ActionOptional,
    /// Corrected (CE): the memory is not poisoned, and its contents are right.
    #[cfg_attr(feature = "serde", serde(rename = "CE"))]
    Corrected,
}

/// How an error was reported to the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Origin {
    /// SIGBUS with BUS_MCEERR_AR or BUS_MCEERR_AO.
    Sigbus,
    /// KVM_EXIT_MEMORY_FAULT with EHWPOISON.
    MemoryFault,
    /// KVM_EXIT_ARM_SEA.
    ArmSea,
    /// An injection request.
    Injected,
    /// A device model accessed poisoned memory.
    Device,
    /// The guest injected it (EINJ).
    Einj,
}

/// An error in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MemoryError {
    /// The poisoned pages; of a corrected error, its page of 4 KiB.
    pub span: Span,
    /// The accessed address, if the host reports it; otherwise the first of the span.
    pub gpa: u64,
    /// Whether it was consumed.
    pub kind: Kind,
    /// Whether the guest can continue: [`Severity::Recoverable`] or [`Severity::Fatal`]; or [`Severity::Corrected`].
    pub severity: Severity,
    /// Index of the vCPU that consumed it. `None` for a detected error, or one that a device accessed.
    pub vcpu: Option<u32>,
    /// How it was reported.
    pub origin: Origin,
    /// When it was reported: nanoseconds of the VMM's monotonic clock.
    pub time_ns: u64,
}

/// As in `4 KiB at 0x40201000`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, unit) = match self.log2_len {
            ..20 => (self.bytes() >> 10, "KiB"),
            20..30 => (self.bytes() >> 20, "MiB"),
            _ => (self.bytes() >> 30, "GiB"),
        };
        write!(f, "{bytes} {unit} at {:#x}", self.gpa)
    }
}

/// Its name in events.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Sigbus => "sigbus",
            Origin::MemoryFault => "memory-fault",
            Origin::ArmSea => "arm-sea",
            Origin::Injected => "injected",
            Origin::Device => "device",
            Origin::Einj => "einj",
        })
    }
}

/// One line for users: what happened, to which pages, and how it was reported.
impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryError { span, kind, severity, vcpu, origin, .. } = self;
        match (kind, vcpu, origin) {
            (Kind::Corrected, ..) => return write!(f, "corrected memory error: {span} (by {origin})"),
            (_, _, Origin::Device) => return write!(f, "a device accessed poisoned memory: {span}"),
            (Kind::ActionRequired, Some(vcpu), _) => {
                write!(f, "vCPU {vcpu} consumed poisoned memory: {span} (")?;
            }
            (Kind::ActionRequired, None, _) => write!(f, "poisoned memory was consumed: {span} (")?,
            (Kind::ActionOptional, ..) => write!(f, "uncorrected memory error detected: {span} (")?,
        }
        let class = match (severity, kind) {
            (Severity::Fatal, _) => "fatal",
            (_, Kind::ActionRequired) => "action required",
            (_, Kind::ActionOptional | Kind::Corrected) => "action optional",
        };
        write!(f, "{class}, by {origin})")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn an_error_is_displayed_in_one_line() {
        let span = Span::around(0x4020_1234, 21);
        let consumed = MemoryError {
            span,
            gpa: 0x4020_1234,
            kind: Kind::ActionRequired,
            severity: Severity::Recoverable,
            vcpu: Some(1),
            origin: Origin::Sigbus,
            time_ns: 0,
        };
        assert_eq!(
            consumed.to_string(),
            "vCPU 1 consumed poisoned memory: 2 MiB at 0x40200000 (action required, by sigbus)"
        );
        let fatal = MemoryError {
            kind: Kind::ActionOptional,
            severity: Severity::Fatal,
            vcpu: None,
            origin: Origin::Einj,
            ..consumed
        };
        assert_eq!(
            fatal.to_string(),
            "uncorrected memory error detected: 2 MiB at 0x40200000 (fatal, by einj)"
        );
        let accessed = MemoryError { vcpu: None, origin: Origin::Device, ..consumed };
        assert_eq!(accessed.to_string(), "a device accessed poisoned memory: 2 MiB at 0x40200000");
        let corrected = MemoryError {
            span: Span::around(0x4020_1234, 12),
            kind: Kind::Corrected,
            severity: Severity::Corrected,
            ..fatal
        };
        assert_eq!(corrected.to_string(), "corrected memory error: 4 KiB at 0x40201000 (by einj)");
        assert_eq!(Span::around(0, 12).to_string(), "4 KiB at 0x0");
        assert_eq!(Span::around(0, 30).to_string(), "1 GiB at 0x0");
    }
}
