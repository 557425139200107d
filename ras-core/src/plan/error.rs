//! Why there is no plan.

use alloc::vec::Vec;
use core::fmt;

use super::decision::{ErrorClass, Unsupported};
use super::response_plan::Candidate;
use crate::abilities::Fact;
use crate::request::{Arch, TableSet};
use crate::response::Response;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum PlanError {
    /// The host does not run guests of that architecture.
    OtherArchitecture {
        /// The guest's.
        #[cfg_attr(feature = "serde", serde(rename = "asked"))]
        requested: Arch,
        /// The host's.
        host: Arch,
    },
    /// The tables that were built are not the requested ones.
    OtherTables {
        /// Requested.
        #[cfg_attr(feature = "serde", serde(rename = "asked"))]
        requested: TableSet,
        /// Built.
        built: TableSet,
    },
    /// Guests of that architecture cannot have those tables.
    NoSuchTables {
        /// The guest's architecture.
        arch: Arch,
        /// The tables.
        tables: TableSet,
    },
    /// No guest of that architecture with those tables can be given that response, on any host.
    #[cfg_attr(feature = "serde", serde(rename = "contradiction"))]
    Unsupported {
        /// What happened.
        class: ErrorClass,
        /// The requested response.
        #[cfg_attr(feature = "serde", serde(rename = "asked"))]
        requested: Response,
        /// Why not.
        #[cfg_attr(feature = "serde", serde(rename = "because"))]
        reason: Unsupported,
    },
    /// Support is missing, and degrading is not allowed.
    MissingSupport {
        /// What happened.
        class: ErrorClass,
        /// The requested response. `None` for `auto`.
        #[cfg_attr(feature = "serde", serde(rename = "asked"))]
        requested: Option<Response>,
        /// What each candidate lacks.
        #[cfg_attr(feature = "serde", serde(rename = "possible"))]
        candidates: Vec<Candidate>,
    },
    /// The host's kernel does not report poisoned memory, or it is unknown whether it does, and degrading is not allowed.
    HostReportsNothing(Fact),
    /// The host's kernel panics at poisoned memory, or it is unknown whether it does, and degrading is not allowed.
    HostPanics(Fact),
}

impl PlanError {
    /// Whether the request is wrong on every host. If not, this host or these tables lack something.
    #[must_use]
    pub const fn is_invalid_request(&self) -> bool {
        matches!(self, PlanError::NoSuchTables { .. } | PlanError::Unsupported { .. })
    }

    /// The field of the [`Request`](crate::request::Request) that it is about: `synchronous`, `asynchronous` or `on-missing-support`.
    /// `None` if it is about none of them.
    #[must_use]
    pub const fn request_field(&self) -> Option<&'static str> {
        match self {
            PlanError::Unsupported { class, .. } | PlanError::MissingSupport { class, .. } => {
                class.request_field()
            }
            PlanError::HostReportsNothing(_) | PlanError::HostPanics(_) => Some("on-missing-support"),
            PlanError::OtherArchitecture { .. }
            | PlanError::OtherTables { .. }
            | PlanError::NoSuchTables { .. } => None,
        }
    }
}

impl core::error::Error for PlanError {}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::OtherArchitecture { requested, host } => {
                write!(f, "the guest's architecture is {requested}, and this host runs {host} guests only")
            }
            PlanError::OtherTables { requested, built } => {
                write!(f, "{requested} tables were requested, and {built} tables were built")
            }
            PlanError::NoSuchTables { arch, tables } => {
                write!(f, "{}", Unsupported::Tables { arch: *arch, tables: *tables })
            }
            PlanError::Unsupported { class, requested, reason } => {
                write!(f, "{requested} cannot be the response to an error {}: {reason}", class.description())
            }
            PlanError::MissingSupport { class, requested, candidates } => {
                let name = requested.map_or("auto", Response::name);
                write!(f, "{name} cannot be the response to an error {}", class.description())?;
                let mut separator = ": ";
                let relevant = |it: &&Candidate| requested.is_none_or(|requested| requested == it.response);
                for Candidate { response, unmet } in candidates.iter().filter(relevant) {
                    for requirement in unmet {
                        write!(f, "{separator}not {response}: {requirement}")?;
                        separator = "; ";
                    }
                }
                Ok(())
            }
            PlanError::HostReportsNothing(Fact::Unknown) => f.write_str(
                "it is unknown whether the host's kernel reports poisoned memory (CONFIG_MEMORY_FAILURE)",
            ),
            PlanError::HostReportsNothing(_) => f.write_str(
                "the host's kernel does not report poisoned memory: it was built without CONFIG_MEMORY_FAILURE",
            ),
            PlanError::HostPanics(Fact::Unknown) => f.write_str(
                "it is unknown whether the host's kernel survives poisoned memory (vm.memory_failure_recovery)",
            ),
            PlanError::HostPanics(_) => {
                f.write_str("the host's kernel panics at poisoned memory: vm.memory_failure_recovery is 0")
            }
        }
    }
}
