//! What was planned and why, and what the host cannot do.

use super::{both, section};
use crate::comparison::{Row, Section, Side};
use crate::recording::{Answer, Host};

const QUESTIONS: [(&str, &str); 4] = [
    ("consumed", "a vCPU touches poisoned memory"),
    ("found", "found lost, touched by nobody"),
    ("touched-by-device", "touched by a device"),
    ("own-memory", "the VMM's own memory"),
];

pub(super) fn plan(sides: [&Side; 2]) -> Section {
    let mut rows = vec![
        Row::new(
            "because",
            "why these tables",
            both(sides, |side| side.plan.iter().map(|plan| plan.because.clone()).collect()),
        ),
        Row::new(
            "not-carried",
            "the profile's words that they cannot carry",
            both(sides, |side| {
                let change = |it: &crate::Change| {
                    format!("{} = \"{}\": `{}` is taken instead", it.key, it.asked, it.taken)
                };
                side.changes.iter().map(change).collect()
            }),
        ),
    ];
    for (key, label) in QUESTIONS {
        let answer = |side: &Side, what: fn(&Answer) -> Vec<String>| {
            side.plan
                .iter()
                .flat_map(|plan| &plan.answers)
                .find(|it| it.question == key)
                .map(what)
                .unwrap_or_default()
        };
        rows.push(Row::new(key, label, both(sides, |side| answer(side, chosen))));
        rows.push(Row::new(
            format!("{key}-because"),
            "  because",
            both(sides, |side| answer(side, |it| vec![it.because.clone()])),
        ));
        rows.push(Row::new(
            format!("{key}-otherwise"),
            "  if it is not acknowledged",
            both(sides, |side| answer(side, |it| it.otherwise.iter().cloned().collect())),
        ));
        if matches!(key, "consumed" | "found") {
            rows.push(Row::new(
                format!("{key}-not"),
                "  rather than",
                both(sides, |side| answer(side, |it| it.ruled_out.clone())),
            ));
        }
    }
    section("plan", "The plan", rows)
}

fn chosen(answer: &Answer) -> Vec<String> {
    let asked = match &answer.asked {
        Some(asked) if *asked == answer.chosen => " (asked for)".to_owned(),
        Some(asked) => format!(" (asked for: {asked})"),
        None => String::new(),
    };
    let source = answer.source.map_or_else(String::new, |source| format!(", record of source {source}"));
    let degraded = if answer.degraded { ", degraded" } else { "" };
    vec![format!("{}{source}{degraded}{asked}", answer.chosen)]
}

pub(super) fn host(sides: [&Side; 2], host: &Host) -> Section {
    let mut rows = vec![Row::new(
        "notes",
        "worth knowing",
        both(sides, |side| side.plan.iter().flat_map(|plan| plan.notes.clone()).collect()),
    )];
    rows.extend(host.lacks.iter().map(|lack| {
        let cost = vec![format!("no: {}", lack.cost)];
        Row::new(lack.what.clone(), lack.what.clone(), [cost.clone(), cost])
    }));
    section("host", "What this host cannot do", rows)
}
