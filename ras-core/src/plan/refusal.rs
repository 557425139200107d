//! Why there is no plan.

use alloc::vec::Vec;
use core::fmt;

use super::answer::Candidate;
use super::decision::ErrorClass;
use crate::abilities::Fact;
use crate::request::{Arch, TableSet};
use crate::response::Response;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Refusal {
    /// Guests of that architecture do not run on that host.
    OtherArchitecture {
        /// The guest's.
        asked: Arch,
        /// The host's.
        host: Arch,
    },
    /// Other tables were built than asked for.
    OtherTables {
        /// Asked for.
        asked: TableSet,
        /// Built.
        built: TableSet,
    },
    /// There are no such tables for that architecture.
    NoSuchTables {
        /// The guest's architecture.
        arch: Arch,
        /// The tables.
        tables: TableSet,
    },
    /// No guest of that architecture, with those tables, can be answered so, on any host.
    Contradiction {
        /// What happened.
        class: ErrorClass,
        /// What was asked for.
        asked: Response,
        /// Why not.
        because: &'static str,
    },
    /// Support is missing, and degrading was not allowed.
    MissingSupport {
        /// What happened.
        class: ErrorClass,
        /// What was asked for; none for `auto`.
        asked: Option<Response>,
        /// What stands in the way of what.
        possible: Vec<Candidate>,
    },
    /// The host's kernel does nothing about poisoned memory, or it is not known that it does, and degrading was not allowed.
    HostReportsNothing(Fact),
    /// It panics, or it is not known that it does not, and degrading was not allowed.
    HostPanics(Fact),
}

impl Refusal {
    /// Whether the request is wrong on every host; else it is this host, or these tables, that cannot do it.
    #[must_use]
    pub const fn is_mistake(&self) -> bool {
        matches!(self, Refusal::NoSuchTables { .. } | Refusal::Contradiction { .. })
    }

    /// The key of the profile's `[ras]` that it is about: `synchronous`, `asynchronous` or `on-missing-support`; none where it is about
    /// none of them.
    #[must_use]
    pub const fn key(&self) -> Option<&'static str> {
        match self {
            Refusal::Contradiction { class, .. } | Refusal::MissingSupport { class, .. } => match class {
                ErrorClass::Consumed => Some("synchronous"),
                ErrorClass::Detected | ErrorClass::TouchedByDevice => Some("asynchronous"),
                ErrorClass::OwnMemory => None,
            },
            Refusal::HostReportsNothing(_) | Refusal::HostPanics(_) => Some("on-missing-support"),
            Refusal::OtherArchitecture { .. }
            | Refusal::OtherTables { .. }
            | Refusal::NoSuchTables { .. } => None,
        }
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::OtherArchitecture { asked, host } => {
                write!(f, "the guest is an {asked} machine, and this host runs {host} guests only")
            }
            Refusal::OtherTables { asked, built } => {
                write!(f, "{asked} tables were asked for, and {built} built")
            }
            Refusal::NoSuchTables { arch, tables } => {
                write!(f, "{arch} machines are not described by {tables}")
            }
            Refusal::Contradiction { class, asked, because } => {
                write!(f, "{asked} cannot answer an error {}: {because}", class.title())
            }
            Refusal::MissingSupport { class, asked, possible } => {
                let asked = asked.map_or("auto", Response::word);
                write!(f, "{asked} cannot answer an error {}", class.title())?;
                let mut separator = ": ";
                for Candidate { response, obstacles } in possible {
                    for obstacle in obstacles.iter().filter(|_| asked == "auto" || asked == response.word()) {
                        write!(f, "{separator}not {response}: {obstacle}")?;
                        separator = "; ";
                    }
                }
                Ok(())
            }
            Refusal::HostReportsNothing(Fact::Unknown) => f.write_str(
                "it is not known whether the host's kernel reports poisoned memory (CONFIG_MEMORY_FAILURE)",
            ),
            Refusal::HostReportsNothing(_) => f.write_str(
                "the host's kernel does not report poisoned memory: it was built without CONFIG_MEMORY_FAILURE",
            ),
            Refusal::HostPanics(Fact::Unknown) => f.write_str(
                "it is not known whether the host's kernel survives poisoned memory (vm.memory_failure_recovery)",
            ),
            Refusal::HostPanics(_) => {
                f.write_str("the host's kernel panics at poisoned memory: vm.memory_failure_recovery is 0")
            }
        }
    }
}
