//! The boot: tables and times.

use crate::comparison::{Row, Section, Side};
use crate::events;
use crate::recording::Table;
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
        let sized = |table: Table| format!("{} bytes at {:#x}", table.len, table.gpa);
        let of_name =
            |side: &Side| tables(side).into_iter().filter(|it| it.name == *name).map(sized).collect();
        Row::new(name.clone(), name.clone(), sides.map(of_name))
    };
    let total = |side: &Side| {
        let tables = tables(side);
        let bytes: u64 = tables.iter().filter(|it| it.name != "error-records").map(|it| it.len).sum();
        if tables.is_empty() { Vec::new() } else { vec![format!("{bytes} bytes")] }
    };
    let mut rows: Vec<Row> = names.iter().map(row).collect();
    rows.push(Row::new("total", "total, without record area", sides.map(total)));
    Section::new("tables", "Tables", rows)
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
        Row::measured(*name, events::phase_label(name), sides.map(shown))
    };
    let (shutdown, rest): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| *name == "guest-shutdown");
    let mut rows: Vec<Row> = rest.iter().map(phase).collect();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for milestone in sides.iter().flat_map(|side| &side.milestones) {
        if !keys.iter().any(|(key, _)| *key == milestone.key) {
            keys.push((&milestone.key, &milestone.label));
        }
    }
    rows.extend(keys.into_iter().map(|(key, label)| {
        let shown = |side: &Side| {
            let reached = side.milestones.iter().find(|milestone| milestone.key == key);
            reached.map(|milestone| time(milestone.t_ns)).into_iter().collect()
        };
        Row::measured(format!("guest-{key}"), format!("guest: {label}"), sides.map(shown))
    }));
    rows.extend(shutdown.iter().map(phase));
    Section::new("time", "Time since the start of ghest", rows)
}
