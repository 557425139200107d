//! The script of a console: what to wait for, and what to do then.

use serde::Deserialize;

/// One step; steps are taken in order, each when its text has come after the one before.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Text on the guest's console to wait for.
    pub(crate) expect: String,
    /// Typed on the guest's console then.
    pub(crate) send: Option<String>,
    /// Shell command run on the host then, in the scenario's directory.
    pub(crate) host: Option<String>,
    /// As `host`; the last line that it prints is typed on the guest's console.
    pub(crate) answer: Option<String>,
}

/// Where a console's script stands.
pub(crate) struct Conversation<'a> {
    steps: &'a [Step],
    /// The text that is waited for does not begin before here in the transcript.
    from: usize,
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(steps: &'a [Step]) -> Self {
        Self { steps, from: 0 }
    }

    /// The next step that the transcript so far calls for.
    pub(crate) fn next(&mut self, transcript: &[u8]) -> Option<&'a Step> {
        let (step, rest) = self.steps.split_first()?;
        let ahead = transcript.get(self.from..)?;
        let Some(at) = find(ahead, step.expect.as_bytes()) else {
            // Its beginning may be the transcript's end.
            self.from = self.from.max((transcript.len() + 1).saturating_sub(step.expect.len()));
            return None;
        };
        self.from += at + step.expect.len();
        self.steps = rest;
        Some(step)
    }

    /// The text that is still waited for.
    pub(crate) fn waits_for(&self) -> Option<&'a str> {
        self.steps.first().map(|step| step.expect.as_str())
    }
}

/// Where `needle` first begins in `haystack`.
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
        Step { expect: expect.into(), send: Some(send.into()), host: None, answer: None }
    }

    #[test]
    fn steps_are_taken_in_order_and_once() {
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
}
