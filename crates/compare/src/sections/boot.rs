//! The boot: tables, what the guest found, time.

use super::{both, section};
use crate::comparison::{Row, Section, Side};
use crate::events;
use crate::recording::Recording;
use crate::rules::{Rules, Topic};
use crate::units::time;

pub(super) fn tables(sides: [&Side; 2]) -> Section {
    let tables = |side: &Side| side.plan.as_ref().map(|plan| plan.tables.clone()).unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for table in sides.iter().flat_map(|side| tables(side)) {
        if !names.contains(&table.name) {
            names.push(table.name);
        }
    }
    let row = |name: &String| {
        Row::new(
            name.clone(),
            name.clone(),
            both(sides, |side| {
                let sized = |table: crate::Table| format!("{} bytes at {:#x}", table.len, table.gpa);
                tables(side).into_iter().filter(|table| table.name == *name).map(sized).collect()
            }),
        )
    };
    let total = |side: &Side| {
        let tables = tables(side);
        let bytes: u64 = tables.iter().filter(|it| it.name != "error-records").map(|it| it.len).sum();
        if tables.is_empty() { Vec::new() } else { vec![format!("{bytes} bytes")] }
    };
    let mut rows: Vec<Row> = names.iter().map(row).collect();
    rows.push(Row::new("total", "all, without room for records", both(sides, total)));
    section("tables", "Tables", rows)
}

pub(super) fn found(recordings: &[Recording; 2], rules: &Rules) -> Section {
    section("found", "What the guest found", told(recordings, rules, Topic::Found))
}

/// The rows that rules make of both consoles.
pub(super) fn told(recordings: &[Recording; 2], rules: &Rules, topic: Topic) -> Vec<Row> {
    let [left, right] = recordings.each_ref().map(|it| {
        // A guest that said nothing found nothing, and lacks nothing either.
        let is_silent = it.console.lines().next().is_none();
        (rules.tell(topic, it.console.lines()), is_silent)
    });
    let mut rows = Vec::new();
    for (left_told, right_told) in left.0.into_iter().zip(right.0) {
        if left_told.values.is_empty() && right_told.values.is_empty() {
            continue;
        }
        let (key, label) = (left_told.key, left_told.label);
        let values = [(left_told, left.1), (right_told, right.1)].map(|(told, is_silent)| match told.none {
            Some(none) if told.values.is_empty() && !is_silent => vec![none.to_owned()],
            _ => told.values,
        });
        rows.push(Row::new(key, label, values));
    }
    rows
}

pub(super) fn times(sides: [&Side; 2]) -> Section {
    let mut names: Vec<&str> = Vec::new();
    for name in sides.iter().flat_map(|side| side.phases.keys()) {
        if !names.contains(&name.as_str()) && name != "process-start" {
            names.push(name);
        }
    }
    let phase = |name: &&str| {
        let shown = |side: &Side| side.phase(name).map(time).into_iter().collect();
        Row::measured(*name, events::phase_label(name), both(sides, shown))
    };
    let (guest, rest): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| *name == "guest-shutdown");
    let mut rows: Vec<Row> = rest.iter().map(phase).collect();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for milestone in sides.iter().flat_map(|side| &side.milestones) {
        if !keys.iter().any(|(key, _)| *key == milestone.key) {
            keys.push((&milestone.key, &milestone.label));
        }
    }
    rows.extend(keys.into_iter().map(|(key, label)| {
        let shown = |side: &Side| {
            let found = side.milestones.iter().find(|milestone| milestone.key == key);
            found.map(|milestone| time(milestone.t_ns)).into_iter().collect()
        };
        Row::measured(format!("guest-{key}"), format!("guest: {label}"), both(sides, shown))
    }));
    rows.extend(guest.iter().map(phase));
    section("time", "Time since the start of ghest", rows)
}
