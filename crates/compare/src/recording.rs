//! What a boot leaves.

use serde::{Deserialize, Serialize};

use crate::console::Console;

/// One boot: everything that is compared comes from here.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The tables that the guest was described by: `acpi`, `devicetree` or `mptable`.
    pub tables: String,
    /// What of the profile these tables cannot carry, and what was taken instead.
    pub changes: Vec<Change>,
    /// What was planned; none where there is no plan.
    pub plan: Option<Plan>,
    /// The guest's console.
    pub console: Console,
    /// The event file.
    pub events: String,
    /// The timings file.
    pub timings: String,
    /// What the process said on standard error.
    pub said: String,
    /// How the process ended.
    pub ending: Ending,
}

/// A key of the profile that was set otherwise for one of the two boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which: `ras.synchronous`.
    pub key: String,
    /// What the profile says.
    pub asked: String,
    /// What was taken instead.
    pub taken: String,
}

/// How a boot's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ending {
    /// By itself.
    Exited {
        /// With this status.
        status: i32,
        /// So long after its start.
        after_ns: u64,
    },
    /// By a signal that it did not survive.
    Killed {
        /// Which.
        signal: i32,
        /// So long after its start.
        after_ns: u64,
    },
    /// It was ended, because the guest did not end in time.
    Hung {
        /// The time that it had.
        limit_ns: u64,
    },
    /// There was no process.
    NotStarted {
        /// Why.
        why: String,
    },
}

/// What was planned, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Why these tables.
    pub because: String,
    /// Every table.
    pub tables: Vec<Table>,
    /// What becomes of each kind of error.
    pub answers: Vec<Answer>,
    /// What else is worth knowing, much of it of what the host cannot do.
    pub notes: Vec<String>,
}

/// A table of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its address.
    pub gpa: u64,
    /// Its bytes.
    pub len: u64,
}

/// What becomes of a kind of error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// Of which: `consumed`, `found`, `touched-by-device`, `own-memory`.
    pub question: String,
    /// What the profile asks for; none for `auto`.
    pub asked: Option<String>,
    /// What is done.
    pub chosen: String,
    /// Because what was asked for cannot be had.
    pub degraded: bool,
    /// Why.
    pub because: String,
    /// The error source that its records are of.
    pub source: Option<u16>,
    /// What is done once the guest leaves a record unacknowledged.
    pub otherwise: Option<String>,
    /// Every other answer, and what stands in its way.
    pub ruled_out: Vec<String>,
}

/// The host, which is the same for both boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its kernel.
    pub kernel: String,
    /// What it cannot do.
    pub lacks: Vec<Lack>,
}

/// Something that a host cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Its name.
    pub what: String,
    /// What that costs.
    pub cost: String,
}
