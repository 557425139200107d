//! Both boots on a time axis each, as inline SVG of the page's width.
//!
//! Positions are percentages and text keeps its size, so that a narrow page does not distort it. Marks are numbered; the list
//! below the axis explains the numbers.

use std::fmt::Write as _;

use crate::comparison::{Comparison, Side};
use crate::escape::escape;
use crate::recording::Ending;
use crate::units::time;

/// A mark on the axis.
struct Mark<'s> {
    t_ns: u64,
    label: &'s str,
    is_error: bool,
}

/// The axes of both sides.
pub(crate) fn timeline(comparison: &Comparison) -> String {
    let end = comparison.sides.iter().map(end_of).max().unwrap_or(0).max(1);
    comparison.sides.iter().map(|side| lane(side, end)).collect()
}

/// Interval of the scale: a round number of nanoseconds that gives two to five steps.
fn step(end: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let step = unit.saturating_mul(factor);
            if end / step <= 5 {
                return step;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

fn end_of(side: &Side) -> u64 {
    let ended = match side.ending {
        Ending::Exited { after_ns, .. } | Ending::Killed { after_ns, .. } => after_ns,
        Ending::Hung { limit_ns } => limit_ns,
        Ending::NotStarted { .. } => 0,
    };
    let marks = side.milestones.iter().map(|milestone| milestone.t_ns).filter(|time| *time <= ended);
    marks.chain([ended]).max().unwrap_or(0)
}

fn lane(side: &Side, end: u64) -> String {
    let at = |t_ns: u64| t_ns.min(end) as f64 * 100.0 / end as f64;
    let ended = end_of(side);
    let entered = side.phase("first-run").unwrap_or(ended).min(ended);
    let down = side.phase("guest-shutdown").unwrap_or(ended).clamp(entered, ended);
    let mut svg = String::new();
    let name = escape(&side.tables);
    let _ = write!(
        svg,
        "<figure class=lane><figcaption>{name}: {}</figcaption><svg width=\"100%\" height=74 role=img \
         aria-label=\"{name} on a time axis\">",
        escape(&time(ended))
    );
    for (class, from, to) in [("set-up", 0, entered), ("guest", entered, down), ("after", down, ended)] {
        let (from, to) = (at(from), at(to));
        if to > from {
            let _ = write!(
                svg,
                "<rect class={class} x=\"{from:.3}%\" y=24 width=\"{:.3}%\" height=20 />",
                (to - from).max(0.15)
            );
        }
    }
    let marks = marks(side);
    for tick in (0..=5_u64).map(|number| number.saturating_mul(step(end))).filter(|tick| *tick <= end) {
        let (x, anchor) = (
            at(tick),
            if at(tick) > 90.0 {
                "end"
            } else if tick == 0 {
                "start"
            } else {
                "middle"
            },
        );
        let label = if tick == 0 { "0".to_owned() } else { scale_label(tick) };
        let _ = write!(
            svg,
            "<line class=scale x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=44 y2=50 />\
             <text class=scale x=\"{x:.3}%\" y=64 text-anchor={anchor}>{label}</text>"
        );
    }
    let mut last = -100.0;
    for (number, mark) in marks.iter().enumerate() {
        let x = at(mark.t_ns);
        let class = if mark.is_error { "error" } else { "mark" };
        let _ = write!(svg, "<line class={class} x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=18 y2=44 />");
        // A number that would overlap the previous one only appears in the list.
        if x - last >= 3.5 {
            let anchor = if x > 97.0 {
                "end"
            } else if x < 2.0 {
                "start"
            } else {
                "middle"
            };
            let _ = write!(
                svg,
                "<text class={class} x=\"{x:.3}%\" y=13 text-anchor={anchor}>{}</text>",
                number + 1
            );
            last = x;
        }
    }
    svg.push_str("</svg><ol class=marks>");
    for mark in &marks {
        let class = if mark.is_error { " class=error" } else { "" };
        let _ =
            write!(svg, "<li{class}>{} <span>{}</span></li>", escape(mark.label), escape(&time(mark.t_ns)));
    }
    svg.push_str("</ol></figure>");
    svg
}

fn marks(side: &Side) -> Vec<Mark<'_>> {
    let mark = |label, t_ns| Mark { t_ns, label, is_error: false };
    let mut marks: Vec<Mark<'_>> =
        side.milestones.iter().map(|milestone| mark(milestone.label.as_str(), milestone.t_ns)).collect();
    marks.extend(side.phase("first-run").map(|time| mark("first guest entry", time)));
    marks.extend(side.phase("guest-shutdown").map(|time| mark("guest ended", time)));
    let seen = side.errors.iter().filter_map(|story| story.seen.first());
    marks.extend(seen.map(|seen| Mark { t_ns: seen.t_ns, label: "memory error", is_error: true }));
    marks.sort_by_key(|mark| mark.t_ns);
    marks
}

fn scale_label(t_ns: u64) -> String {
    match t_ns {
        1_000_000_000.. => format!("{} s", t_ns / 1_000_000_000),
        1_000_000.. => format!("{} ms", t_ns / 1_000_000),
        _ => format!("{} \u{b5}s", t_ns / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_steps() {
        assert_eq!(
            [1, 234_000_000, 17_000_000_000, 30_000_000_000].map(step),
            [1, 50_000_000, 5_000_000_000, 10_000_000_000]
        );
        assert!(step(u64::MAX) > 0);
    }
}
