//! Patterns of console lines: text, and what varies in it.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `^` at its start | the line's start; without it, a pattern may begin anywhere, with text |
//! | `*` | anything, as short as possible |
//! | `{}` | the same, captured; at the end of a pattern, the rest of the line |
//! | `{w}` | one word, captured: something without blanks |
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
    /// Reads a pattern; none where two gaps touch each other, it begins anywhere with one, or there is no text in it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (anchored, mut rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let gaps = [("{}", true, false), ("{w}", true, true), ("*", false, false)];
            let gap = gaps.iter().find_map(|(sign, captured, word)| {
                rest.strip_prefix(sign).map(|after| (after, Part::Any { captured: *captured, word: *word }))
            });
            if let Some((after, gap)) = gap {
                if matches!(parts.last(), Some(Part::Any { .. })) {
                    return None;
                }
                parts.push(gap);
                rest = after;
            } else {
                let end = ["{}", "{w}", "*"].iter().filter_map(|sign| rest.find(sign)).min();
                let (text, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
                parts.push(Part::Text(text.to_owned()));
                rest = after;
            }
        }
        let is_text = |part: &Part| matches!(part, Part::Text(_));
        let is_good = parts.iter().any(is_text) && (anchored || parts.first().is_some_and(is_text));
        is_good.then_some(Pattern { anchored, parts })
    }

    /// How many captures it has.
    pub(crate) fn captures(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Any { captured: true, .. })).count()
    }

    /// What is captured of a line (printable ASCII) that it matches.
    pub(crate) fn find<'l>(&self, line: &'l str) -> Option<Vec<&'l str>> {
        if self.anchored {
            return follow(&self.parts, line);
        }
        let Some((Part::Text(text), rest)) = self.parts.split_first() else { return None };
        // A later occurrence is tried where the first one does not go on as it should.
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
    fn gaps_are_as_short_as_possible() {
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
    fn what_does_not_match_has_no_captures() {
        assert_eq!(find("^done", "well done"), None);
        assert_eq!(find("at {w} in", "at two words in"), None);
        assert_eq!(find("at {w} in", "at two words, at one in"), Some(vec!["one"]));
        assert_eq!(find("a{}b", "a"), None);
        assert_eq!(find("^{w}!", ""), None);
    }

    #[test]
    fn patterns_without_text_or_with_touching_gaps_are_none() {
        for text in ["", "^", "*", "{}", "a{}*b", "{}{w}", "{w} at", "^{}"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
