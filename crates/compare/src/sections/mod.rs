//! The sections of a comparison, in display order.

mod boot;
mod console;
mod end;
mod errors;
mod plan;

use crate::comparison::{Comparison, Section};
use crate::recording::Recording;
use crate::rules::Rules;

/// Which sections a comparison has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Only {
    /// All sections.
    #[default]
    All,
    /// How the guests boot, without memory errors.
    Boot,
    /// Memory errors, without tables, platform and times.
    Errors,
}

pub(crate) fn all(
    comparison: &Comparison,
    recordings: &[Recording; 2],
    rules: &Rules,
    only: Only,
) -> Vec<Section> {
    let [Some(left), Some(right)] = [comparison.sides.first(), comparison.sides.get(1)] else {
        return Vec::new();
    };
    let sides = [left, right];
    let mut sections = vec![plan::plan(sides), plan::host(sides, &comparison.host)];
    if only != Only::Errors {
        sections.push(boot::tables(sides));
        sections.push(console::platform(recordings, rules));
        sections.push(boot::times(sides));
    }
    if only != Only::Boot {
        sections.extend(errors::errors(sides, &comparison.orders));
    }
    sections.push(end::end(sides, recordings, rules));
    for section in &mut sections {
        section.rows.retain(|row| !row.is_empty());
    }
    sections.retain(|section| !section.rows.is_empty());
    sections
}
