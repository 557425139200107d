//! Patterns for console lines: literal text and wildcards.
//!
//! | in a pattern | matches |
//! |---|---|
//! | `^` at its start | the line's start; without it, a pattern matches anywhere and starts with text |
//! | `*` | any text, as short as possible |
//! | `{}` | the same, captured; at the end of a pattern, the rest of the line |
//! | `{w}` | one word, captured: non-empty text without blanks |
//! | anything else | itself |

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    anchored: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Any { captured: bool, word: bool },
}

impl Pattern {
    /// Parses a pattern. `None` if two wildcards are adjacent, an unanchored pattern starts with a wildcard, or it contains
    /// no text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (anchored, mut rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let wildcards = [("{}", true, false), ("{w}", true, true), ("*", false, false)];
            let wildcard = wildcards.iter().find_map(|(sign, captured, word)| {
                rest.strip_prefix(sign).map(|after| (after, Part::Any { captured: *captured, word: *word }))
            });
            if let Some((after, wildcard)) = wildcard {
                if matches!(parts.last(), Some(Part::Any { .. })) {
                    return None;
                }
                parts.push(wildcard);
                rest = after;
            } else {
                let end = ["{}", "{w}", "*"].iter().filter_map(|sign| rest.find(sign)).min();
                let (text, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
                parts.push(Part::Text(text.to_owned()));
                rest = after;
            }
        }
        let is_text = |part: &Part| matches!(part, Part::Text(_));
        let is_valid = parts.iter().any(is_text) && (anchored || parts.first().is_some_and(is_text));
        is_valid.then_some(Pattern { anchored, parts })
    }

    /// Number of captures.
    pub(crate) fn captures(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Any { captured: true, .. })).count()
    }

    /// The captures if the pattern matches a line (printable ASCII).
    pub(crate) fn find<'l>(&self, line: &'l str) -> Option<Vec<&'l str>> {
        if self.anchored {
            return follow(&self.parts, line);
        }
        let Some((Part::Text(text), rest)) = self.parts.split_first() else { return None };
        // If the text after the first occurrence does not match, later occurrences are tried.
        line.match_indices(text.as_str()).find_map(|(at, _)| follow(rest, line.get(at + text.len()..)?))
    }
}

fn follow<'l>(parts: &[Part], mut line: &'l str) -> Option<Vec<&'l str>> {
    let mut captures = Vec::new();
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Text(text) => line = line.strip_prefix(text.as_str())?,
            Part::Any { captured, word } => {
                let end = match parts.peek() {
                    Some(Part::Text(text)) => line.find(text.as_str())?,
                    _ if *word => line.find(' ').unwrap_or(line.len()),
                    _ => line.len(),
                };
                let (taken, rest) = line.split_at_checked(end)?;
                if *word && (taken.is_empty() || taken.contains(' ')) {
                    return None;
                }
                if *captured {
                    captures.push(taken);
                }
                line = rest;
            }
        }
    }
    Some(captures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'l>(pattern: &str, line: &'l str) -> Option<Vec<&'l str>> {
        Pattern::parse(pattern).expect("a pattern").find(line)
    }

    #[test]
    fn wildcards_match_as_little_as_possible() {
        assert_eq!(
            find("Brought up {w} node*, {w} CPU", "smp: Brought up 1 node, 4 CPUs"),
            Some(vec!["1", "4"])
        );
        assert_eq!(
            find("^{w} *: registered as {}", "rtc-pl031 9010000.rtc: registered as rtc0"),
            Some(vec!["rtc-pl031", "rtc0"])
        );
        assert_eq!(find("a{}b", "xaab"), Some(vec!["a"]));
        assert_eq!(find("at {w}", "error at 0x10 in user"), Some(vec!["0x10"]));
        assert_eq!(find("done", "well done"), Some(vec![]));
    }

    #[test]
    fn a_line_that_does_not_match_has_no_captures() {
        assert_eq!(find("^done", "well done"), None);
        assert_eq!(find("at {w} in", "at two words in"), None);
        assert_eq!(find("at {w} in", "at two words, at one in"), Some(vec!["one"]));
        assert_eq!(find("a{}b", "a"), None);
        assert_eq!(find("^{w}!", ""), None);
    }

    #[test]
    fn patterns_without_text_or_with_adjacent_wildcards_are_rejected() {
        for text in ["", "^", "*", "{}", "a{}*b", "{}{w}", "{w} at", "^{}"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
