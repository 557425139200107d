//! What a guest did: from its console, the events and the end of its boot.

use std::time::Duration;

use compare::Ending;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Case;

/// How the lines of the guest's program begin.
const PREFIX: &str = "ras-check: ";
/// Lines that a report keeps.
const MAX_LINES: usize = 400;

/// Whether nothing more is to be seen of a guest.
pub(super) fn is_last_line(line: &str) -> bool {
    line.contains("ras-check: done") || line.contains("---[ end Kernel panic")
}

/// What the guest did, in a word. The first ones are results of Linux's memory_failure() (`mf_result`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// The kernel isolated the page.
    Recovered,
    /// It will isolate the page later.
    Delayed,
    /// It tried, and could not.
    Failed,
    /// It does not handle such a page: the page stays in use.
    Ignored,
    /// The kernel did nothing about the page; the process got a SIGBUS or was killed.
    Killed,
    /// The kernel did nothing about the page; a system call of the process failed.
    Error,
    /// The kernel did nothing about the page, and the process saw nothing.
    Unnoticed,
    /// The kernel died in the process's context (an oops), and the guest continues.
    Oopsed,
    /// The kernel panicked.
    Panicked,
    /// The guest stopped doing anything.
    Hung,
    /// It was reset, or its vCPU could not continue.
    Crashed,
    /// The VMM ended the machine, as the response says.
    Stopped,
    /// It did not come as far as the injection.
    NotReady,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Verdict::Recovered => "recovered",
            Verdict::Delayed => "delayed",
            Verdict::Failed => "failed",
            Verdict::Ignored => "ignored",
            Verdict::Killed => "killed",
            Verdict::Error => "error",
            Verdict::Unnoticed => "unnoticed",
            Verdict::Oopsed => "oopsed",
            Verdict::Panicked => "panicked",
            Verdict::Hung => "hung",
            Verdict::Crashed => "crashed",
            Verdict::Stopped => "stopped",
            Verdict::NotReady => "not-ready",
        }
    }
}

/// The facts of one case.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The kernel's release.
    pub(super) release: Option<String>,
    /// Why the case could not be checked.
    pub(super) skipped: Option<String>,
    pub(super) verdict: Option<Verdict>,
    /// The kernel's results: `dirty LRU page: Recovered`.
    pub(super) action: String,
    /// What the process got: `SIGBUS MCEERR_AR lsb 12`.
    pub(super) process: String,
    /// How the guest was notified, and by which records.
    pub(super) notified: String,
    /// Why the machine ended.
    pub(super) end: String,
    /// Lines of the guest's program, and of the kernel about its end.
    pub(super) lines: Vec<String>,
    /// The last lines of the console and of standard error, for a guest that has not come far.
    last_lines: Vec<String>,
    pub(super) time: Duration,
}

impl Facts {
    pub(super) fn skipped(reason: &str) -> Self {
        Facts { skipped: Some(reason.to_owned()), ..Facts::default() }
    }

    pub(super) fn new(console: &[&str], events: &str, stderr: &str, ending: &Ending, time: Duration) -> Self {
        // What follows is the end of the guest's init.
        let end = console.iter().position(|line| is_last_line(line)).map_or(console.len(), |at| at + 1);
        let console = console.get(..end).unwrap_or(console);
        let said = || console.iter().filter_map(|line| line.split_once(PREFIX)).map(|(_, text)| text);
        let named = |name: &str| said().find_map(|text| text.strip_prefix(name)?.strip_prefix(' '));
        let events: Vec<Value> = events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut facts = Facts {
            release: named("Linux").map(str::to_owned),
            skipped: named("skip").map(str::to_owned),
            action: action(console),
            process: process(&said().collect::<Vec<_>>()),
            notified: notified(&events),
            end: reason(&events),
            lines: console
                .iter()
                .filter(|line| is_of_interest(line))
                .take(MAX_LINES)
                .map(|&line| line.to_owned())
                .collect(),
            last_lines: console
                .iter()
                .rev()
                .take(3)
                .rev()
                .map(|&line| line.to_owned())
                .chain(stderr.lines().rev().take(3).map(str::to_owned))
                .collect(),
            time,
            ..Facts::default()
        };
        // The host refused it, for example madvise(2) without CAP_SYS_ADMIN.
        let refused =
            stderr.lines().find(|line| line.contains("injection request of the command line failed"));
        if facts.skipped.is_none() {
            facts.skipped = refused.map(|line| format!("not injected: {line}"));
        }
        let is_ready = said().any(|text| text == "ready");
        let is_done = said().any(|text| text == "done");
        let oops = console.iter().any(|line| is_oops(line));
        let verdict = match ending {
            _ if facts.skipped.is_some() => return facts,
            _ if !is_ready => Verdict::NotReady,
            Ending::Exited { status: 10..=12, .. } => Verdict::Stopped,
            _ if console.iter().any(|line| line.contains("Kernel panic - not syncing")) => Verdict::Panicked,
            _ if is_done && oops => Verdict::Oopsed,
            _ if is_done => facts.survived(),
            Ending::Hung { .. } => Verdict::Hung,
            _ => Verdict::Crashed,
        };
        facts.verdict = Some(verdict);
        facts
    }

    /// The verdict of a guest that continues.
    fn survived(&self) -> Verdict {
        match self.action.rsplit(": ").next() {
            Some("Recovered") => Verdict::Recovered,
            Some("Delayed") => Verdict::Delayed,
            Some("Failed") => Verdict::Failed,
            Some("Ignored") => Verdict::Ignored,
            _ if self.process.contains("SIGBUS") || self.process.contains("signal") => Verdict::Killed,
            _ if ["", "fine", "not-allocated"].contains(&self.process.as_str()) => Verdict::Unnoticed,
            _ => Verdict::Error,
        }
    }

    /// Whether the guest's program said anything, or there is another reason why the case was not checked.
    pub(super) fn has_spoken(&self) -> bool {
        self.skipped.is_some() || self.release.is_some() || self.verdict != Some(Verdict::NotReady)
    }

    /// What a guest without the program is reported as.
    pub(super) fn silence(&self, case: &Case) -> String {
        format!(
            "{case}: the guest's console has no line that begins with `ras-check: `. Is or starts the init of its initrd \
             `victim ras-check`, and has the kernel this console (boot.cmdline)? The last lines:\n{}",
            self.last_lines.join("\n")
        )
    }
}

/// The results of memory_failure(): `Memory failure: 0x1234: recovery action for dirty LRU page: Recovered`.
fn action(console: &[&str]) -> String {
    let mut actions: Vec<&str> = Vec::new();
    for line in console {
        let action = line.split_once("recovery action for ").map(|(_, action)| action.trim_end());
        // The kernel's log has it again.
        actions.extend(action.filter(|action| !actions.contains(action)));
    }
    actions.join(", ")
}

/// What the process got.
fn process(said: &[&str]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for text in said {
        if let Some(signal) = text.strip_prefix("SIGBUS code ") {
            // `MCEERR_AR lsb 12 page 0 addr 0x...`
            let words: Vec<_> = signal.split(' ').take(3).collect();
            let signal = format!("SIGBUS {}", words.join(" "));
            if !parts.contains(&signal) {
                parts.push(signal);
            }
        } else if let Some(access) = text.strip_prefix("access ") {
            parts.extend((!["abandoned", "none"].contains(&access)).then(|| access.to_owned()));
        } else if let Some(end) = text.strip_prefix("process ").filter(|end| *end != "continues") {
            parts.push(end.to_owned());
        }
    }
    parts.join(", ")
}

/// How the guest was notified: distinct exceptions and interrupts, and the sources of records.
fn notified(events: &[Value]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for event in events {
        let part = match event["event"].as_str() {
            Some("record-written") => format!("record of source {}", event["source"]),
            Some("notified") => event["how"].as_str().unwrap_or_default().to_owned(),
            Some("acknowledged") => "acknowledged".to_owned(),
            _ => continue,
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(", ")
}

/// The first line of the reason in the last event `stopped`: the rest is advice.
fn reason(events: &[Value]) -> String {
    let stopped = events.iter().rev().find(|event| event["event"] == "stopped");
    let reason = stopped.and_then(|event| event["reason"].as_str()?.lines().next());
    reason.map(compare::printable).unwrap_or_default()
}

fn is_oops(line: &str) -> bool {
    ["Internal error: ", "Oops: ", "BUG: "].iter().any(|text| line.contains(text))
}

fn is_of_interest(line: &str) -> bool {
    line.contains(PREFIX)
        || is_oops(line)
        || ["Kernel panic", "Hardware Error", "Memory failure", "SError", "Machine check"]
            .iter()
            .any(|text| line.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(console: &str, events: &str, ending: &Ending) -> Facts {
        let lines: Vec<&str> = console.lines().collect();
        Facts::new(&lines, events, "", ending, Duration::ZERO)
    }

    const EXITED: Ending = Ending::Exited { status: 143, after_ns: 0 };
    const HUNG: Ending = Ending::Hung { limit_ns: 1 };

    #[test]
    fn a_recovered_page_and_the_signal_of_its_process() {
        let console = "\
            ras-check: Linux 6.1.0-49-arm64\n\
            ras-check: page 0x45678000\n\
            ras-check: ready\n\
            ras-check: SIGBUS code MCEERR_AR lsb 12 page 0 addr 0xffff1000\n\
            ras-check: access abandoned\n\
            ras-check: process continues\n\
            ras-check: log Memory failure: 0x45678: recovery action for dirty LRU page: Recovered\n\
            ras-check: done\n";
        let events = "{\"event\":\"record-written\",\"source\":0}\n\
            {\"event\":\"notified\",\"how\":\"synchronous-external-abort\"}\n{\"event\":\"acknowledged\",\"source\":0}\n";
        let facts = facts(console, events, &EXITED);
        assert_eq!(facts.release.as_deref(), Some("6.1.0-49-arm64"));
        assert_eq!(facts.verdict, Some(Verdict::Recovered));
        assert_eq!(facts.action, "dirty LRU page: Recovered");
        assert_eq!(facts.process, "SIGBUS MCEERR_AR lsb 12");
        assert_eq!(facts.notified, "record of source 0, synchronous-external-abort, acknowledged");
        assert!(facts.has_spoken());
    }

    #[test]
    fn guests_that_do_not_continue() {
        let ready = "ras-check: Linux 6.1\nras-check: ready\n";
        let verdict = |rest: &str, ending| facts(&format!("{ready}{rest}"), "", &ending).verdict;
        let exited = |status| Ending::Exited { status, after_ns: 0 };
        assert_eq!(verdict("Kernel panic - not syncing: x\n", exited(0)), Some(Verdict::Panicked));
        assert_eq!(verdict("", exited(10)), Some(Verdict::Stopped));
        assert_eq!(verdict("", exited(4)), Some(Verdict::Crashed));
        assert_eq!(verdict("", HUNG), Some(Verdict::Hung));
        let oops = "Internal error: synchronous external abort: 96000410\n";
        assert_eq!(verdict(oops, HUNG), Some(Verdict::Hung));
        assert_eq!(verdict(&format!("{oops}ras-check: done\n"), EXITED), Some(Verdict::Oopsed));
        assert_eq!(verdict("ras-check: access fine\nras-check: done\n", EXITED), Some(Verdict::Unnoticed));
        let error = "ras-check: access EIO\nras-check: done\n";
        assert_eq!(verdict(error, EXITED), Some(Verdict::Error));
        let killed = "ras-check: process killed by signal 9\nras-check: done\n";
        assert_eq!(verdict(killed, EXITED), Some(Verdict::Killed));
        assert_eq!(facts("Run /init\n", "", &HUNG).verdict, Some(Verdict::NotReady));
        assert!(!facts("Run /init\n", "", &HUNG).has_spoken());
    }

    #[test]
    fn what_a_kernel_does_not_have_is_skipped() {
        let console = "ras-check: Linux 6.1\nras-check: skip no disk\nras-check: done\n";
        assert_eq!(facts(console, "", &EXITED).skipped.as_deref(), Some("no disk"));
        let stderr = "ERROR an injection request of the command line failed: madvise(2): EPERM";
        let facts = Facts::new(&["ras-check: ready"], "", stderr, &HUNG, Duration::ZERO);
        assert!(facts.skipped.is_some_and(|reason| reason.contains("EPERM")));
    }
}
