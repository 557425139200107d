//! The RAS plan with its reasons, and what the host cannot do.

use crate::comparison::{Row, Section, Side};
use crate::recording::{Answer, Change, HostSummary};

pub(super) fn plan(sides: [&Side; 2]) -> Section {
    let because = |side: &Side| side.plan.iter().map(|plan| plan.because.clone()).collect();
    let change = |Change { key, asked, taken }: &Change| match taken.as_str() {
        "" => format!("{key} = \"{asked}\": the key is removed, because these tables have no place for it"),
        taken => format!("{key} = \"{asked}\": `{taken}` is used instead"),
    };
    let changes = |side: &Side| side.changes.iter().map(change).collect();
    let mut rows = vec![
        Row::new("because", "why these tables", sides.map(because)),
        Row::new("not-carried", "profile keys replaced", sides.map(changes)),
    ];
    for key in ["consumed", "found", "corrected", "touched-by-device", "own-memory"] {
        let row = |suffix: &str, label: &str, what: fn(&Answer) -> Vec<String>| {
            let answer = |side: &Side| {
                let plan = side.plan.as_ref()?;
                plan.answers.iter().find(|it| it.question == key).map(what)
            };
            let values = sides.map(|side| answer(side).unwrap_or_default());
            Row::new(format!("{key}{suffix}"), label, values)
        };
        rows.push(row("", Answer::class_label(key), chosen));
        rows.push(row("-because", "  because", |it| vec![it.because.clone()]));
        rows.push(row("-otherwise", "  if not acknowledged", |it| it.otherwise.iter().cloned().collect()));
        if matches!(key, "consumed" | "found") {
            rows.push(row("-not", "  rather than", |it| it.ruled_out.clone()));
        }
    }
    Section::new("plan", "The plan", rows)
}

fn chosen(answer: &Answer) -> Vec<String> {
    let requested = match &answer.asked {
        Some(requested) if *requested == answer.chosen => " (requested)".to_owned(),
        Some(requested) => format!(" (requested: {requested})"),
        None => String::new(),
    };
    let source = answer.source.map_or_else(String::new, |source| format!(", record of source {source}"));
    let degraded = if answer.degraded { ", degraded" } else { "" };
    vec![format!("{}{source}{degraded}{requested}", answer.chosen)]
}

pub(super) fn host(sides: [&Side; 2], host: &HostSummary) -> Section {
    let notes = |side: &Side| side.plan.iter().flat_map(|plan| plan.notes.clone()).collect();
    let mut rows = vec![Row::new("notes", "notes", sides.map(notes))];
    rows.extend(host.lacks.iter().map(|lack| {
        let cost = vec![format!("missing: {}", lack.cost)];
        Row::new(lack.what.clone(), lack.what.clone(), [cost.clone(), cost])
    }));
    Section::new("host", "What this host cannot do", rows)
}
