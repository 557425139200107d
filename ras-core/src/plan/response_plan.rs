//! The response to one class of error.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

use super::decision::{ErrorClass, FIXED, Requirement, Row};
use super::{TablesView, check_requirement};
use crate::abilities::{Fact, HostAbilities};
use crate::corrected::Threshold;
use crate::response::Response;

/// The response to one class of error, and how it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct ResponsePlan {
    /// What happened.
    #[cfg_attr(feature = "serde", serde(rename = "question"))]
    pub class: ErrorClass,
    /// The requested response. `None` for `auto`, and for classes that a profile cannot change.
    #[cfg_attr(feature = "serde", serde(rename = "asked"))]
    pub requested: Option<Response>,
    /// The responses that this kind of guest can be given, best first, and what each of them lacks here.
    #[cfg_attr(feature = "serde", serde(rename = "possible"))]
    pub candidates: Vec<Candidate>,
    /// What is done.
    pub chosen: Response,
    /// Support for what was requested is missing.
    pub degraded: bool,
    /// Why it was chosen, for users.
    #[cfg_attr(feature = "serde", serde(rename = "because"))]
    pub reason: String,
    /// Id of the error source whose status block the records are written to. `None` for a response without a record.
    pub source: Option<u16>,
    /// The fallback if the guest leaves a record unacknowledged (a machine check: in progress).
    pub unacknowledged: Option<Response>,
    /// The fallback if a vCPU keeps accessing a page that was reported to it.
    pub stalled: Option<Response>,
    /// When the corrected errors of a page are so many that their record says so. `None`: never, and for other classes.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub threshold: Option<Threshold>,
    /// When these fallbacks are used.
    #[cfg_attr(feature = "serde", serde(rename = "patience"))]
    pub timeouts: Timeouts,
}

/// A response that this kind of guest can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Candidate {
    /// The response.
    pub response: Response,
    /// What it requires and these tables or this host lack. Empty if it is possible.
    #[cfg_attr(feature = "serde", serde(rename = "obstacles"))]
    pub unmet: Vec<UnmetRequirement>,
}

/// A [`Requirement`] that these tables or this host do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum UnmetRequirement {
    /// The tables describe no error source of this notification type.
    NoSource(u8),
    /// The tables describe no error device.
    NoErrorDevice,
    /// KVM cannot make an SError pending.
    NoVcpuEvents(Fact),
    /// KVM cannot inject an NMI.
    NoUserNmi(Fact),
    /// KVM's machine checks have no software recovery.
    NoSoftwareRecovery(Fact),
}

/// When a response has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Timeouts {
    /// Milliseconds after which a record counts as not acknowledged.
    pub acknowledge_ms: u32,
    /// A vCPU is stuck after this number of accesses to one page,
    pub touches: u32,
    /// spread over this number of milliseconds without a pause.
    pub stall_ms: u32,
}

impl Timeouts {
    /// A vCPU acknowledges within the exception that it takes; the rest is for busy hosts.
    const EXCEPTION_MS: u32 = 2_000;
    /// A guest may defer an interrupt.
    const INTERRUPT_MS: u32 = 10_000;
    /// Linux rounds a poll interval up to a whole second, and may miss one poll.
    const POLLS: u32 = 2;
    /// Ten a second is the most that a service reaches that is restarted 100 ms after each crash (systemd's default). A vCPU that is
    /// stuck accesses its page hundreds of times a second.
    const TOUCHES: u32 = 120;
    const STALL_MS: u32 = 10_000;
    const NONE: Timeouts = Timeouts { acknowledge_ms: 0, touches: 0, stall_ms: 0 };

    pub(super) fn of(row: &Row, poll_interval_ms: NonZeroU32) -> Self {
        let acknowledge_ms = match row.response.notification() {
            _ if row.response == Response::Polled => Self::POLLS
                .saturating_mul(poll_interval_ms.get().saturating_add(1_000))
                .max(Self::INTERRUPT_MS),
            Some(_) if matches!(row.class, ErrorClass::Detected | ErrorClass::Corrected) => {
                Self::INTERRUPT_MS
            }
            _ => Self::EXCEPTION_MS,
        };
        Timeouts { acknowledge_ms, touches: Self::TOUCHES, stall_ms: Self::STALL_MS }
    }

    /// [`acknowledge_ms`](Self::acknowledge_ms) in nanoseconds.
    #[must_use]
    pub const fn acknowledge_ns(&self) -> u64 {
        self.acknowledge_ms as u64 * 1_000_000
    }

    /// [`stall_ms`](Self::stall_ms) in nanoseconds.
    #[must_use]
    pub const fn stall_ns(&self) -> u64 {
        self.stall_ms as u64 * 1_000_000
    }
}

impl ResponsePlan {
    pub(super) fn new(
        row: &Row,
        requested: Option<Response>,
        degraded: bool,
        candidates: Vec<Candidate>,
        timeouts: Timeouts,
        source: Option<u16>,
    ) -> Self {
        let reason = if requested == Some(row.response) {
            format!("requested: {}", row.reason)
        } else {
            rejected(&candidates, row.response, requested) + row.reason
        };
        ResponsePlan {
            class: row.class,
            requested,
            candidates,
            chosen: row.response,
            degraded,
            reason,
            source,
            unacknowledged: row.unacknowledged,
            stalled: row.stalled,
            threshold: None,
            timeouts,
        }
    }

    /// The response to a device's access: that to a detected error.
    pub(super) fn as_detected(detected: &ResponsePlan) -> Self {
        let reason = fixed_reason(ErrorClass::TouchedByDevice);
        ResponsePlan {
            class: ErrorClass::TouchedByDevice,
            requested: None,
            reason: format!("{reason}; the guest is notified as of a detected error"),
            ..detected.clone()
        }
    }

    /// The response to an error in the VMM's own memory.
    pub(super) fn own_memory() -> Self {
        ResponsePlan {
            class: ErrorClass::OwnMemory,
            requested: None,
            candidates: vec![Candidate { response: Response::Stop, unmet: Vec::new() }],
            chosen: Response::Stop,
            degraded: false,
            reason: fixed_reason(ErrorClass::OwnMemory).into(),
            source: None,
            unacknowledged: None,
            stalled: None,
            threshold: None,
            timeouts: Timeouts::NONE,
        }
    }
}

/// Why the candidates above the chosen one, and the requested one, were not chosen; each once.
fn rejected(candidates: &[Candidate], chosen: Response, requested: Option<Response>) -> String {
    let above = candidates.iter().take_while(|it| it.response != chosen);
    let named = candidates.iter().filter(|it| Some(it.response) == requested);
    let mut text = String::new();
    let mut listed = Vec::new();
    for Candidate { response, unmet } in above.chain(named).filter(|it| !it.unmet.is_empty()) {
        if listed.contains(response) {
            continue;
        }
        listed.push(*response);
        let unmet: Vec<String> = unmet.iter().map(|it| format!("{it}")).collect();
        text.push_str(&format!("not {response}: {}; ", unmet.join(" and ")));
    }
    text
}

fn fixed_reason(class: ErrorClass) -> &'static str {
    FIXED.iter().find(|row| row.class == class).map_or("", |row| row.reason)
}

impl UnmetRequirement {
    /// The requirements of a row that are not met.
    pub(super) fn of(row: &Row, host: &HostAbilities, tables: &TablesView<'_>) -> Vec<UnmetRequirement> {
        let unmet = row.requires.iter().filter_map(|requirement| {
            let fact = check_requirement(*requirement, row, host, tables);
            (!fact.holds()).then(|| match requirement {
                Requirement::Source => {
                    let number = row.response.notification_in(row.tables);
                    UnmetRequirement::NoSource(number.unwrap_or_default())
                }
                Requirement::ErrorDevice => UnmetRequirement::NoErrorDevice,
                Requirement::VcpuEvents => UnmetRequirement::NoVcpuEvents(fact),
                Requirement::UserNmi => UnmetRequirement::NoUserNmi(fact),
                Requirement::SoftwareRecovery => UnmetRequirement::NoSoftwareRecovery(fact),
            })
        });
        unmet.collect()
    }
}

impl fmt::Display for UnmetRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fact, what) = match self {
            UnmetRequirement::NoSource(number) => {
                return write!(f, "the tables describe no error source of notification type {number}");
            }
            UnmetRequirement::NoErrorDevice => return f.write_str("the tables describe no error device"),
            UnmetRequirement::NoVcpuEvents(fact) => (fact, "KVM_CAP_VCPU_EVENTS"),
            UnmetRequirement::NoUserNmi(fact) => (fact, "KVM_CAP_USER_NMI"),
            UnmetRequirement::NoSoftwareRecovery(fact) => {
                (fact, "machine checks with software recovery (MCG_SER_P)")
            }
        };
        match fact {
            Fact::Unknown => write!(f, "it is unknown whether KVM has {what}"),
            Fact::No | Fact::Yes => write!(f, "KVM has no {what}"),
        }
    }
}
