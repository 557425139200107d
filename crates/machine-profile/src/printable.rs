//! Text that does not change the terminal that it is shown on.
//!
//! Profiles, and names of files, may hold any character: control characters that move the cursor or change the terminal's
//! state (C0, DEL, C1), and those that make text read differently than it is (bidirectional formatting, line separators).
//! Whatever shows such a text uses one of these functions.

use std::borrow::Cow;

/// Whether a character only shows itself: it is neither a control character nor one that reorders or breaks lines.
#[must_use]
pub const fn is_printable(c: char) -> bool {
    // Bidi_Control (Unicode 16, PropList.txt), and the line and paragraph separators.
    !matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{2028}' | '\u{2029}')
}

/// A text on one line, with escapes (`\n`, `\u{1b}`) in place of characters that are not [printable](is_printable).
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    Cow::Owned(shown)
}

/// A text with its lines, in which characters that are not [printable](is_printable) are [`escaped`].
#[must_use]
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c == '\n' || is_printable(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(escaped).collect::<Vec<_>>().join("\n"))
}

/// JSON on one or more lines, in whose strings characters that are not [printable](is_printable) are escapes. JSON itself
/// demands that of C0 only.
#[must_use]
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(|c| c == '\n' || is_printable(c)) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_printable(c) {
            shown.push(c);
        } else {
            // All of them have four digits at most.
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    Cow::Owned(shown)
}

/// A text with its lines and tabs, in which every other character that is not [printable](is_printable) is replaced by one
/// of the same length: offsets stay what they are.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    let stays = |c: char| matches!(c, '\n' | '\r' | '\t') || is_printable(c);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mask = |c: char| match c.len_utf8() {
        _ if stays(c) => c,
        1 => '?',
        2 => '¿',
        _ => char::REPLACEMENT_CHARACTER,
    };
    Cow::Owned(text.chars().map(mask).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b[2J\x07\x7f\u{9b}31m\u{202e}\u{2069}\u{61c}\u{2028}é🦀\tb\nc";

    #[test]
    fn nothing_that_changes_a_terminal_is_left() {
        assert_eq!(
            escaped(HOSTILE),
            r"a\u{1b}[2J\u{7}\u{7f}\u{9b}31m\u{202e}\u{2069}\u{61c}\u{2028}é🦀\tb\nc"
        );
        assert_eq!(
            escaped_lines(HOSTILE),
            "a\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}31m\\u{202e}\\u{2069}\\u{61c}\\u{2028}é🦀\\tb\nc"
        );
        assert_eq!(masked(HOSTILE), "a?[2J??¿31m\u{fffd}\u{fffd}¿\u{fffd}é🦀\tb\nc");
        let json = serde_json::json!({ "a": HOSTILE });
        let shown = escaped_json(&format!("{json:#}")).into_owned();
        assert!(shown.chars().all(|c| c == '\n' || is_printable(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
        for c in ('\0'..=char::MAX).filter(|c| !is_printable(*c)) {
            assert!(escaped(&c.to_string()).bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            assert_eq!(masked(&c.to_string()).len(), c.len_utf8());
        }
        assert!(('\0'..=char::MAX).filter(|c| c.is_control()).all(|c| !is_printable(c)));
    }

    #[test]
    fn printable_text_is_not_copied() {
        let plain = "grüße 🦀";
        assert!(matches!(escaped(plain), Cow::Borrowed(_)));
        assert!(matches!(escaped_lines(plain), Cow::Borrowed(_)));
        assert!(matches!(masked(plain), Cow::Borrowed(_)));
    }
}
