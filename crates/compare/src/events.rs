//! Readers of the event file and the timings file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes read of an event file: more than a boot writes.
const MAX_EVENT_FILE_LEN: usize = 4 << 20;

/// A point that a guest's boot has reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// Identifier.
    pub key: String,
    /// Label.
    pub label: String,
    /// Nanoseconds since the start of the process that boots the guest.
    pub t_ns: u64,
}

/// The events of a file. Lines that are not events are skipped, and so is `plan`, which a comparison has as text.
pub(crate) fn events(file: &str) -> Vec<Value> {
    let end = file.len().min(MAX_EVENT_FILE_LEN);
    let end = (0..=end).rev().find(|at| file.is_char_boundary(*at)).unwrap_or(0);
    let lines = file.get(..end).unwrap_or_default().lines();
    let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
    lines.filter_map(parse).filter(|event| event["event"].is_string() && event["event"] != "plan").collect()
}

/// The phases of a timings file, in file order.
pub(crate) fn phases(file: &str) -> Vec<(String, u64)> {
    let object = serde_json::from_str::<Map<String, Value>>(file).unwrap_or_default();
    object.into_iter().filter_map(|(name, time)| Some((name, time.as_u64()?))).collect()
}

/// Label of a phase.
pub(crate) fn phase_label(name: &str) -> &str {
    match name {
        "profile" => "profile read",
        "memory" => "memory mapped",
        "kernel" => "kernel loaded",
        "tables" => "tables built",
        "vcpus" => "vCPUs set up",
        "first-run" => "first guest entry",
        "first-exit" => "first guest exit",
        "guest-shutdown" => "guest ended",
        other => other,
    }
}

/// The reason in the last `stopped` event. Only its first line: the rest is advice.
pub(crate) fn reason(events: &[Value]) -> Option<String> {
    let stopped = events.iter().rev().find(|event| event["event"] == "stopped")?;
    stopped["reason"].as_str()?.lines().next().map(crate::console::printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_events_are_skipped() {
        let file = "{\"event\":\"plan\"}\nnoise\n[1]\n{\"event\":3}\n{\"event\":\"stopped\",\"reason\":\"a\\u0007b\"}\n{\"event\":\"stop";
        let events = events(file);
        assert_eq!(events.len(), 1);
        assert_eq!(reason(&events), Some("a\\u{7}b".into()));
    }

    #[test]
    fn phases_keep_the_order_of_the_file() {
        assert_eq!(
            phases("{\"memory\": 2, \"kernel\": 1, \"x\": \"y\"}"),
            [("memory".into(), 2), ("kernel".into(), 1)]
        );
        assert_eq!(phases("no JSON"), []);
    }
}
