//! Texts, and places in them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A text that settings are read from, with the name that diagnostics use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name as the user gave it, or `--set`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// The file's name without directory and extension; empty if there is none.
    pub(crate) fn stem(&self) -> String {
        Path::new(&self.name).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// A span of a [`Source`].
///
/// The span always lies within the text, and starts and ends at a character boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    source: Arc<Source>,
    span: Range<usize>,
}

impl Place {
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>) -> Place {
        let text = source.text.as_str();
        let end = (span.end.min(text.len())..=text.len())
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(text.len());
        let start = (0..=span.start.min(end)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default();
        Place { source: Arc::clone(source), span: start..end }
    }

    /// The empty place at the start of a text, for a section that is missing from it.
    pub(crate) fn start_of(source: &Arc<Source>) -> Place {
        Place { source: Arc::clone(source), span: 0..0 }
    }

    /// The text that contains this place.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn is_in(&self, source: &Arc<Source>) -> bool {
        Arc::ptr_eq(&self.source, source)
    }

    /// The byte range within the text.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The text of the span.
    #[must_use]
    pub fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// The line in which the place starts, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        1 + self.before().matches('\n').count()
    }

    /// The column in which the place starts, from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        1 + self.before().chars().rev().take_while(|&c| c != '\n').count()
    }

    fn before(&self) -> &str {
        self.source.text.get(..self.span.start).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Range<usize>) -> Place {
        Place::new(&Arc::new(Source { name: "p.toml".to_owned(), text: text.to_owned() }), span)
    }

    #[test]
    fn columns_count_characters() {
        let at = place("a = 1\nö = \"é\" x", 16..17);
        assert_eq!((at.line(), at.column(), at.text()), (2, 9, "x"));
    }

    #[test]
    fn a_span_is_widened_to_whole_characters_and_cut_at_the_end() {
        assert_eq!(place("aéb", 2..2).span(), 1..3);
        assert_eq!(place("aé", 1..99).span(), 1..3);
        assert_eq!(place("aé", 50..99).span(), 3..3);
    }
}
