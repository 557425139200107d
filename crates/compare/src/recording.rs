//! The input of a comparison: what one boot left behind.

use serde::{Deserialize, Serialize};

use crate::console::Console;

/// One boot. Everything that is compared comes from here.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The table set that described the machine to the guest: `acpi`, `devicetree` or `mptable`.
    pub tables: String,
    /// Profile keys that this table set does not support, and their replacements.
    pub changes: Vec<Change>,
    /// The RAS plan; `None` if planning failed.
    pub plan: Option<PlanSummary>,
    /// The guest's console.
    pub console: Console,
    /// Contents of the event file: one JSON object a line.
    pub events: String,
    /// Contents of the timings file: one JSON object, phase to nanoseconds.
    pub timings: String,
    /// Standard error of the process.
    pub stderr: String,
    /// How the process ended.
    pub ending: Ending,
}

/// A profile key that was replaced for one of the two boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, such as `ras.synchronous`.
    pub key: String,
    /// The value in the profile.
    pub asked: String,
    /// The value used for this boot.
    pub taken: String,
}

/// How a boot's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ending {
    /// It exited.
    Exited {
        /// Exit status.
        status: i32,
        /// Nanoseconds after its start.
        after_ns: u64,
    },
    /// A signal killed it.
    Killed {
        /// Signal number.
        signal: i32,
        /// Nanoseconds after its start.
        after_ns: u64,
    },
    /// The guest did not end within the limit, and the process was stopped.
    Hung {
        /// The limit in nanoseconds.
        limit_ns: u64,
    },
    /// The process was not started.
    NotStarted {
        /// The reason.
        why: String,
    },
}

/// A RAS plan as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Why this table set was chosen.
    pub because: String,
    /// All tables.
    pub tables: Vec<Table>,
    /// The planned response to each class of error.
    pub answers: Vec<Answer>,
    /// Notes, most of them about limitations of the host.
    pub notes: Vec<String>,
}

/// A table in guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Name.
    pub name: String,
    /// Guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The planned response to a class of error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// The class: `consumed`, `found`, `corrected`, `touched-by-device` or `own-memory`.
    pub question: String,
    /// The response that the profile requests; `None` for `auto`.
    pub asked: Option<String>,
    /// The planned response.
    pub chosen: String,
    /// Whether it replaces a requested response that is not available.
    pub degraded: bool,
    /// Why it was chosen.
    pub because: String,
    /// Id of the error source that its records belong to.
    pub source: Option<u16>,
    /// The fallback if the guest does not acknowledge a record in time.
    pub otherwise: Option<String>,
    /// Every other response, and why it was not chosen.
    pub ruled_out: Vec<String>,
}

impl Answer {
    /// Label of a class of error.
    pub(crate) fn class_label(class: &str) -> &str {
        match class {
            "consumed" => "consumed by a vCPU (AR)",
            "found" => "detected (AO)",
            "corrected" => "corrected (CE)",
            "touched-by-device" => "accessed by a device",
            "own-memory" => "in the VMM's own memory",
            other => other,
        }
    }
}

/// The host, which is the same for both boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSummary {
    /// Kernel release.
    pub kernel: String,
    /// Missing capabilities.
    pub lacks: Vec<Lack>,
}

/// A capability that a host does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Its name.
    pub what: String,
    /// The consequence.
    pub cost: String,
}
