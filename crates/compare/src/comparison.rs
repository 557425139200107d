//! The data model of a comparison. Its serialisation is the output of `ghest compare --json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::events::Milestone;
use crate::recording::{Change, Ending, HostSummary, PlanSummary};
use crate::story::Story;

/// Version of the JSON form: incremented by every incompatible change.
pub const FORMAT: u32 = 1;

/// Two boots, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// [`FORMAT`].
    pub format: u32,
    /// The machine that both boots have in common.
    pub machine: MachineSummary,
    /// The host.
    pub host: HostSummary,
    /// The injection requests, as written on the command line.
    pub orders: Vec<String>,
    /// The two boots, in the order in which the recordings were given.
    pub sides: Vec<Side>,
    /// The sections in display order. Each row has one list of values per side.
    pub sections: Vec<Section>,
}

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MachineSummary {
    /// Name from the profile.
    pub name: String,
    /// Architecture: `x86_64` or `aarch64`.
    pub architecture: String,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// The kernel: a path, or `builtin:probe`. It selects the rules that interpret the console.
    pub kernel: String,
    /// The kernel command line of both boots.
    pub cmdline: String,
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Side {
    /// Table set: `acpi`, `devicetree` or `mptable`.
    pub tables: String,
    /// Profile keys that were replaced because this table set does not support them.
    pub changes: Vec<Change>,
    /// The RAS plan; `None` if planning failed.
    pub plan: Option<PlanSummary>,
    /// How the process ended.
    pub ending: Ending,
    /// Why it ended, as `ghest` reported it.
    pub reason: Option<String>,
    /// End of each phase of `ghest`, in nanoseconds since its start.
    pub phases: Map<String, Value>,
    /// Milestones of the guest's boot, sorted by time.
    pub milestones: Vec<Milestone>,
    /// The memory errors of this boot.
    pub errors: Vec<Story>,
    /// Console lines about errors that could not be attributed to one of `errors`.
    pub other_lines: Vec<String>,
    /// The last line of the guest's console.
    pub last_line: Option<String>,
    /// Number of console lines, including lines dropped from the recording.
    pub console_lines: u64,
    /// All events except `plan`.
    pub events: Vec<Value>,
}

/// Rows about one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Section {
    /// Identifier: `plan`, `host`, `tables`, `found`, `time`, `error-1`, ..., `other-errors`, `end`.
    pub key: String,
    /// Heading.
    pub title: String,
    /// The rows, in display order.
    pub rows: Vec<Row>,
}

/// One property, with its values on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Identifier, unique in its section.
    pub key: String,
    /// Label. Leading blanks mean that the row refines the one above.
    pub label: String,
    /// Values of each side, in the order of [`Comparison::sides`]; empty if a side has none.
    pub values: [Vec<String>; 2],
    /// Whether the sides differ. Two measured times never count as a difference.
    pub differs: bool,
    /// Whether this is a measured time, which varies between runs.
    pub measured: bool,
}

impl Comparison {
    /// Finds a row by the keys of its section and of itself.
    #[must_use]
    pub fn row(&self, section: &str, key: &str) -> Option<&Row> {
        let section = self.sections.iter().find(|it| it.key == section)?;
        section.rows.iter().find(|row| row.key == key)
    }
}

impl Side {
    /// End of a phase of `ghest`, in nanoseconds since its start.
    pub(crate) fn phase(&self, name: &str) -> Option<u64> {
        self.phases.get(name).and_then(Value::as_u64)
    }
}

impl Section {
    pub(crate) fn new(key: impl Into<String>, title: impl Into<String>, rows: Vec<Row>) -> Self {
        Section { key: key.into(), title: title.into(), rows }
    }
}

impl Row {
    pub(crate) fn new(key: impl Into<String>, label: impl Into<String>, values: [Vec<String>; 2]) -> Self {
        let differs = values[0] != values[1];
        Row { key: key.into(), label: label.into(), values, differs, measured: false }
    }

    pub(crate) fn measured(
        key: impl Into<String>,
        label: impl Into<String>,
        values: [Vec<String>; 2],
    ) -> Self {
        // A time that only one side has is a difference.
        let differs = values[0].is_empty() != values[1].is_empty();
        Row { differs, measured: true, ..Row::new(key, label, values) }
    }

    /// Whether neither side has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(Vec::is_empty)
    }
}
