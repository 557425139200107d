#![doc = include_str!("../../docs/decision-table.md")]

mod page;
mod support;
mod table;

use crate::request::{Arch, TableSet};
use crate::response::Response;

pub use page::markdown;
pub use support::{
    Availability, Unsupported, availability, describes, has_notification, responses, rows, support,
};
pub use table::{EXCLUSIONS, FIXED, TABLE};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ErrorClass {
    /// A vCPU consumed poisoned memory: action required (AR).
    Consumed,
    /// Poisoned memory was detected before anything consumed it: action optional (AO).
    #[cfg_attr(feature = "serde", serde(rename = "found"))]
    Detected,
    /// Memory of the guest had an error that was corrected (CE). Nothing is poisoned.
    Corrected,
    /// A device model accessed poisoned memory of the guest.
    TouchedByDevice,
    /// Memory of the VMM itself is poisoned.
    OwnMemory,
}

/// When a row is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preference {
    /// By `auto`, if no row above it is possible.
    Auto,
    /// The same, but only as a degradation: never if missing support is to be refused.
    Degraded,
    /// Only if it is requested by name.
    OnRequest,
}

/// What a row requires of the tables or the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Requirement {
    /// The tables: a record area with a source of the row's notification type.
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

/// One row: a response to one class of error, for one kind of guest.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What happened.
    pub class: ErrorClass,
    /// The guest's architecture.
    pub arch: Arch,
    /// The guest's tables.
    pub tables: TableSet,
    /// What is done.
    pub response: Response,
    /// When the row is chosen.
    pub preference: Preference,
    /// What it requires.
    pub requires: &'static [Requirement],
    /// The fallback if the guest leaves a record unacknowledged (a machine check: in progress) for too long.
    pub unacknowledged: Option<Response>,
    /// The fallback if a vCPU keeps accessing a page that was reported to it.
    pub stalled: Option<Response>,
    /// Why the row is as it is.
    pub reason: &'static str,
    /// The specification, source file or discussion that it follows.
    pub reference: &'static str,
}

/// A response that holds for every guest, whatever its profile says.
#[derive(Clone, Copy, Debug)]
pub struct FixedRow {
    /// What happened.
    pub class: ErrorClass,
    /// What is done.
    pub response: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The specification, source file or discussion that it follows.
    pub reference: &'static str,
}

/// Why the table has no row for some responses, if that does not follow from the rows that it has.
#[derive(Clone, Copy, Debug)]
pub struct Exclusion {
    /// The guest's architecture.
    pub arch: Arch,
    /// The guest's tables.
    pub tables: TableSet,
    /// The responses.
    pub responses: &'static [Response],
    /// Why there is no such row.
    pub reason: &'static str,
}

impl ErrorClass {
    /// A phrase for users: "error ...".
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            ErrorClass::Consumed => "consumed by a vCPU (AR)",
            ErrorClass::Detected => "detected, not consumed (AO)",
            ErrorClass::Corrected => "corrected (CE)",
            ErrorClass::TouchedByDevice => "accessed by a device model",
            ErrorClass::OwnMemory => "in the VMM's own memory",
        }
    }

    /// The field of the [`Request`](crate::request::Request) that selects the response. `None` if no request changes it.
    #[must_use]
    pub const fn request_field(self) -> Option<&'static str> {
        match self {
            ErrorClass::Consumed => Some("synchronous"),
            ErrorClass::Detected | ErrorClass::TouchedByDevice => Some("asynchronous"),
            ErrorClass::Corrected => Some("corrected"),
            ErrorClass::OwnMemory => None,
        }
    }
}

impl Preference {
    const fn description(self) -> &'static str {
        match self {
            Preference::Auto => "auto",
            Preference::Degraded => "degraded",
            Preference::OnRequest => "on request",
        }
    }
}

impl Requirement {
    const fn description(self) -> &'static str {
        match self {
            Requirement::Source => "a source in the record area",
            Requirement::ErrorDevice => "the error device",
            Requirement::VcpuEvents => "KVM_CAP_VCPU_EVENTS",
            Requirement::UserNmi => "KVM_CAP_USER_NMI",
            Requirement::SoftwareRecovery => "KVM_CAP_MCE with MCG_SER_P",
        }
    }
}
