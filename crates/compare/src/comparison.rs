//! Two boots, compared: plain data, which is the JSON of `ghest compare --json` as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::events::{self, Milestone};
use crate::recording::{Change, Ending, Host, Plan, Recording};
use crate::rules::Rules;
use crate::sections::{self, Only};
use crate::story::Story;

/// The number of this form; a change that breaks readers makes it greater.
pub const FORMAT: u32 = 1;

/// Two boots, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// [`FORMAT`].
    pub format: u32,
    /// The machine, which both boots have in common.
    pub machine: Machine,
    /// The host.
    pub host: Host,
    /// The memory errors that were ordered, as they were written.
    pub orders: Vec<String>,
    /// The two boots: ACPI first.
    pub sides: Vec<Side>,
    /// What is shown, in its order; a row has a list of values for each side.
    pub sections: Vec<Section>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Its vCPUs.
    pub vcpus: u32,
    /// Its memory in bytes.
    pub memory: u64,
    /// What it boots: a path, or `builtin:probe`.
    pub kernel: String,
    /// The kernel's command line as both boots had it.
    pub cmdline: String,
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Side {
    /// Its tables: `acpi`, `devicetree` or `mptable`.
    pub tables: String,
    /// What of the profile they cannot carry.
    pub changes: Vec<Change>,
    /// What was planned.
    pub plan: Option<Plan>,
    /// How it ended.
    pub ending: Ending,
    /// The reason of its end, in the words of its `ghest`.
    pub reason: Option<String>,
    /// When each phase of `ghest` ended: nanoseconds since its start.
    pub phases: Map<String, Value>,
    /// When the guest reached what.
    pub milestones: Vec<Milestone>,
    /// Its memory errors.
    pub errors: Vec<Story>,
    /// What the guest said of errors that is of none of these.
    pub other_lines: Vec<String>,
    /// The last line of the guest's console.
    pub last_line: Option<String>,
    /// Lines of the console that were read, and that were too many.
    pub console_lines: u64,
    /// All events, but for the plan.
    pub events: Vec<Value>,
}

/// Rows about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Section {
    /// Its name for programs: `plan`, `tables`, `found`, `time`, `error-1`, ..., `end`, `host`.
    pub key: String,
    /// Its name for people.
    pub title: String,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// One thing, on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Its name for programs, unique in its section.
    pub key: String,
    /// Its name for people.
    pub label: String,
    /// What each side has to show, in the order of [`Comparison::sides`]; an empty list where it has nothing.
    pub values: [Vec<String>; 2],
    /// Whether the two are different. Times always are, and do not count.
    pub differs: bool,
    /// Whether it is a time, which is another one at every boot.
    pub measured: bool,
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
        // One that is there on one side only does count.
        let differs = values[0].is_empty() != values[1].is_empty();
        Row { differs, measured: true, ..Row::new(key, label, values) }
    }

    /// Whether neither side has anything to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(Vec::is_empty)
    }
}

impl Comparison {
    /// Compares two boots of one machine on one host.
    #[must_use]
    pub fn new(
        machine: Machine,
        host: Host,
        orders: Vec<String>,
        recordings: &[Recording; 2],
        only: Only,
    ) -> Self {
        let rules = Rules::of(machine.kernel == "builtin:probe");
        let sides = recordings.iter().map(|recording| Side::of(recording, rules)).collect::<Vec<_>>();
        let mut comparison =
            Comparison { format: FORMAT, machine, host, orders, sides, sections: Vec::new() };
        comparison.sections = sections::all(&comparison, recordings, rules, only);
        comparison
    }

    /// The row of that section and key.
    #[must_use]
    pub fn row(&self, section: &str, key: &str) -> Option<&Row> {
        let section = self.sections.iter().find(|it| it.key == section)?;
        section.rows.iter().find(|row| row.key == key)
    }
}

impl Side {
    fn of(recording: &Recording, rules: &Rules) -> Self {
        let events = events::events(&recording.events);
        let phases = events::phases(&recording.timings);
        let phase = |wanted: &str| phases.iter().find(|(name, _)| name == wanted).map(|(_, time)| *time);
        let (entered, down) = (phase("first-run").unwrap_or(0), phase("guest-shutdown").unwrap_or(u64::MAX));
        let milestones = rules.milestones(recording.console.lines()).into_iter().map(|(key, label, line)| {
            // What Linux says is often shown long after it was said: its own clock starts as it is entered.
            let t_ns = line.kernel_ns.map_or(line.t_ns, |kernel| kernel.saturating_add(entered));
            // And what it wrote with its last breath is read after its end.
            let t_ns = t_ns.min(down);
            Milestone { key, label, t_ns }
        });
        let mut milestones: Vec<_> = milestones.collect();
        milestones.sort_by_key(|milestone| milestone.t_ns);
        let (errors, other_lines) = Story::all(&events, rules.errors(recording.console.lines()));
        Side {
            tables: recording.tables.clone(),
            changes: recording.changes.clone(),
            plan: recording.plan.clone(),
            ending: recording.ending.clone(),
            reason: events::reason(&events).or_else(|| fatal_signal(&recording.said)),
            phases: phases.into_iter().map(|(name, time)| (name, time.into())).collect(),
            milestones,
            errors,
            other_lines,
            last_line: recording.console.lines().next_back().map(|line| line.text.clone()),
            console_lines: recording.console.lines().count() as u64 + recording.console.memslot_holes(),
            events,
        }
    }

    /// When a phase ended.
    pub(crate) fn phase(&self, name: &str) -> Option<u64> {
        self.phases.get(name).and_then(Value::as_u64)
    }
}

/// The last line on standard error: the one that says what happened.
fn fatal_signal(said: &str) -> Option<String> {
    let line = said.lines().rfind(|line| !line.trim().is_empty())?;
    Some(crate::console::printable(line.strip_prefix("ghest: ").unwrap_or(line)))
}
