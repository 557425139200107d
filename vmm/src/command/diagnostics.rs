//! Problems of profiles on standard error: the line, the underlined text, and the suggestion.

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use machine_profile::printable::{escaped, escaped_json, masked};
use machine_profile::{Diagnostic, Place};
use serde_json::json;
use vmm::stderr::{self, Format};

use super::logging;

/// Prints problems to standard error, in colours if that is a terminal and `NO_COLOR` is not set.
pub(super) fn print(problems: &[Diagnostic]) {
    let renderer = if logging::has_colours() { Renderer::styled() } else { Renderer::plain() };
    for problem in problems {
        match stderr::format() {
            Format::Text => stderr::write(&format!("{}\n\n", renderer.render(&[group(problem)]))),
            Format::Json => stderr::write(&format!("{}\n", escaped_json(&as_json(problem).to_string()))),
        }
    }
}

fn as_json(problem: &Diagnostic) -> serde_json::Value {
    json!({
        "level": "ERROR",
        "message": problem.message,
        "file": problem.source().name,
        "line": problem.line(),
        "column": problem.column(),
        "key": problem.key,
        "value": problem.value(),
        "help": problem.help,
    })
}

fn group(problem: &Diagnostic) -> Group<'_> {
    let primary = Mark { kind: AnnotationKind::Primary, place: &problem.place, label: &problem.key };
    let related = problem.related.iter().map(|label| Mark {
        kind: AnnotationKind::Context,
        place: &label.place,
        label: &label.message,
    });
    // Places near each other are shown together.
    let (near, far): (Vec<_>, Vec<_>) = related.partition(|mark| mark.is_near(&primary));
    let together: Vec<_> = std::iter::once(primary).chain(near).collect();
    let mut group = Level::ERROR.primary_title(escaped(&problem.message)).elements(elements(&together));
    for mark in far {
        group = group.elements(elements(&[mark]));
    }
    group.element(Level::HELP.message(escaped(&problem.help)))
}

/// A place that is underlined.
struct Mark<'a> {
    kind: AnnotationKind,
    place: &'a Place,
    label: &'a str,
}

/// Most lines between two places that are shown together.
const MAX_LINES_BETWEEN: usize = 50;
/// Most bytes of the lines that a problem shows: there may be as many problems as places in one long line.
const MAX_EXCERPT_LEN: usize = 4096;

impl Mark<'_> {
    fn is_near(&self, other: &Mark<'_>) -> bool {
        let (one, other) = (self.place, other.place);
        one.is_in_text_of(other) && one.line().abs_diff(other.line()) <= MAX_LINES_BETWEEN
    }
}

/// The lines of places in one text, underlined; or if they are too long, only where the places are.
fn elements<'a>(marks: &[Mark<'a>]) -> Vec<Element<'a>> {
    let lines = marks.iter().map(|mark| mark.place.lines());
    let lines =
        lines.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end)).unwrap_or_default();
    if lines.len() > MAX_EXCERPT_LEN {
        let origin = |mark: &Mark<'a>| {
            let (name, place) = (escaped(&mark.place.source().name), mark.place);
            Origin::path(name).line(place.line()).char_column(place.column()).into()
        };
        return marks.iter().map(origin).collect();
    }
    let Some(first) = marks.iter().map(|mark| mark.place).min_by_key(|place| place.span().start) else {
        return Vec::new();
    };
    let source = first.source();
    let annotations = marks.iter().map(|mark| {
        let span = mark.place.span();
        mark.kind.span(span.start - lines.start..span.end - lines.start).label(escaped(mark.label))
    });
    let snippet = Snippet::source(masked(source.text.get(lines.clone()).unwrap_or_default()))
        .line_start(first.line())
        .path(escaped(&source.name))
        .annotations(annotations);
    vec![snippet.into()]
}
