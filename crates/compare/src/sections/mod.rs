//! The sections of a comparison, in the order in which they are read.

mod boot;
mod end;
mod errors;
mod plan;

use crate::comparison::{Comparison, Section, Side};
use crate::recording::Recording;
use crate::rules::Rules;

/// Which part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All of it.
    #[default]
    All,
    /// How the guests boot: not what becomes of errors.
    Boot,
    /// What becomes of errors: not how the guests boot.
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
        sections.push(boot::found(recordings, rules));
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

/// The same for both sides.
fn both<'s>(sides: [&'s Side; 2], what: impl FnMut(&'s Side) -> Vec<String>) -> [Vec<String>; 2] {
    sides.map(what)
}

fn section(key: impl Into<String>, title: impl Into<String>, rows: Vec<crate::Row>) -> Section {
    Section { key: key.into(), title: title.into(), rows }
}
