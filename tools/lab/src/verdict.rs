//! Compares the results of a scenario with what it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::architecture::Architecture;
use crate::conversation::{Words, fill_in, find};
use crate::scenario::{ExpectedEvent, ExpectedValue, Scenario, Seen};

/// Texts that no Linux guest may print: ghest would be the cause of each.
const NEVER_ON_LINUX: &[&str] =
    &["ACPI Error", "ACPI BIOS Error", "FW BUG", "[Firmware Bug]", "WARNING:", "Oops", "BUG:"];

/// The event file in `out/`.
pub(crate) const EVENTS: &str = "events.jsonl";

/// The file with the VMM's stderr.
const STDERR: &str = "stderr.log";

/// Everything that was collected of a scenario.
#[derive(Default)]
pub(crate) struct Evidence {
    /// The command's exit status; `None` if it was killed.
    pub(crate) status: Option<i32>,
    /// The guest's console.
    pub(crate) transcript: Vec<u8>,
    /// The files in `out/`.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Words captured on the console.
    pub(crate) words: Words,
    /// Text that the console's script was still waiting for.
    pub(crate) awaited: Option<String>,
    /// Times of each step and of the command's end, from its start.
    pub(crate) steps: Vec<Duration>,
    pub(crate) ended: Option<Duration>,
    /// Problems of the host or the command, for example its time limit.
    pub(crate) trouble: Vec<String>,
}

/// The verdict on one scenario, written to `verdict.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// Why it failed or was skipped; empty if it passed.
    pub(crate) reasons: Vec<String>,
    pub(crate) seconds: f64,
    /// Times of each step and of the command's end, in seconds.
    pub(crate) steps: Vec<f64>,
    pub(crate) ended: Option<f64>,
    /// The directory with its results.
    #[serde(skip)]
    pub(crate) directory: PathBuf,
    /// Versions of the packages and of the emulator, by name.
    pub(crate) versions: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// The differences between evidence and scenario; empty if the scenario has passed.
pub(crate) fn faults(scenario: &Scenario, evidence: &Evidence) -> Vec<String> {
    let mut faults = evidence.trouble.clone();
    match evidence.status {
        Some(status) if status == scenario.status => {}
        Some(status) => faults.push(format!("exit status {status}, not {}", scenario.status)),
        None if faults.is_empty() => faults.push("no exit status".to_owned()),
        None => {}
    }
    if let Some(text) = &evidence.awaited {
        faults.push(format!("the console's script still waits for {text:?}"));
    }
    faults.extend(scenario.see.iter().filter_map(|seen| not_seen(seen, evidence)));
    let linux: &[&str] = if scenario.is_linux() { NEVER_ON_LINUX } else { &[] };
    let never = scenario.never.iter().map(String::as_str).chain(linux.iter().copied());
    for text in never {
        let line = line_with(&evidence.transcript, text, &scenario.allow);
        faults.extend(line.map(|line| format!("unexpected: {line}")));
    }
    faults.extend(wrong_events(&scenario.events, evidence));
    faults.extend(scenario.json.iter().filter_map(|expected| wrong_value(expected, evidence)));
    faults
}

/// Whether the emulator, and not the tested program, ended a Linux guest: QEMU's SVM, on a busy machine, occasionally resets the vCPU of
/// a nested guest during its boot. The signature is a triple fault of a vCPU at its reset vector.
pub(crate) fn failed_by_the_emulator(scenario: &Scenario, evidence: &Evidence) -> bool {
    let said = |text: &str| {
        evidence.files.get(STDERR).is_some_and(|content| find(content, text.as_bytes()).is_some())
    };
    let booted = find(&evidence.transcript, b"Run /init as init process").is_some();
    scenario.host == Architecture::X86_64
        && scenario.is_linux()
        && !booted
        && said("triple fault; rip=0xfff0 ")
}

fn not_seen(seen: &Seen, evidence: &Evidence) -> Option<String> {
    let (place, content) = match &seen.file {
        None => ("the guest's console", Some(&evidence.transcript)),
        Some(file) => (file.as_str(), evidence.files.get(file)),
    };
    let Some(content) = content else { return Some(format!("no file {place}")) };
    let text = fill_in(&seen.text, &evidence.words);
    let count = occurrences(content, text.as_bytes());
    match seen.count {
        Some(wanted) if count != wanted => Some(format!("{text:?}: {count} times in {place}, not {wanted}")),
        None if count == 0 => Some(format!("missing in {place}: {text:?}")),
        _ => None,
    }
}

fn wrong_events(expected: &[ExpectedEvent], evidence: &Evidence) -> Vec<String> {
    let Some(content) = evidence.files.get(EVENTS) else {
        return if expected.is_empty() { Vec::new() } else { vec![format!("no file {EVENTS}")] };
    };
    let mut faults = Vec::new();
    let mut events = Vec::new();
    for line in String::from_utf8_lossy(content).lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(event) => events.push(event),
            Err(error) => faults.push(format!("{EVENTS} has a line that is not JSON ({error}): {line}")),
        }
    }
    for ExpectedEvent { has, count: wanted, distinct } in expected {
        let has: Map<_, _> =
            has.iter().map(|(key, value)| (key.clone(), captured(value, &evidence.words))).collect();
        let matches = |event: &&Value| has.iter().all(|(key, value)| event.get(key) == Some(value));
        let matching = events.iter().filter(matches);
        let (count, different) = match distinct {
            None => (matching.count(), String::new()),
            Some(key) => {
                let values: BTreeSet<_> =
                    matching.map(|event| event.get(key).map(Value::to_string)).collect();
                (values.len(), format!(" and different values of {key:?}"))
            }
        };
        if wanted.map_or(count == 0, |wanted| count != wanted) {
            let wanted = wanted.map_or("at least 1".to_owned(), |wanted| wanted.to_string());
            faults.push(format!("{count} events with {}{different}, not {wanted}", Value::Object(has)));
        }
    }
    faults
}

/// The number of a captured word, if a value is its name; the value itself otherwise.
fn captured(value: &Value, words: &Words) -> Value {
    let word = value.as_str().and_then(|text| words.get(text.strip_prefix('$')?));
    let number = word.and_then(|word| match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    });
    number.map_or_else(|| value.clone(), Value::from)
}

fn wrong_value(expected: &ExpectedValue, evidence: &Evidence) -> Option<String> {
    let ExpectedValue { file, at, is } = expected;
    let Some(content) = evidence.files.get(file) else { return Some(format!("no file {file}")) };
    match serde_json::from_slice::<Value>(content) {
        Err(error) => Some(format!("{file} is not JSON: {error}")),
        Ok(value) => match value.pointer(at) {
            Some(found) if found == is => None,
            Some(found) => Some(format!("{file}: {at} is {found}, not {is}")),
            None => Some(format!("{file} has no {at}")),
        },
    }
}

/// The first line that contains the text, and no allowed text.
fn line_with(transcript: &[u8], text: &str, allowed: &[String]) -> Option<String> {
    let holds = |line: &[u8], text: &str| find(line, text.as_bytes()).is_some();
    let is_fault = |line: &&[u8]| holds(line, text) && !allowed.iter().any(|allowed| holds(line, allowed));
    let line = transcript.split(|byte| *byte == b'\n').find(is_fault)?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

fn occurrences(content: &[u8], text: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = content;
    while let Some(at) = find(rest, text).filter(|_| !text.is_empty()) {
        count += 1;
        rest = rest.get(at + text.len()..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(more: &str) -> Scenario {
        let text = format!("name = 'a'\nhost = 'x86_64'\n{more}");
        toml::from_str(&text).unwrap()
    }

    fn evidence(transcript: &str, events: &str) -> Evidence {
        let files = [
            (EVENTS.to_owned(), events.into()),
            ("probe.json".to_owned(), b"{\"kvm\":{\"ok\":true}}".into()),
        ];
        Evidence {
            status: Some(0),
            transcript: transcript.into(),
            files: files.into(),
            ..Evidence::default()
        }
    }

    fn faults_of(more: &str, transcript: &str, events: &str) -> Vec<String> {
        faults(&scenario(more), &evidence(transcript, events))
    }

    #[test]
    fn a_scenario_without_expectations_passes() {
        assert!(faults_of("", "anything", "").is_empty());
    }

    #[test]
    fn status_script_and_problems_are_faults() {
        let evidence = Evidence {
            awaited: Some("login: ".into()),
            trouble: vec!["too long".into()],
            ..evidence("", "")
        };
        let found = faults(&scenario("status = 4"), &evidence);
        let expected =
            ["too long", "exit status 0, not 4", "the console's script still waits for \"login: \""];
        assert_eq!(found, expected);
    }

    #[test]
    fn texts_are_counted() {
        let cpus = "processor: 0\nprocessor: 1\n";
        assert!(faults_of("see = [{ text = 'processor', count = 2 }]", cpus, "").is_empty());
        let found = faults_of("see = [{ text = 'processor', count = 1 }, { text = 'memory' }]", cpus, "");
        assert_eq!(
            found,
            [
                "\"processor\": 2 times in the guest's console, not 1",
                "missing in the guest's console: \"memory\""
            ]
        );
        assert_eq!(faults_of("see = [{ text = 'x', file = 'none' }]", "x", ""), ["no file none"]);
    }

    #[test]
    fn errors_of_linux_guests_are_faults() {
        let log = "fine\n[    0.1] ACPI BIOS Error (bug): no\r\nfine\n";
        let expected = ["unexpected: [    0.1] ACPI BIOS Error (bug): no"];
        assert_eq!(faults_of("kernel = '6.1'", log, ""), expected);
        assert!(faults_of("", log, "").is_empty());
        assert!(faults_of("kernel = '6.1'\nallow = ['(bug): no']", log, "").is_empty());
        assert_eq!(faults_of("never = ['fine']", log, "").len(), 1);
    }

    #[test]
    fn events_are_matched_by_their_keys() {
        let events = "{\"t_ns\":1,\"event\":\"vcpu-started\"}\n{\"t_ns\":2,\"event\":\"vcpu-started\"}\n";
        let two = "event = [{ has = { event = 'vcpu-started' }, count = 2 }]";
        assert!(faults_of(two, "", events).is_empty());
        let none = "event = [{ has = { event = 'stopped' } }]";
        assert_eq!(faults_of(none, "", events), ["0 events with {\"event\":\"stopped\"}, not at least 1"]);
        assert_eq!(faults_of("", "", "{half").len(), 1);
    }

    #[test]
    fn captured_words_are_text_on_the_console_and_numbers_in_events() {
        let evidence = Evidence {
            words: [("page".to_owned(), "0x2000".to_owned())].into(),
            ..evidence("poisoned: 0x2000\n", "{\"gpa\":8192}\n")
        };
        let faults_of = |more: &str| faults(&scenario(more), &evidence);
        assert!(
            faults_of("see = [{ text = 'poisoned: $page' }]\nevent = [{ has = { gpa = '$page' } }]")
                .is_empty()
        );
        let found = faults_of("see = [{ text = 'detected: $page' }]\nevent = [{ has = { hva = '$page' } }]");
        let expected = [
            "missing in the guest's console: \"detected: 0x2000\"",
            "0 events with {\"hva\":8192}, not at least 1",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn events_with_the_same_value_are_counted_once() {
        let events =
            "{\"event\":\"a\",\"gpa\":1}\n{\"event\":\"a\",\"gpa\":2}\n{\"event\":\"a\",\"gpa\":1}\n";
        let count = |count: usize| {
            let more = format!("event = [{{ has = {{ event = 'a' }}, distinct = 'gpa', count = {count} }}]");
            faults_of(&more, "", events)
        };
        assert!(count(2).is_empty());
        assert_eq!(count(3), ["2 events with {\"event\":\"a\"} and different values of \"gpa\", not 3"]);
    }

    #[test]
    fn json_values_are_found_by_pointer() {
        let value = |at: &str, is: &str| {
            faults_of(&format!("json = [{{ file = 'probe.json', at = '{at}', is = {is} }}]"), "", "")
        };
        assert!(value("/kvm/ok", "true").is_empty());
        assert_eq!(value("/kvm/ok", "false"), ["probe.json: /kvm/ok is true, not false"]);
        assert_eq!(value("/kvm/no", "1"), ["probe.json has no /kvm/no"]);
    }

    #[test]
    fn only_a_guest_that_died_by_a_reset_vcpu_in_its_boot_was_failed_by_the_emulator() {
        let lost = |more: &str, transcript: &str, stderr: &str| {
            let mut evidence = evidence(transcript, "");
            evidence.files.insert(STDERR.to_owned(), stderr.into());
            failed_by_the_emulator(&scenario(more), &evidence)
        };
        let died = "ghest: the guest crashed: vCPU 0: triple fault; rip=0xfff0 rsp=0x0";
        assert!(lost("kernel = '6.1'", "[    3.2] audit: type=2000", died));
        assert!(!lost("kernel = '6.1'", "Run /init as init process", died));
        assert!(!lost("kernel = '6.1'", "", "triple fault; rip=0xffffffff81000000 rsp=0x0"));
        assert!(!lost("", "", died));
    }
}
