//! Builds a [`Comparison`] from two recordings.

use crate::comparison::{Comparison, FORMAT, MachineSummary, Side};
use crate::console;
use crate::events::{self, Milestone};
use crate::recording::{HostSummary, Recording};
use crate::rules::Rules;
use crate::sections::{self, Only};
use crate::story::Story;

impl Comparison {
    /// Compares two boots of one machine on one host. `orders` are the injection requests of both boots.
    #[must_use]
    pub fn new(
        machine: MachineSummary,
        host: HostSummary,
        orders: Vec<String>,
        recordings: &[Recording; 2],
        only: Only,
    ) -> Self {
        let rules = Rules::of(machine.kernel == "builtin:probe");
        let sides = recordings.iter().map(|recording| side(recording, rules)).collect::<Vec<_>>();
        let mut comparison =
            Comparison { format: FORMAT, machine, host, orders, sides, sections: Vec::new() };
        comparison.sections = sections::all(&comparison, recordings, rules, only);
        comparison
    }
}

fn side(recording: &Recording, rules: &Rules) -> Side {
    let events = events::events(&recording.events);
    let phases = events::phases(&recording.timings);
    let phase = |wanted: &str| phases.iter().find(|(name, _)| name == wanted).map(|(_, time)| *time);
    let (entered, down) = (phase("first-run").unwrap_or(0), phase("guest-shutdown").unwrap_or(u64::MAX));
    let milestones = rules.milestones(recording.console.lines()).into_iter().map(|(key, label, line)| {
        // Linux buffers its log until a console driver is attached. The kernel's own timestamps start at guest entry.
        let t_ns = line.kernel_ns.map_or(line.t_ns, |kernel| kernel.saturating_add(entered));
        // Lines that are still in a pipe when the guest ends are read after its end.
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
        reason: events::reason(&events).or_else(|| last_stderr_line(&recording.stderr)),
        phases: phases.into_iter().map(|(name, time)| (name, time.into())).collect(),
        milestones,
        errors,
        other_lines,
        last_line: recording.console.lines().next_back().map(|line| line.text.clone()),
        console_lines: recording.console.lines().count() as u64 + recording.console.dropped_lines(),
        events,
    }
}

/// The last line on standard error, which states why the process ended.
fn last_stderr_line(stderr: &str) -> Option<String> {
    let line = stderr.lines().rfind(|line| !line.trim().is_empty())?;
    Some(console::printable(line.strip_prefix("ghest: ").unwrap_or(line)))
}
