//! A memory error, as the VMM hears of it.

use core::fmt;

/// A run of guest physical addresses that was lost: a power of two of bytes, aligned to its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Span {
    /// First GPA.
    pub gpa: u64,
    /// Base-two logarithm of its bytes: 12 for a 4 KiB page. The host tells it (`si_addr_lsb` of a SIGBUS).
    pub log2_len: u8,
}

impl Span {
    /// The span of that size around `gpa`. Sizes are held to 4 KiB (12) to 1 GiB (30), the granules that hosts report.
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

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.log2_len
    }

    /// Whether `gpa` lies in it.
    #[must_use]
    pub const fn contains(self, gpa: u64) -> bool {
        gpa >= self.gpa && gpa - self.gpa < self.bytes()
    }

    /// The 4 KiB pages in it, by their first GPA.
    pub fn pages(self) -> impl ExactSizeIterator<Item = u64> {
        // At most 2^18 pages: the size is held to 1 GiB.
        (0..1_u32 << (self.log2_len - 12)).map(move |page| self.gpa + (u64::from(page) << 12))
    }
}

/// Whether someone has already consumed what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kind {
    /// Action required (AR): a vCPU touched it and cannot go on.
    #[cfg_attr(feature = "serde", serde(rename = "AR"))]
    ActionRequired,
    /// Action optional (AO): it was found, and nobody consumed it yet.
    #[cfg_attr(feature = "serde", serde(rename = "AO"))]
    ActionOptional,
}

/// Where the VMM heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Origin {
    /// SIGBUS with BUS_MCEERR_AR or BUS_MCEERR_AO.
    Sigbus,
    /// KVM_EXIT_MEMORY_FAULT with EHWPOISON.
    MemoryFault,
    /// KVM_EXIT_ARM_SEA.
    ArmSea,
    /// Injected by a person.
    Injected,
    /// A device model touched it.
    Device,
}

/// A memory error of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MemoryError {
    /// What was lost.
    pub span: Span,
    /// The address that was touched, where the host tells it; else the span's first.
    pub gpa: u64,
    /// Whether it was consumed.
    pub kind: Kind,
    /// The vCPU that consumed it, by index; none for an error that nobody consumed or a device did.
    pub vcpu: Option<u32>,
    /// Where it comes from.
    pub origin: Origin,
    /// When, in nanoseconds of the VMM's monotonic clock.
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

/// The word for it in events.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Sigbus => "sigbus",
            Origin::MemoryFault => "memory-fault",
            Origin::ArmSea => "arm-sea",
            Origin::Injected => "injected",
            Origin::Device => "device",
        })
    }
}

/// One line for people: what happened, to which pages, and how the VMM knows.
impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryError { span, kind, vcpu, origin, .. } = self;
        match (kind, vcpu, origin) {
            (_, _, Origin::Device) => write!(f, "a device touched poisoned memory: {span}"),
            (Kind::ActionRequired, Some(vcpu), _) => {
                write!(f, "vCPU {vcpu} consumed poisoned memory: {span} (action required, by {origin})")
            }
            (Kind::ActionRequired, None, _) => {
                write!(f, "poisoned memory was consumed: {span} (action required, by {origin})")
            }
            (Kind::ActionOptional, ..) => {
                write!(f, "uncorrected memory error detected: {span} (action optional, by {origin})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn an_error_is_one_line_for_people() {
        let span = Span::around(0x4020_1234, 21);
        let consumed = MemoryError {
            span,
            gpa: 0x4020_1234,
            kind: Kind::ActionRequired,
            vcpu: Some(1),
            origin: Origin::Sigbus,
            time_ns: 0,
        };
        assert_eq!(
            consumed.to_string(),
            "vCPU 1 consumed poisoned memory: 2 MiB at 0x40200000 (action required, by sigbus)"
        );
        let touched = MemoryError { vcpu: None, origin: Origin::Device, ..consumed };
        assert_eq!(touched.to_string(), "a device touched poisoned memory: 2 MiB at 0x40200000");
        assert_eq!(Span::around(0, 12).to_string(), "4 KiB at 0x0");
        assert_eq!(Span::around(0, 30).to_string(), "1 GiB at 0x0");
    }
}
