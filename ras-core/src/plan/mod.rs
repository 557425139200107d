//! What were we asked for, and what can we do?
//!
//! [`plan`] is the one place that answers. It takes what was asked ([`Request`]), what the host can do ([`HostAbilities`]) and what the
//! guest was really given ([`TablesView`]), and picks a row of the [decision table](decision) for each kind of error, with its reason. It
//! asks nobody anything: the same three values give the same plan on any machine.
//!
//! ```
//! use core::num::NonZeroU32;
//! use ras_core::abilities::{Fact, HostAbilities, MemoryFailure};
//! use ras_core::plan::{TablesView, plan, sources_wanted};
//! use ras_core::request::{Arch, Asynchronous, OnMissingSupport, Repair, Request, Synchronous, TableSet};
//! use ras_core::{RecordArea, Response};
//!
//! let request = Request {
//!     arch: Arch::Aarch64,
//!     tables: TableSet::Acpi,
//!     synchronous: Synchronous::Auto,
//!     asynchronous: Asynchronous::Auto,
//!     poll_interval_ms: NonZeroU32::new(1_000).unwrap(),
//!     on_missing_support: OnMissingSupport::Refuse,
//!     repair: Repair::OnReset,
//! };
//! let mut host = HostAbilities::unknown(Arch::Aarch64);
//! host.memory_failure = MemoryFailure { handled: Fact::Yes, recovery: Fact::Yes, early_kill: Fact::No };
//!
//! // The table builder lays out what the plan would use, and hands it back.
//! let sources: Vec<_> = sources_wanted(&request, &host, None).collect();
//! let area = RecordArea::lay_out(0x4010_0000, 1 << 20, &sources)?;
//! let tables = TablesView { set: TableSet::Acpi, record_area: Some(&area), error_device: true };
//! let carried = plan(&request, &host, &tables)?;
//! assert_eq!((carried.consumed.chosen, carried.detected.chosen), (Response::Sea, Response::Gsiv));
//!
//! // Without an area no record can be promised, whatever the tables are called.
//! let refusal = plan(&request, &host, &TablesView { record_area: None, ..tables }).unwrap_err();
//! assert!(refusal.to_string().contains("no error source of notification type 8"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
pub mod decision;
mod note;
mod refusal;
mod wanted;

use alloc::vec::Vec;

use crate::abilities::HostAbilities;
use crate::record_area::RecordArea;
use crate::request::{Arch, OnMissingSupport, Repair, Request, TableSet};
use crate::response::Response;

pub use answer::{Answer, Candidate, Obstacle, Timeouts};
pub use note::Note;
pub use refusal::Refusal;
pub use wanted::sources_wanted;

use decision::{ErrorClass, Preference, Requirement, Row};

/// What the guest was given: what was built, not what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct TablesView<'a> {
    /// The tables.
    pub set: TableSet,
    /// The record area that they point at; none where they point at none.
    pub record_area: Option<&'a RecordArea>,
    /// They hold an error device (PNP0C33) and an event device (ACPI0013) that notifies it.
    pub error_device: bool,
}

/// What becomes of each kind of error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Plan {
    /// Architecture of guest and host.
    pub arch: Arch,
    /// The guest's tables.
    pub tables: TableSet,
    /// A vCPU consumed poisoned memory (AR).
    pub consumed: Answer,
    /// Memory was found lost and nobody consumed it (AO).
    #[cfg_attr(feature = "serde", serde(rename = "found"))]
    pub detected: Answer,
    /// A device model touched poisoned memory: the request fails, and the guest is told as of [`detected`](Self::detected).
    pub touched_by_device: Answer,
    /// The VMM's own memory was lost.
    pub own_memory: Answer,
    /// When poisoned pages are replaced.
    pub repair: Repair,
    /// What else is worth knowing about this host and these answers.
    pub notes: Vec<Note>,
}

/// Plans.
///
/// # Errors
/// When the request contradicts itself or what was built, or asks for support that is missing to be refused.
pub fn plan(request: &Request, host: &HostAbilities, tables: &TablesView<'_>) -> Result<Plan, Refusal> {
    let host_arch = host.architecture();
    if host_arch != request.arch {
        return Err(Refusal::OtherArchitecture { asked: request.arch, host: host_arch });
    }
    if tables.set != request.tables {
        return Err(Refusal::OtherTables { asked: request.tables, built: tables.set });
    }
    if matches!(
        (request.arch, request.tables),
        (Arch::Aarch64, TableSet::MpTable) | (Arch::X86_64, TableSet::Devicetree)
    ) {
        return Err(Refusal::NoSuchTables { arch: request.arch, tables: request.tables });
    }
    if request.on_missing_support == OnMissingSupport::Refuse {
        if !host.memory_failure.handled.holds() {
            return Err(Refusal::HostReportsNothing(host.memory_failure.handled));
        }
        if !host.memory_failure.recovery.holds() {
            return Err(Refusal::HostPanics(host.memory_failure.recovery));
        }
    }
    let consumed = answer(ErrorClass::Consumed, request.synchronous.response(), request, host, tables)?;
    let detected = answer(ErrorClass::Detected, request.asynchronous.response(), request, host, tables)?;
    let notes = note::notes(host, [consumed.chosen, detected.chosen]);
    Ok(Plan {
        arch: request.arch,
        tables: tables.set,
        touched_by_device: Answer::as_detected(&detected),
        own_memory: Answer::own_memory(),
        consumed,
        detected,
        repair: request.repair,
        notes,
    })
}

fn answer(
    class: ErrorClass,
    asked: Option<Response>,
    request: &Request,
    host: &HostAbilities,
    tables: &TablesView<'_>,
) -> Result<Answer, Refusal> {
    let rows = || decision::rows(class, request.arch, request.tables);
    if let Some(asked) = asked
        && !rows().any(|row| row.response == asked)
    {
        let because = decision::contradiction(asked, request.arch, request.tables);
        return Err(Refusal::Contradiction { class, asked, because });
    }
    let possible: Vec<Candidate> = rows()
        .map(|row| Candidate { response: row.response, obstacles: Obstacle::of(row, host, tables).collect() })
        .collect();
    let is_possible = |row: &Row| {
        possible.iter().any(|candidate| candidate.response == row.response && candidate.obstacles.is_empty())
    };
    let wanted = |row: &&Row| match asked {
        Some(asked) => row.response == asked,
        None => row.preference == Preference::Auto,
    };
    let next_best = |row: &&Row| {
        request.on_missing_support == OnMissingSupport::Degrade && row.preference != Preference::OnRequest
    };
    let as_asked = rows().filter(wanted).find(|row| is_possible(row));
    let Some(row) = as_asked.or_else(|| rows().filter(next_best).find(|row| is_possible(row))) else {
        return Err(Refusal::MissingSupport { class, asked, possible });
    };
    let timeouts = Timeouts::of(row, request.poll_interval_ms);
    let source = source_of(row.response, tables);
    Ok(Answer::new(row, asked, as_asked.is_none(), possible, timeouts, source))
}

/// The source that a response writes its records to.
fn source_of(response: Response, tables: &TablesView<'_>) -> Option<u16> {
    let number = response.notification_in(tables.set)?;
    let mut slots = tables.record_area?.slots();
    slots.find(|slot| slot.source.notification.number() == number).map(|slot| slot.source.id)
}

/// Whether what a row needs is there; if not, whether at least nobody knows.
fn met(
    need: Requirement,
    row: &Row,
    host: &HostAbilities,
    tables: &TablesView<'_>,
) -> crate::abilities::Fact {
    use crate::abilities::{ArchAbilities, Fact, MachineCheckAbilities};
    match (need, host.arch) {
        (Requirement::Source, _) => source_of(row.response, tables).is_some().into(),
        (Requirement::ErrorDevice, _) => tables.error_device.into(),
        (Requirement::VcpuEvents, ArchAbilities::Aarch64(host)) => host.vcpu_events,
        (Requirement::UserNmi, ArchAbilities::X86_64(host)) => host.user_nmi,
        (Requirement::SoftwareRecovery, ArchAbilities::X86_64(host)) => host
            .mce
            .map_or(Fact::Unknown, |mce| (mce.has(MachineCheckAbilities::SER_P) && mce.banks >= 2).into()),
        (Requirement::VcpuEvents, ArchAbilities::X86_64(_))
        | (Requirement::UserNmi | Requirement::SoftwareRecovery, ArchAbilities::Aarch64(_)) => Fact::No,
    }
}
