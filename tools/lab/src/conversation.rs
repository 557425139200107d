//! The script of a console: what to wait for, which words to capture, and what to do then.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};

/// One step. Steps are taken in order, each once its text has appeared after that of the previous step.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Text on the guest's console to wait for.
    pub(crate) expect: String,
    /// Words of the line that contains `expect`, by name: `{ page = "gpa" }` is the word that follows `gpa` after `expect`.
    /// It is the shell variable `page` in the commands of this step and of later ones. A line without it does not match.
    #[serde(default)]
    pub(crate) capture: BTreeMap<String, String>,
    /// Typed on the guest's console then.
    pub(crate) send: Option<String>,
    /// Shell command that is then run on the host, in the scenario's directory.
    pub(crate) host: Option<String>,
    /// The same; the last line that it prints is typed on the guest's console.
    pub(crate) answer: Option<String>,
    /// The same; the last line that it prints is a command of the emulator's monitor, in the form of QMP.
    pub(crate) monitor: Option<String>,
    /// How many times the step is taken.
    #[serde(default = "once")]
    pub(crate) times: usize,
}

fn once() -> usize {
    1
}

impl Step {
    pub(crate) fn check(&self) -> Result<()> {
        let commands = [&self.host, &self.answer, &self.monitor];
        if let Some(command) = commands.into_iter().flatten().find(|command| command.contains('\n')) {
            return Err(Error::new(format!("a step's command is one line: {command:?}")));
        }
        let is_variable = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if self.times == 0 {
            return Err(Error::new(format!("step {:?}: times = 0", self.expect)));
        }
        let is_word = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
        let bad = self.capture.iter().find(|(name, word)| !is_variable(name) || !is_word(word));
        bad.map_or(Ok(()), |(name, word)| {
            Err(Error::new(format!(
                "capture: {name:?} = {word:?}: a variable and the word before its value are expected"
            )))
        })
    }
}

/// Words of the console, by the names that a scenario gives them.
pub(crate) type Words = BTreeMap<String, String>;

/// The state of a console's script.
pub(crate) struct Conversation<'a> {
    steps: &'a [Step],
    /// How many times the first of them was taken.
    taken: usize,
    /// The expected text does not begin before this position of the transcript.
    from: usize,
    /// Captured words, by name.
    captured: Words,
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(steps: &'a [Step]) -> Self {
        Self { steps, taken: 0, from: 0, captured: Words::new() }
    }

    /// The next step whose text is in the transcript; `None` if more has to be read.
    pub(crate) fn next(&mut self, transcript: &[u8]) -> Option<&'a Step> {
        let (step, rest) = self.steps.split_first()?;
        loop {
            let ahead = transcript.get(self.from..)?;
            let Some(at) = find(ahead, step.expect.as_bytes()) else {
                // The text may begin at the end of the transcript.
                self.from = self.from.max((transcript.len() + 1).saturating_sub(step.expect.len()));
                return None;
            };
            let end = at + step.expect.len();
            if !step.capture.is_empty() {
                let after = ahead.get(end..)?;
                // The line is not complete yet.
                let line = after.get(..find(after, b"\n")?)?;
                let Some(captured) = capture(&step.capture, &String::from_utf8_lossy(line)) else {
                    self.from += end;
                    continue;
                };
                self.captured.extend(captured);
            }
            self.from += end;
            self.taken += 1;
            if self.taken >= step.times {
                (self.steps, self.taken) = (rest, 0);
            }
            return Some(step);
        }
    }

    /// A step's command, preceded by assignments of the captured words.
    pub(crate) fn command(&self, command: &str) -> String {
        let assign = |(name, word): (&String, &String)| format!("{name}={word}; ");
        self.captured.iter().map(assign).collect::<String>() + command
    }

    /// The captured words.
    pub(crate) fn into_words(self) -> Words {
        self.captured
    }

    /// The text that has not appeared yet.
    pub(crate) fn waits_for(&self) -> Option<&'a str> {
        self.steps.first().map(|step| step.expect.as_str())
    }
}

/// The requested words; `None` if one is missing. The guest's output must not become shell code: only letters, digits and a few
/// characters without a meaning to a shell are accepted.
fn capture(wanted: &BTreeMap<String, String>, line: &str) -> Option<Words> {
    let is_plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c));
    let word = |(name, before): (&String, &String)| {
        let mut words = line.split_whitespace().skip_while(|word| word != before);
        Some((name.clone(), words.nth(1).filter(is_plain)?.to_owned()))
    };
    wanted.iter().map(word).collect()
}

/// The names after a `$` in a text.
pub(crate) fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(name_at_start).filter(|name| !name.is_empty())
}

/// A text with its variables replaced by words.
pub(crate) fn fill_in(text: &str, words: &Words) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = name_at_start(part);
        match words.get(name) {
            Some(word) => filled += word,
            None => filled += &format!("${name}"),
        }
        filled += part.strip_prefix(name).unwrap_or_default();
    }
    filled
}

fn name_at_start(text: &str) -> &str {
    let is_other = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split(is_other).next().unwrap_or_default()
}

/// The position of the first `needle` in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(expect: &str, send: &str) -> Step {
        let capture = BTreeMap::new();
        Step {
            expect: expect.into(),
            capture,
            send: Some(send.into()),
            host: None,
            answer: None,
            monitor: None,
            times: 1,
        }
    }

    fn capturing(expect: &str, name: &str, word: &str) -> Step {
        Step { capture: [(name.into(), word.into())].into(), ..step(expect, "") }
    }

    #[test]
    fn steps_are_taken_once_and_in_order() {
        let steps = [step("name? ", "a\n"), step("name? ", "b\n"), step("bye", "")];
        let mut conversation = Conversation::new(&steps);
        let mut transcript = Vec::new();
        for byte in b"boot\nname?" {
            transcript.push(*byte);
            assert_eq!(conversation.next(&transcript), None);
        }
        transcript.push(b' ');
        assert_eq!(conversation.next(&transcript), Some(&steps[0]));
        assert_eq!(conversation.next(&transcript), None);
        transcript.extend(b"name? bye");
        assert_eq!(conversation.next(&transcript), Some(&steps[1]));
        assert_eq!(conversation.waits_for(), Some("bye"));
        assert_eq!(conversation.next(&transcript), Some(&steps[2]));
        assert_eq!(conversation.waits_for(), None);
    }

    #[test]
    fn a_step_is_taken_the_given_number_of_times() {
        let steps = [Step { times: 2, ..step("round", "") }, step("end", "")];
        let mut conversation = Conversation::new(&steps);
        let transcript = b"round one\nround two\nround three\nend";
        for _ in 0..2 {
            assert_eq!(conversation.next(transcript), Some(&steps[0]));
        }
        assert_eq!(conversation.next(transcript), Some(&steps[1]));
        assert_eq!(conversation.next(transcript), None);
    }

    #[test]
    fn variables_are_replaced_by_words() {
        let words = [("page".to_owned(), "0x2000".to_owned())].into();
        assert_eq!(fill_in("at $page, $pages, 1$", &words), "at 0x2000, $pages, 1$");
        assert_eq!(variables("at $page, 1$ $a_1x").collect::<Vec<_>>(), ["page", "a_1x"]);
    }

    #[test]
    fn words_of_a_whole_line_become_variables() {
        let steps = [capturing("page 0", "first", "gpa"), capturing("page 1", "second", "gpa")];
        let mut conversation = Conversation::new(&steps);
        let mut transcript = b"victim page 0 has no address yet\r\nvictim page 0 va 0x1 gpa 0x20".to_vec();
        assert_eq!(conversation.next(&transcript), None, "the line is not complete");
        transcript.extend(b"00\r\nvictim page 1 gpa $(reboot)\nvictim page 1 gpa 0x3000\n");
        assert_eq!(conversation.next(&transcript), Some(&steps[0]));
        assert_eq!(conversation.command("poison $first"), "first=0x2000; poison $first");
        assert_eq!(conversation.next(&transcript), Some(&steps[1]));
        assert_eq!(conversation.command("x"), "first=0x2000; second=0x3000; x");
        assert_eq!(conversation.into_words()["second"], "0x3000");
    }
}
