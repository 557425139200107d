//! The event file and the timings file, as the facts that are compared.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of an event file that are read: more than any boot writes.
const MOST: usize = 4 << 20;

/// Something that was reached in a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// Its name for programs.
    pub key: String,
    /// Its name for people.
    pub label: String,
    /// When: nanoseconds since the start of the process that boots the guest.
    pub t_ns: u64,
}

/// The events of a file; what is no event is passed over. The plan, which a comparison has in words, is left out.
pub(crate) fn events(file: &str) -> Vec<Value> {
    let end = file.len().min(MOST);
    let end = (0..=end).rev().find(|at| file.is_char_boundary(*at)).unwrap_or(0);
    let lines = file.get(..end).unwrap_or_default().lines();
    let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
    lines.filter_map(parse).filter(|event| event["event"].is_string() && event["event"] != "plan").collect()
}

/// The phases of a timings file, in their order.
pub(crate) fn phases(file: &str) -> Vec<(String, u64)> {
    let object = serde_json::from_str::<Map<String, Value>>(file).unwrap_or_default();
    object.into_iter().filter_map(|(name, time)| Some((name, time.as_u64()?))).collect()
}

/// A phase in words.
pub(crate) fn phase_label(name: &str) -> &str {
    match name {
        "profile" => "profile is read",
        "memory" => "memory is mapped",
        "kernel" => "kernel is loaded",
        "tables" => "tables are built",
        "vcpus" => "vCPUs are set up",
        "first-run" => "guest is entered",
        "first-exit" => "guest's first exit",
        "guest-shutdown" => "guest has ended",
        other => other,
    }
}

/// The reason of the last `stopped`; what follows its first line is advice.
pub(crate) fn reason(events: &[Value]) -> Option<String> {
    let stopped = events.iter().rev().find(|event| event["event"] == "stopped")?;
    stopped["reason"].as_str()?.lines().next().map(crate::console::printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_event_is_passed_over() {
        let file = "{\"event\":\"plan\"}\nnoise\n[1]\n{\"event\":3}\n{\"event\":\"stopped\",\"reason\":\"a\\u0007b\"}\n{\"event\":\"stop";
        let events = events(file);
        assert_eq!(events.len(), 1);
        assert_eq!(reason(&events), Some("a\\u{7}b".into()));
    }

    #[test]
    fn times_are_in_their_order() {
        assert_eq!(
            phases("{\"memory\": 2, \"kernel\": 1, \"x\": \"y\"}"),
            [("memory".into(), 2), ("kernel".into(), 1)]
        );
        assert_eq!(phases("no JSON"), []);
    }
}
