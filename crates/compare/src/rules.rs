//! Rules that interpret console lines: data, in `rules/*.toml`.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::console::Line;
use crate::pattern::Pattern;

/// Subject of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Topic {
    /// The platform as the guest detected it.
    Found,
    /// Progress of the boot.
    Milestone,
    /// The guest's handling of memory errors.
    Errors,
    /// The guest's state at its end.
    End,
}

/// Which matching lines a row shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Show {
    /// The first one.
    #[default]
    First,
    /// Every distinct one.
    Every,
    /// Only their number.
    Count,
}

/// Which error a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The error at this address.
    Address(u64),
    /// The error of the next line that has an address.
    Next,
    /// The error of the last line that had an address.
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

/// All rules for one kind of guest.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

/// A row made from one console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsoleRow<'r> {
    pub(crate) key: &'r str,
    pub(crate) label: &'r str,
    /// Shown if `values` is empty.
    pub(crate) none: Option<&'r str>,
    pub(crate) values: Vec<String>,
}

/// A line about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ErrorLine {
    pub(crate) about: About,
    pub(crate) text: String,
}

/// Maximum number of values of a row. Further ones are only counted.
const MAX_VALUES: usize = 32;

impl Rules {
    /// The rules for the built-in guest, or those for Linux.
    ///
    /// # Panics
    /// Panics if the file, which is part of this program, is invalid: a comparison without rules would show two empty sides.
    pub(crate) fn of(builtin: bool) -> &'static Rules {
        static PROBE: OnceLock<Rules> = OnceLock::new();
        static LINUX: OnceLock<Rules> = OnceLock::new();
        let (rules, name, text) = if builtin {
            (&PROBE, "rules/probe.toml", include_str!("../rules/probe.toml"))
        } else {
            (&LINUX, "rules/linux.toml", include_str!("../rules/linux.toml"))
        };
        rules.get_or_init(|| Rules::read(text).unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn read(text: &str) -> Result<Rules, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            rule: Vec<RuleText>,
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let rule = |text: RuleText| {
            let pattern = Pattern::parse(&text.when).ok_or(format!("invalid pattern: {}", text.when))?;
            let highest = [text.address, text.frame].into_iter().flatten().max().unwrap_or(0);
            if highest > pattern.captures() {
                return Err(format!("no capture {highest}: {}", text.when));
            }
            Ok(Rule { text, pattern })
        };
        file.rule.into_iter().map(rule).collect::<Result<_, _>>().map(Rules)
    }

    /// The rows of one topic. Rules with the same key contribute to one row.
    pub(crate) fn rows<'r, 'l>(
        &'r self,
        topic: Topic,
        lines: impl Iterator<Item = &'l Line> + Clone,
    ) -> Vec<ConsoleRow<'r>> {
        let mut rows: Vec<ConsoleRow<'r>> = Vec::new();
        for rule in self.0.iter().filter(|rule| rule.text.topic == topic) {
            let shown = lines.clone().filter_map(|line| rule.shown(line));
            let mut values: Vec<String> = Vec::new();
            match rule.text.show {
                Show::First => values.extend(shown.take(1)),
                Show::Count => {
                    let count = shown.count();
                    values.extend((count > 0).then(|| count.to_string()));
                }
                Show::Every => {
                    let mut more = 0_usize;
                    for value in shown {
                        if values.contains(&value) {
                            continue;
                        }
                        if values.len() < MAX_VALUES { values.push(value) } else { more += 1 }
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
                None => rows.push(ConsoleRow {
                    key,
                    label: label.as_deref().unwrap_or(key),
                    none: none.as_deref(),
                    values,
                }),
            }
        }
        rows
    }

    /// Key, label and first line of each milestone.
    pub(crate) fn milestones<'l>(
        &self,
        lines: impl Iterator<Item = &'l Line> + Clone,
    ) -> Vec<(String, String, Line)> {
        let rules = self.0.iter().filter(|rule| rule.text.topic == Topic::Milestone);
        let reached = rules.filter_map(|rule| {
            let line = lines.clone().find(|line| rule.pattern.find(&line.text).is_some())?;
            let label = rule.text.label.as_ref().unwrap_or(&rule.text.key);
            Some((rule.text.key.clone(), label.clone(), line.clone()))
        });
        let mut milestones: Vec<(String, String, Line)> = Vec::new();
        for milestone in reached {
            if !milestones.iter().any(|(key, ..)| *key == milestone.0) {
                milestones.push(milestone);
            }
        }
        milestones
    }

    /// The lines about errors, in order. A kernel message that is printed again, as by `dmesg`, is included once.
    pub(crate) fn errors<'l>(&self, lines: impl Iterator<Item = &'l Line>) -> Vec<ErrorLine> {
        let rules: Vec<&Rule> = self.0.iter().filter(|rule| rule.text.topic == Topic::Errors).collect();
        let mut seen = std::collections::HashSet::new();
        let mut errors = Vec::new();
        for line in lines {
            let Some((rule, captures)) =
                rules.iter().find_map(|rule| Some((rule, rule.pattern.find(&line.text)?)))
            else {
                continue;
            };
            // The same text with the same kernel timestamp is the same message.
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
            errors.push(ErrorLine { about, text: rule.format(&line.text, &captures) });
        }
        errors
    }
}

impl Rule {
    fn shown(&self, line: &Line) -> Option<String> {
        self.pattern.find(&line.text).map(|captures| self.format(&line.text, &captures))
    }

    /// Expands the rule's template: `{N}` is the Nth capture, `{line}` the line. Without a template, the captures are shown, or
    /// the whole line if there are none.
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
    fn the_rules_of_this_crate_are_valid() {
        for builtin in [true, false] {
            assert!(Rules::of(builtin).0.len() > 10);
        }
    }

    #[test]
    fn invalid_rules_are_reported() {
        let rule =
            |more: &str| Rules::read(&format!("[[rule]]\ntopic = 'errors'\nkey = 'a'\n{more}")).unwrap_err();
        assert!(rule("when = '*'").contains("invalid pattern: *"));
        assert!(rule("when = 'at {}'\naddress = 2").contains("no capture 2"));
        assert!(rule("when = 'x'\nlike = 1").contains("unknown field"));
    }

    #[test]
    fn rules_make_rows_from_lines() {
        let rules = Rules::read(
            "[[rule]]\ntopic = 'found'\nkey = 'cpu'\nlabel = 'CPUs'\nwhen = 'cpu {w} {w}'\nas = '{2} ({1}){3}'\nshow = 'every'\n\
             [[rule]]\ntopic = 'found'\nkey = 'cpu'\nwhen = 'boot'\nshow = 'count'\n",
        )
        .unwrap();
        let mut console = Console::default();
        console.push(0, b"cpu 0 boot\ncpu 1 online\ncpu 1 online\n");
        let rows = rules.rows(Topic::Found, console.lines());
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].label, &rows[0].values[..]),
            ("CPUs", &["boot (0)".into(), "online (1)".into(), "1".into()][..])
        );
    }
}
