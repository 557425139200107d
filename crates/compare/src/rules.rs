//! Which lines of a guest's console tell what: data, in `rules/*.toml`.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::console::Line;
use crate::pattern::Pattern;

/// What a rule's lines tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Topic {
    /// What the guest found.
    Found,
    /// How far its boot is.
    Milestone,
    /// What it makes of memory errors.
    Errors,
    /// How it fared in the end.
    End,
}

/// Which of the lines that match are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Show {
    /// The first.
    #[default]
    First,
    /// Each that says something new.
    Every,
    /// Only how many they are.
    Count,
}

/// Which error a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The one at this address.
    Address(u64),
    /// The one that the next line with an address is about.
    Next,
    /// The one that the last line with an address was about.
    Last,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleText {
    topic: Topic,
    key: String,
    label: Option<String>,
    when: String,
    #[serde(rename = "as")]
    shown_as: Option<String>,
    #[serde(default)]
    show: Show,
    none: Option<String>,
    address: Option<usize>,
    frame: Option<usize>,
    #[serde(default)]
    next: bool,
}

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    text: RuleText,
    pattern: Pattern,
}

/// All rules for a kind of guest.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

/// A row that rules make of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told<'r> {
    pub(crate) key: &'r str,
    pub(crate) label: &'r str,
    pub(crate) none: Option<&'r str>,
    pub(crate) values: Vec<String>,
}

/// A line about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ErrorLine {
    pub(crate) about: About,
    pub(crate) text: String,
}

/// The most values of a row: what is beyond is counted.
const MOST: usize = 32;

impl Rules {
    /// Those for the built-in guest, or for Linux.
    pub(crate) fn of(builtin: bool) -> &'static Rules {
        static PROBE: OnceLock<Rules> = OnceLock::new();
        static LINUX: OnceLock<Rules> = OnceLock::new();
        if builtin {
            PROBE.get_or_init(|| Rules::read(include_str!("../rules/probe.toml")).unwrap_or_else(none))
        } else {
            LINUX.get_or_init(|| Rules::read(include_str!("../rules/linux.toml")).unwrap_or_else(none))
        }
    }

    fn read(text: &str) -> Result<Rules, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            rule: Vec<RuleText>,
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let rule = |text: RuleText| {
            let pattern = Pattern::parse(&text.when).ok_or(format!("no pattern: {}", text.when))?;
            let most = [text.address, text.frame].into_iter().flatten().max().unwrap_or(0);
            if most > pattern.captures() {
                return Err(format!("no capture {most}: {}", text.when));
            }
            Ok(Rule { text, pattern })
        };
        file.rule.into_iter().map(rule).collect::<Result<_, _>>().map(Rules)
    }

    /// The rows that they make of lines, for one topic. Rules of the same key make one row.
    pub(crate) fn tell<'r, 'l>(
        &'r self,
        topic: Topic,
        lines: impl Iterator<Item = &'l Line> + Clone,
    ) -> Vec<Told<'r>> {
        let mut rows: Vec<Told<'r>> = Vec::new();
        for rule in self.0.iter().filter(|rule| rule.text.topic == topic) {
            let found = lines.clone().filter_map(|line| rule.shown(line));
            let mut values: Vec<String> = Vec::new();
            match rule.text.show {
                Show::First => values.extend(found.take(1)),
                Show::Count => {
                    let count = found.count();
                    values.extend((count > 0).then(|| count.to_string()));
                }
                Show::Every => {
                    let mut more = 0_usize;
                    for value in found {
                        if values.contains(&value) {
                            continue;
                        }
                        if values.len() < MOST { values.push(value) } else { more += 1 }
                    }
                    values.extend((more > 0).then(|| format!("and {more} more")));
                }
            }
            let RuleText { key, label, none, .. } = &rule.text;
            match rows.iter_mut().find(|row| row.key == key) {
                Some(row) => {
                    row.values.extend(values);
                    row.none = row.none.or(none.as_deref());
                }
                None => rows.push(Told {
                    key,
                    label: label.as_deref().unwrap_or(key),
                    none: none.as_deref(),
                    values,
                }),
            }
        }
        rows
    }

    /// The first line of each milestone.
    pub(crate) fn milestones<'l>(
        &self,
        lines: impl Iterator<Item = &'l Line> + Clone,
    ) -> Vec<(String, String, Line)> {
        let rules = self.0.iter().filter(|rule| rule.text.topic == Topic::Milestone);
        let found = rules.filter_map(|rule| {
            let line = lines.clone().find(|line| rule.pattern.find(&line.text).is_some())?;
            let label = rule.text.label.as_ref().unwrap_or(&rule.text.key);
            Some((rule.text.key.clone(), label.clone(), line.clone()))
        });
        let mut milestones: Vec<(String, String, Line)> = Vec::new();
        for milestone in found {
            if !milestones.iter().any(|(key, ..)| *key == milestone.0) {
                milestones.push(milestone);
            }
        }
        milestones
    }

    /// The lines about errors, in their order; what is told again (as by `dmesg`) is told once.
    pub(crate) fn errors<'l>(&self, lines: impl Iterator<Item = &'l Line>) -> Vec<ErrorLine> {
        let rules: Vec<&Rule> = self.0.iter().filter(|rule| rule.text.topic == Topic::Errors).collect();
        let mut seen = std::collections::HashSet::new();
        let mut told = Vec::new();
        for line in lines {
            let Some((rule, captures)) =
                rules.iter().find_map(|rule| Some((rule, rule.pattern.find(&line.text)?)))
            else {
                continue;
            };
            // With a time of Linux's the same words are the same line.
            if line.kernel_ns.is_some() && !seen.insert((line.kernel_ns, line.text.as_str())) {
                continue;
            }
            let number = |capture: usize| {
                let digits = captures.get(capture.checked_sub(1)?)?;
                u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
            };
            let address = rule.text.address.and_then(number);
            let frame = rule.text.frame.and_then(number).and_then(|frame| frame.checked_mul(4096));
            let otherwise = if rule.text.next { About::Next } else { About::Last };
            let about = address.or(frame).map_or(otherwise, About::Address);
            told.push(ErrorLine { about, text: rule.format(&line.text, &captures) });
        }
        told
    }
}

/// A rules file of this crate that cannot be read; tests see to it that there is none.
fn none(_: String) -> Rules {
    Rules(Vec::new())
}

impl Rule {
    fn shown(&self, line: &Line) -> Option<String> {
        self.pattern.find(&line.text).map(|captures| self.format(&line.text, &captures))
    }

    /// `{N}` is the Nth capture. Without words of its own a rule shows its captures, or the whole line where it has none.
    fn format(&self, line: &str, captures: &[&str]) -> String {
        let Some(template) = &self.text.shown_as else {
            return if captures.is_empty() {
                line.to_owned()
            } else {
                captures.iter().map(|capture| capture.trim()).collect::<Vec<_>>().join(" ")
            };
        };
        let mut shown = String::new();
        let mut rest = template.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            shown.push_str(before);
            let (number, after) = after.split_once('}').unwrap_or((after, ""));
            let capture =
                number.parse::<usize>().ok().and_then(|number| captures.get(number.checked_sub(1)?));
            shown.push_str(match (number, capture) {
                ("line", _) => line,
                (_, Some(capture)) => capture.trim(),
                _ => "",
            });
            rest = after;
        }
        shown + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Console;

    #[test]
    fn the_rules_of_this_crate_are_good() {
        for text in [include_str!("../rules/probe.toml"), include_str!("../rules/linux.toml")] {
            assert!(Rules::read(text).expect("rules").0.len() > 10);
        }
    }

    #[test]
    fn mistakes_are_told() {
        let rule =
            |more: &str| Rules::read(&format!("[[rule]]\ntopic = 'errors'\nkey = 'a'\n{more}")).unwrap_err();
        assert!(rule("when = '*'").contains("no pattern: *"));
        assert!(rule("when = 'at {}'\naddress = 2").contains("no capture 2"));
        assert!(rule("when = 'x'\nlike = 1").contains("unknown field"));
    }

    #[test]
    fn rows_are_made_of_lines() {
        let rules = Rules::read(
            "[[rule]]\ntopic = 'found'\nkey = 'cpu'\nlabel = 'CPUs'\nwhen = 'cpu {w} {w}'\nas = '{2} ({1}){3}'\nshow = 'every'\n\
             [[rule]]\ntopic = 'found'\nkey = 'cpu'\nwhen = 'boot'\nshow = 'count'\n",
        )
        .unwrap();
        let mut console = Console::default();
        console.push(0, b"cpu 0 boot\ncpu 1 online\ncpu 1 online\n");
        let rows = rules.tell(Topic::Found, console.lines());
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].label, &rows[0].values[..]),
            ("CPUs", &["boot (0)".into(), "online (1)".into(), "1".into()][..])
        );
    }
}
