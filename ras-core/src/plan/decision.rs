#![doc = include_str!("../../docs/decision-table.md")]

mod page;
mod table;

use crate::request::Arch::{self, Aarch64, X86_64};
use crate::request::TableSet::{self, Acpi, Devicetree, MpTable};
use crate::response::Response;

pub use page::markdown;
pub use table::{ALWAYS, TABLE};

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum ErrorClass {
    /// A vCPU consumed poisoned memory: action required (AR).
    Consumed,
    /// Memory was found lost and nobody consumed it: action optional (AO).
    #[cfg_attr(feature = "serde", serde(rename = "found"))]
    Detected,
    /// A device model touched poisoned memory of the guest.
    TouchedByDevice,
    /// The VMM's own memory was lost.
    OwnMemory,
}

/// When a row is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preference {
    /// By `auto`, where no row above it is possible.
    Auto,
    /// The same, but only as a degradation: never where missing support is to be refused.
    Degraded,
    /// Only when it was asked for by name.
    OnRequest,
}

/// What must be there before a row is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// The tables: a record area with a source of that notification.
    Source,
    /// The tables: an event device that notifies the error device.
    ErrorDevice,
    /// The host: KVM_CAP_VCPU_EVENTS, to make an SError pending while the guest masks it.
    VcpuEvents,
    /// The host: KVM_CAP_USER_NMI.
    UserNmi,
    /// The host: KVM_CAP_MCE with MCG_SER_P and at least two banks.
    SoftwareRecovery,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What happened.
    pub class: ErrorClass,
    /// The guest's architecture.
    pub arch: Arch,
    /// Its tables.
    pub tables: TableSet,
    /// What is done.
    pub response: Response,
    /// When it is chosen.
    pub preference: Preference,
    /// What it needs.
    pub needs: &'static [Requirement],
    /// What is done instead once the guest leaves a record unacknowledged (a machine check: in progress) for too long.
    pub unacknowledged: Option<Response>,
    /// What is done once a vCPU keeps touching a page that it was told about.
    pub stalled: Option<Response>,
    /// Why it stands where it stands.
    pub because: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// What holds for every guest.
#[derive(Clone, Copy, Debug)]
pub struct Always {
    /// What happened.
    pub class: ErrorClass,
    /// What is done.
    pub becomes: &'static str,
    /// Why.
    pub because: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// The rows for that question, guest and tables, best first.
pub fn rows(class: ErrorClass, arch: Arch, tables: TableSet) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| row.class == class && row.arch == arch && row.tables == tables)
}

/// Why that response does not exist for that question, guest and tables: asking for it is a mistake of the profile, on every host.
#[must_use]
pub const fn contradiction(response: Response, arch: Arch, tables: TableSet) -> &'static str {
    match (response, arch, tables) {
        (_, Aarch64, MpTable) => "an MP table describes x86_64 machines only",
        (_, X86_64, Devicetree) => "no devicetree is built for x86_64",
        (Response::Sea | Response::Sei | Response::Abort | Response::Serror, X86_64, _) => {
            "external aborts and SErrors are exceptions of aarch64"
        }
        (Response::Nmi | Response::Mce, Aarch64, _) => "NMIs and machine checks are exceptions of x86_64",
        (Response::External, Aarch64, Acpi) => {
            "Linux on aarch64 finds no mapping for such an interrupt and refuses the source: gsiv reaches it"
        }
        (Response::Sea | Response::Sei, Aarch64, Devicetree) => {
            "no driver of a guest with a devicetree looks for a record when it takes an abort: abort and serror come without one"
        }
        (Response::Polled | Response::Gpio | Response::External, Aarch64, Devicetree) => {
            "the one source of records that a devicetree has, arm,ras-cper, tells of them by its interrupt: that is gsiv"
        }
        (_, _, MpTable) if response.notification().is_some() => "an MP table has no place for error records",
        _ => "it answers another kind of error",
    }
}

impl ErrorClass {
    /// For people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            ErrorClass::Consumed => "consumed by a vCPU (AR)",
            ErrorClass::Detected => "found, not consumed (AO)",
            ErrorClass::TouchedByDevice => "touched by a device model",
            ErrorClass::OwnMemory => "in the VMM's own memory",
        }
    }
}

impl Preference {
    const fn title(self) -> &'static str {
        match self {
            Preference::Auto => "auto",
            Preference::Degraded => "degraded",
            Preference::OnRequest => "on request",
        }
    }
}

impl Requirement {
    const fn title(self) -> &'static str {
        match self {
            Requirement::Source => "a source in the record area",
            Requirement::ErrorDevice => "the error device",
            Requirement::VcpuEvents => "KVM_CAP_VCPU_EVENTS",
            Requirement::UserNmi => "KVM_CAP_USER_NMI",
            Requirement::SoftwareRecovery => "KVM_CAP_MCE with MCG_SER_P",
        }
    }
}
