//! Line wrapping.

use crate::console::printable;

/// Wraps text at blanks to lines of at most `width` characters; longer words are split. Returns at least one line. Every text
/// on a page passes through here: lines consist of printable ASCII, whatever the text holds.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = printable(text);
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() <= width {
            line.push(' ');
            used += 1;
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        used += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_longer_than_the_width() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("0123456789 x", 4), ["0123", "4567", "89 x"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
        assert_eq!(wrap("\x1b[2J\nx", 40), [r"\u{1b}[2Jx"]);
        let text = "a  b\u{e4}\u{e4}\u{e4} ccccccccccc d";
        assert!((1..20).all(|width| wrap(text, width).iter().all(|line| line.chars().count() <= width)));
    }
}
