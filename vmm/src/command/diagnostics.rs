//! Problems of profiles on standard error: the line, the underlined text, and the suggestion.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use machine_profile::Diagnostic;
use serde_json::json;
use vmm::stderr::{self, Format};

use super::logging;

/// Prints problems to standard error, in colours if that is a terminal and `NO_COLOR` is not set.
pub(super) fn print(problems: &[Diagnostic]) {
    let renderer = if logging::has_colours() { Renderer::styled() } else { Renderer::plain() };
    for problem in problems {
        match stderr::format() {
            Format::Text => stderr::write(&format!("{}\n\n", renderer.render(&[group(problem)]))),
            Format::Json => stderr::write(&format!("{}\n", as_json(problem))),
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
    let title = Level::ERROR.primary_title(&problem.message);
    let source = problem.source();
    let mut snippet = Snippet::source(&source.text)
        .path(&source.name)
        .annotation(AnnotationKind::Primary.span(problem.place.span()).label(&problem.key));
    let mut elsewhere = Vec::new();
    for label in &problem.related {
        let other = label.place.source();
        let annotation = AnnotationKind::Context.span(label.place.span()).label(&label.message);
        if other == source {
            snippet = snippet.annotation(annotation);
        } else {
            elsewhere.push(Snippet::source(&other.text).path(&other.name).annotation(annotation));
        }
    }
    let mut group = title.element(snippet);
    for snippet in elsewhere {
        group = group.element(snippet);
    }
    group.element(Level::HELP.message(&problem.help))
}
