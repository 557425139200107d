//! The course of one memory error: from its report by the host to the guest's reaction.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::console::printable;
use crate::rules::{About, ErrorLine};

/// Everything that was recorded about one poisoned range of guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Story {
    /// Guest physical address of its first byte.
    pub gpa: u64,
    /// Length in bytes.
    pub span: u64,
    /// Reports of it to the VMM, in order.
    pub seen: Vec<Seen>,
    /// Error records written for it.
    pub records: Vec<Record>,
    /// Notifications of the guest.
    pub notified: Vec<Notified>,
    /// Acknowledgements by the guest.
    pub acknowledged: Vec<Acknowledged>,
    /// Names of events that delayed or merged a report: `queued`, `coalesced`, `overdue`, `overflowed`, `not-reported`, `not-repaired`.
    pub troubles: Vec<String>,
    /// Whether new memory replaced it.
    pub repaired: bool,
    /// Console lines of the guest about it.
    pub guest: Vec<String>,
}

/// A report of a memory error to the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Nanoseconds since the start of the process.
    pub t_ns: u64,
    /// `AR`, `AO` or `CE`.
    pub class: String,
    /// The vCPU that consumed it; `None` for a detected error.
    pub vcpu: Option<u64>,
    /// Its origin, such as `sigbus` or `injected`.
    pub origin: String,
    /// The planned response.
    pub response: String,
}

/// An error record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// Id of the error source.
    pub source: u64,
    /// Guest physical address of the status block.
    pub address: u64,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// Nanoseconds since the start of the process.
    pub t_ns: u64,
    /// The mechanism, such as `error-event` or `machine-check`.
    pub how: String,
    /// The vCPU that takes it; `None` for an interrupt to any vCPU.
    pub vcpu: Option<u64>,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Id of the error source.
    pub source: u64,
    /// Nanoseconds after the record was written.
    pub after_ns: u64,
}

/// Maximum number of errors of a boot.
const MAX_STORIES: usize = 64;

impl Story {
    /// The memory errors of a boot in order of their first report, and the lines that belong to none of them.
    pub(crate) fn all(events: &[Value], lines: Vec<ErrorLine>) -> (Vec<Story>, Vec<String>) {
        let mut stories = Vec::new();
        // A notification event has no address: it belongs to the last error that was reported or recorded.
        let mut current = None;
        for event in events {
            add(event, &mut stories, &mut current);
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

/// Adds an event to the error that it belongs to.
fn add(event: &Value, stories: &mut Vec<Story>, current: &mut Option<usize>) {
    let text = |key: &str| printable(event[key].as_str().unwrap_or_default());
    let number = |key: &str| event[key].as_u64();
    let name = event["event"].as_str().unwrap_or_default();
    if let (Some(gpa), Some(span)) = (number("gpa"), number("span")) {
        let span = span.max(1);
        let gpa = if span.is_power_of_two() { gpa & !(span - 1) } else { gpa };
        let known = stories.iter().position(|story| story.holds(gpa));
        *current = known.or_else(|| {
            if name != "memory-error" || stories.len() == MAX_STORIES {
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
        "queued" | "coalesced" | "overdue" | "overflowed" | "not-reported" | "not-repaired"
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
    fn events_and_lines_are_attributed_to_their_error() {
        let lines = vec![
            line(About::Next, "interrupt"),
            line(About::Address(0x2008), "page"),
            line(About::Last, "acknowledged"),
            line(About::Address(0x5123), "offlined"),
            line(About::Next, "late"),
        ];
        let (stories, other) = Story::all(&errors(), lines);
        let shape: Vec<_> = stories
            .iter()
            .map(|it| (it.gpa, it.seen.len(), it.records.len(), it.acknowledged.len()))
            .collect();
        assert_eq!(shape, [(0x2000, 2, 1, 1), (0x5000, 1, 0, 0)]);
        assert_eq!(stories[0].guest, ["interrupt", "page", "acknowledged"]);
        assert_eq!(stories[1].guest, ["offlined", "late"]);
        assert_eq!(stories[1].notified[0].how, "machine-check");
        assert!(other.is_empty());
    }

    #[test]
    fn lines_without_an_error_are_returned_separately() {
        let (stories, other) = Story::all(&[], vec![line(About::Address(1), "a"), line(About::Next, "b")]);
        assert!(stories.is_empty());
        assert_eq!(other, ["a", "b"]);
    }
}
