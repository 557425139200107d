//! Diagnostics: what is wrong with a profile, where, and how to correct it.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::printable::{escaped, is_printable};
use crate::source::{Document, Place, Source};

/// One problem of a profile.
///
/// It contains all that a renderer needs: the text, the span to underline, and further spans that explain it.
/// Its [`Display`] is the plain form, `file:line:column: message`, then one indented line for each label and the help, which
/// can be shown on a terminal. Its texts may hold characters of the profile: see [`printable`](crate::printable).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The place of the offending text.
    pub place: Place,
    /// The address of the key, as in `--set`: `machine.vcpus`, `device.0.path`. Empty if the problem concerns no key.
    pub key: String,
    /// What is wrong, with the key and the value.
    pub message: String,
    /// How to correct it.
    pub help: String,
    /// Other places that explain it.
    pub related: Vec<Label>,
}

/// A place that explains a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub place: Place,
    /// What is at the place.
    pub message: String,
}

impl Diagnostic {
    pub(crate) fn new(
        place: Place,
        key: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic { place, key: key.into(), message: message.into(), help: help.into(), related: Vec::new() }
    }

    /// A diagnostic that refuses the value of a key.
    pub(crate) fn refused(
        place: &Place,
        key: &str,
        reason: impl Display,
        help: impl Into<String>,
    ) -> Diagnostic {
        let message = format!("`{key}` cannot be {}: {reason}", quoted(place.text()));
        Diagnostic::new(place.clone(), key, message, help)
    }

    pub(crate) fn with_label(mut self, place: &Place, message: impl Into<String>) -> Diagnostic {
        self.related.push(Label { place: place.clone(), message: message.into() });
        self
    }

    /// The text that contains the problem.
    #[must_use]
    pub fn source(&self) -> &Source {
        self.place.source()
    }

    /// The offending text.
    #[must_use]
    pub fn value(&self) -> &str {
        self.place.text()
    }

    /// The line of the offending text, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.place.line()
    }

    /// The column of the offending text, from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        self.place.column()
    }
}

impl Display for Diagnostic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let line = |f: &mut Formatter<'_>, place: &Place, message: &str| {
            let name = escaped(&place.source().name);
            write!(f, "{name}:{}:{}: {}", place.line(), place.column(), escaped(message))
        };
        line(f, &self.place, &self.message)?;
        for label in &self.related {
            f.write_str("\n  ")?;
            line(f, &label.place, &label.message)?;
        }
        write!(f, "\n  help: {}", escaped(&self.help))
    }
}

impl std::error::Error for Diagnostic {}

/// The problems that were reported so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
}

/// Proof that a problem was reported: code that lacks a value because of it need not report it again.
#[derive(Clone, Copy, Debug)]
pub struct Reported(());

impl Report {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) -> Reported {
        self.diagnostics.push(diagnostic);
        Reported(())
    }

    /// The problems, in the order of their reports.
    pub(crate) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Appends the problems of another report for which `keep` returns true.
    pub(crate) fn append_if(&mut self, other: Report, keep: impl FnMut(&Diagnostic) -> bool) {
        self.diagnostics.extend(other.diagnostics.into_iter().filter(keep));
    }

    /// Returns the value if there is no problem; otherwise every problem, in the order of the sources and of each text.
    pub(crate) fn finish<T>(
        mut self,
        value: Result<T, Reported>,
        sources: &[&Arc<Document>],
    ) -> Result<T, Vec<Diagnostic>> {
        match value {
            Ok(value) if self.diagnostics.is_empty() => Ok(value),
            _ => {
                self.diagnostics.sort_by_cached_key(|diagnostic| {
                    let place = &diagnostic.place;
                    (sources.iter().position(|source| place.is_in(source)), place.span().start)
                });
                Err(self.diagnostics)
            }
        }
    }
}

/// A value as written, in backquotes, on one line, shortened, and without characters that change a terminal.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", shortened(text))
}

/// The first [`MAX_QUOTED_CHARS`] characters of a text, printable, on one line.
pub(crate) fn shortened(text: &str) -> String {
    let mut shown: String =
        text.chars().take(MAX_QUOTED_CHARS).map(|c| if is_printable(c) { c } else { ' ' }).collect();
    if text.chars().nth(MAX_QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// The maximum number of characters of a value that a message shows.
const MAX_QUOTED_CHARS: usize = 60;
