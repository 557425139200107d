//! How each boot ended.

use super::console;
use crate::comparison::{Row, Section, Side};
use crate::recording::{Ending, Recording};
use crate::rules::{Rules, Topic};
use crate::units::time;

pub(super) fn end(sides: [&Side; 2], recordings: &[Recording; 2], rules: &Rules) -> Section {
    let mut rows = console::rows(recordings, rules, Topic::End);
    rows.push(Row::new("how", "ghest", sides.map(|side| vec![how(&side.ending)])));
    rows.push(Row::new("reason", "reason", sides.map(|side| side.reason.iter().cloned().collect())));
    let last_line =
        |side: &Side| vec![side.last_line.clone().unwrap_or_else(|| "none: no console output".to_owned())];
    rows.push(Row::new("last-line", "last console line", sides.map(last_line)));
    let after = |side: &Side| {
        let after = match side.ending {
            Ending::Exited { after_ns, .. } | Ending::Killed { after_ns, .. } => Some(after_ns),
            Ending::Hung { limit_ns } => Some(limit_ns),
            Ending::NotStarted { .. } => None,
        };
        after.map(time).into_iter().collect()
    };
    rows.push(Row::measured("after", "after", sides.map(after)));
    Section::new("end", "How it ended", rows)
}

fn how(ending: &Ending) -> String {
    match ending {
        Ending::Exited { status, .. } => format!("status {status}: {}", meaning(*status)),
        Ending::Killed { signal, .. } => format!("killed by signal {signal}"),
        Ending::Hung { limit_ns } => {
            format!("HUNG: the guest did not end within {} and was stopped", time(*limit_ns))
        }
        Ending::NotStarted { why } => format!("not started: {why}"),
    }
}

/// Meaning of an exit status of `ghest boot`.
fn meaning(status: i32) -> &'static str {
    match status {
        0 => "the guest shut down",
        1 => "an internal or I/O error",
        2 => "the profile is not valid with these tables",
        3 => "this host cannot do what the profile requests",
        4 => "the guest crashed",
        10 => "stopped, as the profile requests for a memory error",
        11 => "a memory error in the VMM's own memory",
        _ => "stopped",
    }
}
