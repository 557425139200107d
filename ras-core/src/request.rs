//! What was asked for.

use core::fmt;
use core::num::NonZeroU32;

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

/// The tables that describe the machine to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum TableSet {
    /// ACPI: the only tables that can point at error records.
    Acpi,
    /// A flattened devicetree.
    Devicetree,
    /// An Intel MultiProcessor table.
    MpTable,
}

/// The answer wanted for an error that a vCPU consumed: action required (AR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Synchronous {
    /// The best that tables and host carry.
    Auto,
    /// Record and synchronous external abort.
    Sea,
    /// Record and SError.
    Sei,
    /// Record and NMI.
    Nmi,
    /// Machine check.
    Mce,
    /// Synchronous external abort without a record.
    Abort,
    /// SError without a record.
    Serror,
    /// The VM is stopped.
    Stop,
}

/// The answer wanted for an error that was found before anyone consumed it: action optional (AO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Asynchronous {
    /// The best that tables and host carry.
    Auto,
    /// Record that the guest looks for.
    Polled,
    /// Record and interrupt, notification type 10.
    Gsiv,
    /// Record and interrupt, notification type 7.
    Gpio,
    /// Record and an interrupt of its own, notification type 1.
    External,
    /// Machine check, action optional.
    Mce,
    /// The guest is not told.
    Ignore,
    /// The VM is stopped.
    Stop,
}

/// What to do where support for the wanted answer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum OnMissingSupport {
    /// Take the next best and say so.
    Degrade,
    /// Do not start.
    Refuse,
}

/// When a poisoned page is replaced by a fresh one.
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

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct Request {
    /// Architecture of the guest.
    pub arch: Arch,
    /// Tables that the guest shall get.
    pub tables: TableSet,
    /// Answer to consumed errors.
    pub synchronous: Synchronous,
    /// Answer to errors that nobody consumed.
    pub asynchronous: Asynchronous,
    /// How often the guest looks at a polled source: milliseconds. Linux switches a source off whose interval is zero.
    pub poll_interval_ms: NonZeroU32,
    /// What to do where support is missing.
    pub on_missing_support: OnMissingSupport,
    /// When poisoned pages are replaced.
    pub repair: Repair,
}

impl Arch {
    /// Both.
    pub const ALL: [Arch; 2] = [Arch::Aarch64, Arch::X86_64];

    /// The name that people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Arch::Aarch64 => "aarch64",
            Arch::X86_64 => "x86_64",
        }
    }
}

impl TableSet {
    /// All of them.
    pub const ALL: [TableSet; 3] = [TableSet::Acpi, TableSet::Devicetree, TableSet::MpTable];

    /// The name that people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            TableSet::Acpi => "acpi",
            TableSet::Devicetree => "devicetree",
            TableSet::MpTable => "mptable",
        }
    }
}

impl Synchronous {
    /// All of them.
    pub const ALL: [Synchronous; 8] = [
        Synchronous::Auto,
        Synchronous::Sea,
        Synchronous::Sei,
        Synchronous::Nmi,
        Synchronous::Mce,
        Synchronous::Abort,
        Synchronous::Serror,
        Synchronous::Stop,
    ];
}

impl Asynchronous {
    /// All of them.
    pub const ALL: [Asynchronous; 8] = [
        Asynchronous::Auto,
        Asynchronous::Polled,
        Asynchronous::Gsiv,
        Asynchronous::Gpio,
        Asynchronous::External,
        Asynchronous::Mce,
        Asynchronous::Ignore,
        Asynchronous::Stop,
    ];
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for TableSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
