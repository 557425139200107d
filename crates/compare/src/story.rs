//! One memory error, from the host's first word of it to the guest's last.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::console::printable;
use crate::rules::{About, ErrorLine};

/// Everything that is known of one lost span of the guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Story {
    /// Its first byte.
    pub gpa: u64,
    /// Its bytes.
    pub span: u64,
    /// What the VMM heard of it, in order.
    pub seen: Vec<Seen>,
    /// Records that were written.
    pub records: Vec<Record>,
    /// How the guest was told.
    pub notified: Vec<Notified>,
    /// What the guest acknowledged.
    pub acknowledged: Vec<Acknowledged>,
    /// What did not go smoothly: names of events.
    pub troubles: Vec<String>,
    /// Fresh memory took its place.
    pub repaired: bool,
    /// What the guest said of it.
    pub guest: Vec<String>,
}

/// A memory error as it came to the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When: nanoseconds since the start of the process.
    pub t_ns: u64,
    /// `AR` or `AO`.
    pub class: String,
    /// The vCPU that consumed it.
    pub vcpu: Option<u64>,
    /// Where it came from.
    pub origin: String,
    /// What the plan answers.
    pub response: String,
}

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// Of which error source.
    pub source: u64,
    /// Where.
    pub address: u64,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// When: nanoseconds since the start of the process.
    pub t_ns: u64,
    /// How.
    pub how: String,
    /// Which vCPU takes it.
    pub vcpu: Option<u64>,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Of which error source.
    pub source: u64,
    /// Nanoseconds after it was told.
    pub after_ns: u64,
}

/// The most stories of a boot: a guest cannot make errors, but a host can have many.
const MOST: usize = 64;

impl Story {
    /// The stories of a boot, in the order in which they begin. Lines that are about none of them are given back.
    pub(crate) fn all(events: &[Value], lines: Vec<ErrorLine>) -> (Vec<Story>, Vec<String>) {
        let mut stories = Vec::new();
        // Notifications do not say of what they are: of what was last heard of, or written.
        let mut current = None;
        for event in events {
            tell(event, &mut stories, &mut current);
        }
        let mut other = Vec::new();
        let mut last = None;
        let mut waiting: Vec<String> = Vec::new();
        for ErrorLine { about, text } in lines {
            let place = match about {
                About::Next => {
                    waiting.push(text);
                    continue;
                }
                About::Last => last,
                About::Address(address) => {
                    let place = stories.iter().position(|story| story.holds(address));
                    last = place.or(last);
                    place
                }
            };
            let place = place.or((stories.len() == 1).then_some(0));
            put(&mut stories, place, &mut other, waiting.drain(..).chain([text]));
        }
        let place = last.or((stories.len() == 1).then_some(0));
        put(&mut stories, place, &mut other, waiting.into_iter());
        (stories, other)
    }

    fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.gpa).is_some_and(|offset| offset < self.span.max(1))
    }
}

fn put(
    stories: &mut [Story],
    place: Option<usize>,
    other: &mut Vec<String>,
    texts: impl Iterator<Item = String>,
) {
    match place.and_then(|place| stories.get_mut(place)) {
        Some(story) => story.guest.extend(texts),
        None => other.extend(texts),
    }
}

/// Adds an event to the story that it belongs to.
fn tell(event: &Value, stories: &mut Vec<Story>, current: &mut Option<usize>) {
    let text = |key: &str| printable(event[key].as_str().unwrap_or_default());
    let number = |key: &str| event[key].as_u64();
    let name = event["event"].as_str().unwrap_or_default();
    if let (Some(gpa), Some(span)) = (number("gpa"), number("span")) {
        let span = span.max(1);
        let gpa = if span.is_power_of_two() { gpa & !(span - 1) } else { gpa };
        let known = stories.iter().position(|story| story.holds(gpa));
        *current = known.or_else(|| {
            if name != "memory-error" || stories.len() == MOST {
                return None;
            }
            stories.push(Story { gpa, span, ..Story::default() });
            Some(stories.len() - 1)
        });
    }
    let Some(story) = current.and_then(|at| stories.get_mut(at)) else { return };
    let t_ns = number("t_ns").unwrap_or_default();
    match name {
        "memory-error" => story.seen.push(Seen {
            t_ns,
            class: text("class"),
            vcpu: number("vcpu"),
            origin: text("origin"),
            response: text("response"),
        }),
        "record-written" => story.records.push(Record {
            source: number("source").unwrap_or_default(),
            address: number("address").unwrap_or_default(),
        }),
        "notified" => story.notified.push(Notified { t_ns, how: text("how"), vcpu: number("vcpu") }),
        "acknowledged" => story.acknowledged.push(Acknowledged {
            source: number("source").unwrap_or_default(),
            after_ns: number("after_ns").unwrap_or_default(),
        }),
        "queued" | "coalesced" | "overdue" | "overflowed" | "not-repaired"
            if !story.troubles.iter().any(|trouble| trouble == name) =>
        {
            story.troubles.push(name.to_owned());
        }
        "repaired" => story.repaired = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(about: About, text: &str) -> ErrorLine {
        ErrorLine { about, text: text.into() }
    }

    fn errors() -> Vec<Value> {
        vec![
            json!({ "t_ns": 1, "event": "memory-error", "class": "AO", "gpa": 0x2000, "span": 4096, "origin": "sigbus", "response": "gsiv" }),
            json!({ "t_ns": 2, "event": "record-written", "gpa": 0x2000, "span": 4096, "source": 1, "address": 0x9000 }),
            json!({ "t_ns": 3, "event": "notified", "how": "error-event" }),
            json!({ "t_ns": 4, "event": "memory-error", "class": "AR", "gpa": 0x5123, "span": 4096, "vcpu": 1, "origin": "sigbus", "response": "mce" }),
            json!({ "t_ns": 5, "event": "notified", "how": "machine-check", "vcpu": 1 }),
            json!({ "t_ns": 6, "event": "acknowledged", "gpa": 0x2000, "span": 4096, "source": 1, "after_ns": 4 }),
            json!({ "t_ns": 7, "event": "memory-error", "class": "AR", "gpa": 0x2008, "span": 4096, "vcpu": 0, "origin": "sigbus", "response": "mce" }),
        ]
    }

    #[test]
    fn events_and_lines_go_to_their_error() {
        let lines = vec![
            line(About::Next, "interrupt"),
            line(About::Address(0x2008), "page"),
            line(About::Last, "acknowledged"),
            line(About::Address(0x5123), "gave up"),
            line(About::Next, "late"),
        ];
        let (stories, other) = Story::all(&errors(), lines);
        let shape: Vec<_> = stories
            .iter()
            .map(|it| (it.gpa, it.seen.len(), it.records.len(), it.acknowledged.len()))
            .collect();
        assert_eq!(shape, [(0x2000, 2, 1, 1), (0x5000, 1, 0, 0)]);
        assert_eq!(stories[0].guest, ["interrupt", "page", "acknowledged"]);
        assert_eq!(stories[1].guest, ["gave up", "late"]);
        assert_eq!(stories[1].notified[0].how, "machine-check");
        assert!(other.is_empty());
    }

    #[test]
    fn lines_without_an_error_are_told_apart() {
        let (stories, other) = Story::all(&[], vec![line(About::Address(1), "a"), line(About::Next, "b")]);
        assert!(stories.is_empty());
        assert_eq!(other, ["a", "b"]);
    }
}
