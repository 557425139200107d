//! The answer to one kind of error.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

use super::decision::{ALWAYS, ErrorClass, Requirement, Row};
use super::{TablesView, met};
use crate::abilities::{Fact, HostAbilities};
use crate::response::Response;

/// The answer to one kind of error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Answer {
    /// What happened.
    #[cfg_attr(feature = "serde", serde(rename = "question"))]
    pub class: ErrorClass,
    /// What was asked for; none for `auto`, and for what no profile changes.
    pub asked: Option<Response>,
    /// What this kind of guest can be answered, best first, and what stands in the way of each.
    pub possible: Vec<Candidate>,
    /// What is done.
    pub chosen: Response,
    /// Support for what was asked was missing.
    pub degraded: bool,
    /// Why, for people.
    pub because: String,
    /// Id of the error source whose block the records go to; none for an answer without a record.
    pub source: Option<u16>,
    /// What is done instead once the guest leaves a record unacknowledged (a machine check: in progress).
    pub unacknowledged: Option<Response>,
    /// What is done once a vCPU keeps touching a page that the guest was told about.
    pub stalled: Option<Response>,
    /// How long is waited for either.
    #[cfg_attr(feature = "serde", serde(rename = "patience"))]
    pub timeouts: Timeouts,
}

/// A response that this kind of guest can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Candidate {
    /// Which.
    pub response: Response,
    /// What stands in its way here; nothing where it is possible.
    pub obstacles: Vec<Obstacle>,
}

/// Something that stands in the way of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Obstacle {
    /// The tables point at no source of this notification type.
    NoSource(u8),
    /// They hold no error device that would be notified.
    NoErrorDevice,
    /// KVM cannot make an SError pending.
    NoVcpuEvents(Fact),
    /// KVM cannot inject an NMI.
    NoUserNmi(Fact),
    /// KVM's machine checks have no software recovery.
    NoSoftwareRecovery(Fact),
}

/// How long is waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct Timeouts {
    /// For the guest to acknowledge a record: milliseconds.
    pub acknowledge_ms: u32,
    /// For a vCPU to get past a page: so many touches, spread over
    pub touches: u32,
    /// so many milliseconds without a pause.
    pub stall_ms: u32,
}

impl Timeouts {
    /// A vCPU acknowledges within the exception that it takes; the rest is for hosts that are busy.
    const EXCEPTION_MS: u32 = 2_000;
    /// A guest takes an interrupt when it likes.
    const INTERRUPT_MS: u32 = 10_000;
    /// Linux rounds a poll interval up to a whole second, and may miss one turn.
    const POLLS: u32 = 2;
    /// More than ten a second, which is what a service comes to that is started anew 100 ms after each death (systemd's default). A vCPU
    /// that is stuck touches its page hundreds of times.
    const TOUCHES: u32 = 120;
    const STALL_MS: u32 = 10_000;

    pub(super) fn of(row: &Row, poll_interval_ms: NonZeroU32) -> Self {
        let acknowledge_ms = match row.response {
            Response::Polled => Self::POLLS
                .saturating_mul(poll_interval_ms.get().saturating_add(1_000))
                .max(Self::INTERRUPT_MS),
            Response::Gsiv | Response::Gpio | Response::External => Self::INTERRUPT_MS,
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

impl Answer {
    pub(super) fn new(
        row: &Row,
        asked: Option<Response>,
        degraded: bool,
        possible: Vec<Candidate>,
        timeouts: Timeouts,
        source: Option<u16>,
    ) -> Self {
        let because = match asked {
            Some(asked) if asked == row.response => format!("asked for: {}", row.because),
            _ => {
                let passed_over = possible
                    .iter()
                    .take_while(|candidate| candidate.response != row.response)
                    .chain(possible.iter().filter(|candidate| Some(candidate.response) == asked))
                    .filter(|candidate| !candidate.obstacles.is_empty());
                let mut because = String::new();
                let mut told = Vec::new();
                for Candidate { response, obstacles } in passed_over {
                    if told.contains(response) {
                        continue;
                    }
                    told.push(*response);
                    let obstacles: Vec<String> =
                        obstacles.iter().map(|obstacle| format!("{obstacle}")).collect();
                    because.push_str(&format!("not {response}: {}; ", obstacles.join(" and ")));
                }
                because.push_str(row.because);
                because
            }
        };
        Answer {
            class: row.class,
            asked,
            possible,
            chosen: row.response,
            degraded,
            because,
            source,
            unacknowledged: row.unacknowledged,
            stalled: row.stalled,
            timeouts,
        }
    }

    /// The same for what a device model touched.
    pub(super) fn as_detected(found: &Answer) -> Self {
        Answer {
            class: ErrorClass::TouchedByDevice,
            asked: None,
            because: format!(
                "{}; the guest is told as of what was found",
                always(ErrorClass::TouchedByDevice)
            ),
            ..found.clone()
        }
    }

    /// For what was the VMM's own.
    pub(super) fn own_memory() -> Self {
        Answer {
            class: ErrorClass::OwnMemory,
            asked: None,
            possible: vec![Candidate { response: Response::Stop, obstacles: Vec::new() }],
            chosen: Response::Stop,
            degraded: false,
            because: always(ErrorClass::OwnMemory).into(),
            source: None,
            unacknowledged: None,
            stalled: None,
            timeouts: Timeouts { acknowledge_ms: 0, touches: 0, stall_ms: 0 },
        }
    }
}

fn always(class: ErrorClass) -> &'static str {
    ALWAYS.iter().find(|always| always.class == class).map_or("", |always| always.because)
}

impl Obstacle {
    /// What stands in the way of a row.
    pub(super) fn of(
        row: &Row,
        host: &HostAbilities,
        tables: &TablesView<'_>,
    ) -> impl Iterator<Item = Obstacle> {
        row.needs.iter().filter_map(|need| {
            let fact = met(*need, row, host, tables);
            (!fact.holds()).then(|| match need {
                Requirement::Source => {
                    Obstacle::NoSource(row.response.notification_in(row.tables).unwrap_or_default())
                }
                Requirement::ErrorDevice => Obstacle::NoErrorDevice,
                Requirement::VcpuEvents => Obstacle::NoVcpuEvents(fact),
                Requirement::UserNmi => Obstacle::NoUserNmi(fact),
                Requirement::SoftwareRecovery => Obstacle::NoSoftwareRecovery(fact),
            })
        })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fact, what) = match self {
            Obstacle::NoSource(number) => {
                return write!(f, "the tables point at no error source of notification type {number}");
            }
            Obstacle::NoErrorDevice => return f.write_str("the tables hold no error device"),
            Obstacle::NoVcpuEvents(fact) => (fact, "KVM_CAP_VCPU_EVENTS"),
            Obstacle::NoUserNmi(fact) => (fact, "KVM_CAP_USER_NMI"),
            Obstacle::NoSoftwareRecovery(fact) => (fact, "machine checks with software recovery (MCG_SER_P)"),
        };
        match fact {
            Fact::Unknown => write!(f, "it is not known whether KVM has {what}"),
            Fact::No | Fact::Yes => write!(f, "KVM has no {what}"),
        }
    }
}
