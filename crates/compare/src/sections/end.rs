//! How each boot ended.

use super::{boot, both, section};
use crate::comparison::{Row, Section, Side};
use crate::recording::{Ending, Recording};
use crate::rules::{Rules, Topic};
use crate::units::time;

pub(super) fn end(sides: [&Side; 2], recordings: &[Recording; 2], rules: &Rules) -> Section {
    let mut rows = boot::told(recordings, rules, Topic::End);
    rows.push(Row::new("how", "its ghest", both(sides, |side| vec![how(&side.ending)])));
    rows.push(Row::new("reason", "because", both(sides, |side| side.reason.iter().cloned().collect())));
    rows.push(Row::new(
        "last-line",
        "last line of the console",
        both(sides, |side| {
            vec![side.last_line.clone().unwrap_or_else(|| "none: the guest said nothing".to_owned())]
        }),
    ));
    rows.push(Row::measured(
        "after",
        "after",
        both(sides, |side| {
            let after = match side.ending {
                Ending::Exited { after_ns, .. } | Ending::Killed { after_ns, .. } => Some(after_ns),
                Ending::Hung { limit_ns } => Some(limit_ns),
                Ending::NotStarted { .. } => None,
            };
            after.map(time).into_iter().collect()
        }),
    ));
    section("end", "How it ended", rows)
}

fn how(ending: &Ending) -> String {
    match ending {
        Ending::Exited { status, .. } => format!("status {status}: {}", meaning(*status)),
        Ending::Killed { signal, .. } => format!("died of signal {signal}"),
        Ending::Hung { limit_ns } => {
            format!("HUNG: the guest did not end within {}, and was ended", time(*limit_ns))
        }
        Ending::NotStarted { why } => format!("did not start: {why}"),
    }
}

/// What an exit status of `ghest boot` says.
fn meaning(status: i32) -> &'static str {
    match status {
        0 => "the guest shut down",
        1 => "an internal or I/O error",
        2 => "the profile does not go with these tables",
        3 => "this host cannot do what was asked",
        4 => "the guest crashed",
        10 => "stopped by the profile's answer to a memory error",
        11 => "a memory error in the VMM's own memory",
        _ => "stopped",
    }
}
