//! What is wrong with a profile, where, and the way out.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::source::{Place, Source};

/// One problem of a profile.
///
/// It holds all that a renderer needs: the text, the stretch to underline, and further stretches that explain it.
/// Its [`Display`] is the plain form, `file:line:column: message`, then one indented line for each label and the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The offending text.
    pub place: Place,
    /// The key it belongs to, as `--set` addresses it: `machine.vcpus`, `device.0.path`. Empty where there is none.
    pub key: String,
    /// What is wrong, with key and value.
    pub message: String,
    /// The way out.
    pub help: String,
    /// Other places that have to do with it.
    pub related: Vec<Label>,
}

/// A place that explains a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub place: Place,
    /// What is there.
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

    /// A value that its key cannot have.
    pub(crate) fn refused(
        place: &Place,
        key: &str,
        why: impl Display,
        help: impl Into<String>,
    ) -> Diagnostic {
        let message = format!("`{key}` cannot be {}: {why}", quoted(place.text()));
        Diagnostic::new(place.clone(), key, message, help)
    }

    pub(crate) fn beside(mut self, place: &Place, message: impl Into<String>) -> Diagnostic {
        self.related.push(Label { place: place.clone(), message: message.into() });
        self
    }

    /// The text that it is about.
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
            write!(f, "{}:{}:{}: {message}", place.source().name, place.line(), place.column())
        };
        line(f, &self.place, &self.message)?;
        for label in &self.related {
            f.write_str("\n  ")?;
            line(f, &label.place, &label.message)?;
        }
        write!(f, "\n  help: {}", self.help)
    }
}

impl std::error::Error for Diagnostic {}

/// The problems found so far.
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

    /// The problems, in the order in which they were found.
    pub(crate) fn found(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Takes over what `keep` lets through of another report.
    pub(crate) fn take(&mut self, other: Report, keep: impl FnMut(&Diagnostic) -> bool) {
        self.diagnostics.extend(other.diagnostics.into_iter().filter(keep));
    }

    /// The value, or every problem in the order of the sources and of the text.
    pub(crate) fn finish<T>(
        mut self,
        value: Result<T, Reported>,
        sources: &[&Arc<Source>],
    ) -> Result<T, Vec<Diagnostic>> {
        match value {
            Ok(value) if self.diagnostics.is_empty() => Ok(value),
            _ => {
                self.diagnostics.sort_by_key(|diagnostic| {
                    let place = &diagnostic.place;
                    (sources.iter().position(|source| place.is_in(source)), place.span().start)
                });
                Err(self.diagnostics)
            }
        }
    }
}

/// A value as it is written, on one line and not too long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
