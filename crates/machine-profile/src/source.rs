//! Texts, and places in them.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, OnceLock};

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

/// A [`Source`] with an index, so that the line and the column of a place cost the same wherever it is: a text can have as
/// many problems as characters.
#[derive(Debug)]
pub(crate) struct Document {
    source: Source,
    index: OnceLock<Index>,
}

/// Where the lines and the characters of a text are.
#[derive(Debug)]
struct Index {
    /// The offset of each line.
    line_starts: Vec<usize>,
    /// The number of characters before each [`BLOCK`] of bytes, and before the end.
    characters: Vec<usize>,
}

/// Bytes between two entries of [`Index::characters`].
const BLOCK: usize = 512;

impl Document {
    pub(crate) fn new(source: Source) -> Arc<Document> {
        Arc::new(Document { source, index: OnceLock::new() })
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let bytes = self.source.text.as_bytes();
            let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            let mut characters = vec![0];
            for block in bytes.chunks(BLOCK) {
                characters.push(characters[characters.len() - 1] + count_characters(block));
            }
            Index { line_starts: std::iter::once(0).chain(ends).collect(), characters }
        })
    }

    /// The line of an offset, from 1.
    fn line(&self, offset: usize) -> usize {
        self.index().line_starts.partition_point(|start| *start <= offset)
    }

    /// The range of a line, from 1, without its end.
    fn line_range(&self, line: usize) -> Range<usize> {
        let starts = &self.index().line_starts;
        let start = starts.get(line - 1).copied().unwrap_or(self.text.len());
        let end = starts.get(line).map_or(self.text.len(), |next| next - 1);
        start..end
    }

    /// The number of characters before an offset.
    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let rest = self.text.as_bytes().get(block * BLOCK..offset).unwrap_or_default();
        self.index().characters.get(block).map_or(0, |before| before + count_characters(rest))
    }
}

/// Counts the characters that start in a part of a text.
fn count_characters(bytes: &[u8]) -> usize {
    // The other bytes of a character are 10xxxxxx.
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

impl Deref for Document {
    type Target = Source;

    fn deref(&self) -> &Source {
        &self.source
    }
}

/// A span of a [`Source`].
///
/// The span always lies within the text, and starts and ends at a character boundary.
#[derive(Clone, Debug)]
pub struct Place {
    document: Arc<Document>,
    span: Range<usize>,
}

impl Place {
    pub(crate) fn new(document: &Arc<Document>, span: Range<usize>) -> Place {
        let text = document.text.as_str();
        let end = (span.end.min(text.len())..=text.len())
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(text.len());
        let start = (0..=span.start.min(end)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default();
        Place { document: Arc::clone(document), span: start..end }
    }

    /// The empty place at the start of a text, for a section that is missing from it.
    pub(crate) fn start_of(document: &Arc<Document>) -> Place {
        Place { document: Arc::clone(document), span: 0..0 }
    }

    /// The text that contains this place.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.document
    }

    pub(crate) fn is_in(&self, document: &Arc<Document>) -> bool {
        Arc::ptr_eq(&self.document, document)
    }

    /// Whether both places are in the same text. Compares no texts.
    #[must_use]
    pub fn is_in_text_of(&self, other: &Place) -> bool {
        self.is_in(&other.document)
    }

    /// The byte range within the text.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The text of the span.
    #[must_use]
    pub fn text(&self) -> &str {
        self.document.text.get(self.span.clone()).unwrap_or_default()
    }

    /// The line in which the place starts, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.document.line(self.span.start)
    }

    /// The byte range within the text of the lines that contain the place, without the end of the last one.
    #[must_use]
    pub fn lines(&self) -> Range<usize> {
        let first = self.document.line_range(self.line());
        let last = self.document.line_range(self.document.line(self.span.end));
        first.start..last.end.max(self.span.end)
    }

    /// The column in which the place starts, from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        let line = self.document.line_range(self.line());
        1 + self.document.characters_before(self.span.start) - self.document.characters_before(line.start)
    }
}

/// Places in equal texts are equal.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.span == other.span && (self.is_in(&other.document) || self.source() == other.source())
    }
}

impl Eq for Place {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Range<usize>) -> Place {
        Place::new(&Document::new(Source { name: "p.toml".to_owned(), text: text.to_owned() }), span)
    }

    #[test]
    fn columns_count_characters() {
        let at = place("a = 1\nö = \"é\" x", 16..17);
        assert_eq!((at.line(), at.column(), at.text()), (2, 9, "x"));
    }

    /// Beside the index: by reading the text up to the place.
    #[test]
    fn lines_and_columns_are_those_of_the_text() {
        let text = "ä\n\n".repeat(BLOCK) + &"öx".repeat(BLOCK) + "\nend";
        for at in text.char_indices().map(|(at, _)| at).chain([text.len()]) {
            let before = &text[..at];
            let line = 1 + before.matches('\n').count();
            let column = 1 + before.chars().rev().take_while(|&c| c != '\n').count();
            let place = place(&text, at..at);
            assert_eq!((place.line(), place.column()), (line, column), "{at}");
            assert_eq!(&text[place.lines()], text.split('\n').nth(line - 1).unwrap());
        }
    }

    #[test]
    fn a_span_is_widened_to_whole_characters_and_cut_at_the_end() {
        assert_eq!(place("aéb", 2..2).span(), 1..3);
        assert_eq!(place("aé", 1..99).span(), 1..3);
        assert_eq!(place("aé", 50..99).span(), 3..3);
    }
}
