//! Rows made from the guests' consoles.

use crate::comparison::{Row, Section};
use crate::recording::Recording;
use crate::rules::{Rules, Topic};

pub(super) fn platform(recordings: &[Recording; 2], rules: &Rules) -> Section {
    Section::new("found", "Platform as the guest sees it", rows(recordings, rules, Topic::Found))
}

/// The rows that the rules of a topic make from both consoles.
pub(super) fn rows(recordings: &[Recording; 2], rules: &Rules, topic: Topic) -> Vec<Row> {
    let [left, right] = recordings.each_ref().map(|it| {
        // The absence of a line only means something if the guest printed anything.
        let is_silent = it.console.lines().next().is_none();
        (rules.rows(topic, it.console.lines()), is_silent)
    });
    let mut rows = Vec::new();
    for (left_row, right_row) in left.0.into_iter().zip(right.0) {
        if left_row.values.is_empty() && right_row.values.is_empty() {
            continue;
        }
        let (key, label) = (left_row.key, left_row.label);
        let values = [(left_row, left.1), (right_row, right.1)].map(|(row, is_silent)| match row.none {
            Some(none) if row.values.is_empty() && !is_silent => vec![none.to_owned()],
            _ => row.values,
        });
        rows.push(Row::new(key, label, values));
    }
    rows
}
