//! What the user requested.

use core::fmt;
use core::num::NonZeroU32;

use crate::corrected::Threshold;
use crate::response::Response;

/// The architecture of a guest, and of the host that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Arch {
    /// 64-bit Arm.
    #[cfg_attr(feature = "serde", serde(rename = "aarch64"))]
    Aarch64,
    /// 64-bit x86.
    #[cfg_attr(feature = "serde", serde(rename = "x86_64"))]
    X86_64,
}

/// The kind of firmware tables that describe the machine to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum TableSet {
    /// ACPI.
    Acpi,
    /// A flattened devicetree.
    Devicetree,
    /// An Intel MultiProcessor table.
    MpTable,
}

/// What to do if support for the requested response is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum OnMissingSupport {
    /// Use the next best response, and report it as degraded.
    Degrade,
    /// Do not start.
    Refuse,
}

/// When a poisoned page is replaced by a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Repair {
    /// When the guest is reset.
    OnReset,
    /// When the guest has acknowledged the record.
    WhenAcknowledged,
    /// Never.
    Never,
}

/// What the user requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Architecture of the guest.
    pub arch: Arch,
    /// Tables that describe the machine to the guest.
    pub tables: TableSet,
    /// Response to consumed errors (AR). `None`: `auto`, the best that guest, tables and host support.
    pub synchronous: Option<Response>,
    /// Response to detected errors (AO). `None`: `auto`, as above.
    pub asynchronous: Option<Response>,
    /// Response to corrected errors (CE): whether the guest is notified of them, and how. `None`: it is not.
    pub corrected: Option<Response>,
    /// When the corrected errors of a page are so many that their record says so. `None`: never.
    pub corrected_threshold: Option<Threshold>,
    /// Poll interval of a polled source, in milliseconds. Linux disables a source with an interval of zero.
    pub poll_interval_ms: NonZeroU32,
    /// What to do if support is missing.
    pub on_missing_support: OnMissingSupport,
    /// When poisoned pages are replaced.
    pub repair: Repair,
}

impl Arch {
    /// Both architectures.
    pub const ALL: [Arch; 2] = [Arch::Aarch64, Arch::X86_64];

    /// The architecture that this program was built for: the only one whose guests it can run.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Arch = Arch::X86_64;
    /// The architecture that this program was built for: the only one whose guests it can run.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Arch = Arch::Aarch64;

    /// The name that users write and read: `aarch64` or `x86_64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Aarch64 => "aarch64",
            Arch::X86_64 => "x86_64",
        }
    }
}

impl TableSet {
    /// All table sets.
    pub const ALL: [TableSet; 3] = [TableSet::Acpi, TableSet::Devicetree, TableSet::MpTable];

    /// The name that users write and read: `acpi`, `devicetree` or `mptable`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TableSet::Acpi => "acpi",
            TableSet::Devicetree => "devicetree",
            TableSet::MpTable => "mptable",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for TableSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
