//! Errors that the guest injects into its own memory (EINJ): which ones it can, and how many.

use devices::error_injection::ErrorType;
use ras_core::plan::Plan;
use ras_core::{Origin, Response, Severity, Span};
use schemars::JsonSchema;
use serde::Serialize;

use crate::ras::Reporting;

/// Pages that a guest can have poisoned at the same time: each takes a memslot of KVM.
pub const MAX_POISONED: usize = 1024;
/// Entries of the ledger from which on a guest can poison only pages that are in it: it could otherwise make it grow as long as it runs.
pub const MAX_LEDGER_ENTRIES: u64 = 1 << 16;

/// An error that the guest can inject, for users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct InjectableError {
    /// Its bit in EINJ's error type.
    #[serde(rename = "type")]
    pub bit: u32,
    /// Its name, as Linux prints it.
    pub name: &'static str,
}

impl From<ErrorType> for InjectableError {
    fn from(error_type: ErrorType) -> Self {
        InjectableError { bit: error_type.bit(), name: error_type.name() }
    }
}

/// The errors that a guest with that plan can inject. A corrected one is offered if there is a source for it, and a fatal one if the guest
/// can be notified of it, whether it is consumed or not; others are not offered: nothing in the plan could report them.
#[must_use]
pub fn error_types(plan: &Plan) -> Vec<ErrorType> {
    let detected = plan.detected.chosen;
    let reports_fatal = detected.writes_record() || detected == Response::Mce;
    let can_report = |error_type: &ErrorType| match error_type {
        ErrorType::MemoryCorrectable => plan.corrected.source.is_some(),
        ErrorType::MemoryUncorrectable => true,
        ErrorType::MemoryFatal => reports_fatal,
    };
    ErrorType::ALL.into_iter().filter(can_report).collect()
}

/// The severity of such an error.
#[must_use]
pub const fn severity(error_type: ErrorType) -> Severity {
    match error_type {
        ErrorType::MemoryCorrectable => Severity::Corrected,
        ErrorType::MemoryUncorrectable => Severity::Recoverable,
        ErrorType::MemoryFatal => Severity::Fatal,
    }
}

/// Whether a guest may inject an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The page is to be poisoned.
    Poison,
    /// It is poisoned already, by a memslot hole, whose error is as severe now.
    PoisonedAlready,
    /// The guest has injected as many errors as it can.
    TooMany,
}

/// Whether the guest may inject an error of that severity into a page of its own memory.
#[must_use]
pub fn admit(reporting: &Reporting, page: Span, severity: Severity) -> Admission {
    let holes = reporting.memslot_holes();
    if let Some(hole) = holes.hole_at(page.gpa) {
        holes.set_severity(page.gpa, hole.severity.worse(severity));
        return Admission::PoisonedAlready;
    }
    let is_known = reporting.is_in_ledger(page.gpa);
    let is_full = holes.count(Origin::Einj) >= MAX_POISONED
        || !is_known && reporting.ledger_entries() >= MAX_LEDGER_ENTRIES;
    if is_full { Admission::TooMany } else { Admission::Poison }
}
