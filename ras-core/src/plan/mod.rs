//! The plan: the response to each class of memory error, chosen before the guest boots.
//!
//! [`plan`] is the only place that decides. Its input is the [`Request`] of the user, the [`HostAbilities`] and the tables that the guest
//! was given ([`TablesView`]). For each class of error it picks a row of the [decision table](decision), with a reason. It queries
//! nothing else: the same three values give the same plan on any machine.
//!
//! ```
//! use core::num::NonZeroU32;
//! use ras_core::abilities::{Fact, HostAbilities, MemoryFailure};
//! use ras_core::plan::{TablesView, plan, sources_wanted};
//! use ras_core::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
//! use ras_core::{RecordArea, Response};
//!
//! let request = Request {
//!     arch: Arch::Aarch64,
//!     tables: TableSet::Acpi,
//!     synchronous: None,
//!     asynchronous: None,
//!     corrected: None,
//!     corrected_threshold: None,
//!     poll_interval_ms: NonZeroU32::new(1_000).unwrap(),
//!     on_missing_support: OnMissingSupport::Refuse,
//!     repair: Repair::OnReset,
//! };
//! let mut host = HostAbilities::unknown(Arch::Aarch64);
//! host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
//!
//! // The table builder lays out the sources that the plan would use, and returns the area.
//! let sources: Vec<_> = sources_wanted(&request, &host, None).collect();
//! let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
//! let tables = TablesView { set: TableSet::Acpi, record_area: Some(&area), error_device: true };
//! let with_records = plan(&request, &host, &tables)?;
//! assert_eq!((with_records.consumed.chosen, with_records.detected.chosen), (Response::Sea, Response::Gsiv));
//!
//! // Without an area no record can be promised, whatever the tables are.
//! let error = plan(&request, &host, &TablesView { record_area: None, ..tables }).unwrap_err();
//! assert!(error.to_string().contains("no error source of notification type 8"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod decision;
mod error;
mod note;
mod response_plan;
mod sources;

use alloc::vec::Vec;

use crate::abilities::{ArchAbilities, Fact, HostAbilities};
use crate::error_source::ErrorSource;
use crate::record_area::RecordArea;
use crate::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use crate::response::Response;

pub use error::PlanError;
pub use note::Note;
pub use response_plan::{Candidate, ResponsePlan, Timeouts, UnmetRequirement};
pub use sources::sources_wanted;

use decision::{ErrorClass, Preference, Requirement, Row};

/// The tables that the guest was given: what was built, not what was requested.
#[derive(Clone, Copy, Debug)]
pub struct TablesView<'a> {
    /// The tables.
    pub set: TableSet,
    /// The record area that they describe. `None` if they describe none.
    pub record_area: Option<&'a RecordArea>,
    /// They describe an error device (PNP0C33) and an event device (ACPI0013) that notifies it.
    pub error_device: bool,
}

/// The response to each class of error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Plan {
    /// Architecture of guest and host.
    pub arch: Arch,
    /// The guest's tables.
    pub tables: TableSet,
    /// A vCPU consumed poisoned memory (AR).
    pub consumed: ResponsePlan,
    /// Poisoned memory was detected before anything consumed it (AO).
    #[cfg_attr(feature = "serde", serde(rename = "found"))]
    pub detected: ResponsePlan,
    /// Memory had an error that was corrected (CE).
    pub corrected: ResponsePlan,
    /// A device model accessed poisoned memory: the request fails, and the guest is notified as for [`detected`](Self::detected).
    pub touched_by_device: ResponsePlan,
    /// Memory of the VMM itself is poisoned.
    pub own_memory: ResponsePlan,
    /// When poisoned pages are replaced.
    pub repair: Repair,
    /// What limits these responses on this host.
    pub notes: Vec<Note>,
}

/// Chooses the response to each class of error.
///
/// # Errors
/// Returns an error if the request contradicts itself or the tables that were built, or if support is missing and the request refuses
/// to degrade.
pub fn plan(request: &Request, host: &HostAbilities, tables: &TablesView<'_>) -> Result<Plan, PlanError> {
    let Request { arch, tables: set, .. } = *request;
    let host_arch = host.architecture();
    if host_arch != arch {
        return Err(PlanError::OtherArchitecture { requested: arch, host: host_arch });
    }
    if tables.set != set {
        return Err(PlanError::OtherTables { requested: set, built: tables.set });
    }
    if !decision::describes(set, arch) {
        return Err(PlanError::NoSuchTables { arch, tables: set });
    }
    if request.on_missing_support == OnMissingSupport::Refuse {
        if !host.memory_failure.handled.holds() {
            return Err(PlanError::HostReportsNothing(host.memory_failure.handled));
        }
        if !host.memory_failure.recovery.holds() {
            return Err(PlanError::HostPanics(host.memory_failure.recovery));
        }
    }
    let consumed = choose(ErrorClass::Consumed, request.synchronous, request, host, tables)?;
    let detected = choose(ErrorClass::Detected, request.asynchronous, request, host, tables)?;
    let corrected = choose(ErrorClass::Corrected, request.corrected, request, host, tables)?;
    let corrected = ResponsePlan {
        threshold: request.corrected_threshold.filter(|_| corrected.source.is_some()),
        ..corrected
    };
    let notes = note::notes(host, [consumed.chosen, detected.chosen]);
    Ok(Plan {
        arch,
        tables: set,
        touched_by_device: ResponsePlan::as_detected(&detected),
        own_memory: ResponsePlan::own_memory(),
        consumed,
        detected,
        corrected,
        repair: request.repair,
        notes,
    })
}

fn choose(
    class: ErrorClass,
    requested: Option<Response>,
    request: &Request,
    host: &HostAbilities,
    tables: &TablesView<'_>,
) -> Result<ResponsePlan, PlanError> {
    if let Some(requested) = requested {
        decision::support(class, request.arch, request.tables, requested)
            .map_err(|reason| PlanError::Unsupported { class, requested, reason })?;
    }
    let candidates: Vec<Candidate> = decision::rows(class, request.arch, request.tables)
        .map(|row| Candidate { response: row.response, unmet: UnmetRequirement::of(row, host, tables) })
        .collect();
    let is_possible =
        |row: &Row| candidates.iter().any(|it| it.response == row.response && it.unmet.is_empty());
    let Some((row, degraded)) = select(class, requested, request, is_possible) else {
        return Err(PlanError::MissingSupport { class, requested, candidates });
    };
    let timeouts = Timeouts::of(row, request.poll_interval_ms);
    let source = source_of(class, row.response, tables);
    Ok(ResponsePlan::new(row, requested, degraded, candidates, timeouts, source))
}

/// The row for a request, and whether it is a degradation.
fn select(
    class: ErrorClass,
    requested: Option<Response>,
    request: &Request,
    is_possible: impl Fn(&Row) -> bool,
) -> Option<(&'static Row, bool)> {
    let rows = || decision::rows(class, request.arch, request.tables).filter(|row| is_possible(row));
    let as_requested = rows().find(|row| match requested {
        Some(requested) => row.response == requested,
        None => row.preference == Preference::Auto,
    });
    let degrades = request.on_missing_support == OnMissingSupport::Degrade;
    let degraded = || rows().find(|row| degrades && row.preference != Preference::OnRequest);
    as_requested.map(|row| (row, false)).or_else(|| degraded().map(|row| (row, true)))
}

/// The source that a response to that class of error writes its records to.
fn source_of(class: ErrorClass, response: Response, tables: &TablesView<'_>) -> Option<u16> {
    let number = response.notification_in(tables.set)?;
    let is_of_class =
        |source: &ErrorSource| (source.id == ErrorSource::CORRECTED) == (class == ErrorClass::Corrected);
    let mut sources = tables.record_area?.slots().map(|slot| slot.source).filter(is_of_class);
    sources.find(|source| source.notification.number() == number).map(|source| source.id)
}

/// Whether a requirement of a row is met.
fn check_requirement(
    requirement: Requirement,
    row: &Row,
    host: &HostAbilities,
    tables: &TablesView<'_>,
) -> Fact {
    match (requirement, host.arch) {
        (Requirement::Source, _) => source_of(row.class, row.response, tables).is_some().into(),
        (Requirement::ErrorDevice, _) => tables.error_device.into(),
        (Requirement::VcpuEvents, ArchAbilities::Aarch64(host)) => host.vcpu_events,
        (Requirement::UserNmi, ArchAbilities::X86_64(host)) => host.user_nmi,
        (Requirement::SoftwareRecovery, ArchAbilities::X86_64(host)) => {
            host.mce.map_or(Fact::Unknown, |mce| mce.has_software_recovery().into())
        }
        (Requirement::VcpuEvents, ArchAbilities::X86_64(_))
        | (Requirement::UserNmi | Requirement::SoftwareRecovery, ArchAbilities::Aarch64(_)) => Fact::No,
    }
}
