//! The results of a run: a directory for each scenario, a summary, and lines on the terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Context, Result};
use crate::scenario::Scenario;
use crate::verdict::{Evidence, Outcome, Verdict};

/// Number of runs that are kept, including the current one.
const KEPT_RUNS: usize = 20;

/// Lines of each console that are shown for a scenario that failed.
const LAST_LINES: usize = 30;

/// Numbers of outcomes, shown as the last line of every runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Count {
    pub(crate) fn of(verdicts: &[Verdict]) -> Self {
        let mut count = Self::default();
        verdicts.iter().for_each(|verdict| count.add(verdict.outcome));
        count
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
    }

    /// Whether the run was successful. With `CI` set a skipped scenario is a failure: it would go unnoticed.
    pub(crate) fn is_good(self) -> bool {
        let nothing_ran = self.passed == 0 && self.skipped > 0;
        self.failed == 0 && !nothing_ran && (self.skipped == 0 || std::env::var_os("CI").is_none())
    }
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(formatter, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// The directory of a run.
pub(crate) struct Records {
    directory: PathBuf,
    verdicts: Vec<Verdict>,
    hosts: usize,
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    count: Count,
    scenarios: &'a [Verdict],
}

impl Records {
    /// Creates the directory of a new run under `runs`, and removes old ones.
    pub(crate) fn new(runs: &Path) -> Result<Self> {
        fs::create_dir_all(runs).context(format_args!("cannot create {}", runs.display()))?;
        let listing = fs::read_dir(runs).context("cannot list earlier runs")?;
        let numbered = |name: PathBuf| Some((name.file_name()?.to_str()?.parse::<u32>().ok()?, name));
        let mut earlier: Vec<_> = listing.flatten().filter_map(|entry| numbered(entry.path())).collect();
        earlier.sort();
        let number = earlier.last().map_or(0, |(number, _)| *number) + 1;
        let directory = runs.join(format!("{number:04}"));
        let old = earlier.len().saturating_sub(KEPT_RUNS - 1);
        for (_, old) in earlier.drain(..old) {
            fs::remove_dir_all(&old).context(format_args!("cannot remove {}", old.display()))?;
        }
        fs::create_dir(&directory).context(format_args!("cannot create {}", directory.display()))?;
        Ok(Self { directory, verdicts: Vec::new(), hosts: 0 })
    }

    /// Creates a directory for the files of a host.
    pub(crate) fn host_directory(&mut self) -> Result<PathBuf> {
        self.hosts += 1;
        let directory = self.directory.join(format!("host-{}", self.hosts));
        fs::create_dir(&directory).context(format_args!("cannot create {}", directory.display()))?;
        Ok(directory)
    }

    /// Records one scenario; `console` is the console log of its host, `before` the size of that log in bytes when the scenario began.
    pub(crate) fn add(
        &mut self,
        verdict: Verdict,
        evidence: &Evidence,
        console: &Path,
        before: usize,
    ) -> Result<()> {
        let directory = self.directory.join(&verdict.name);
        fs::create_dir(&directory).context(format_args!("cannot create {}", directory.display()))?;
        let write = |name: &str, content: &[u8]| {
            let path = directory.join(name);
            fs::write(&path, content).context(format_args!("cannot write {}", path.display()))
        };
        let host_console = fs::read(console).unwrap_or_default();
        write("console-host.log", &host_console)?;
        write("console-guest.log", &evidence.transcript)?;
        for (name, content) in &evidence.files {
            write(name, content)?;
        }
        if verdict.outcome == Outcome::Failed {
            show_end("guest console", &evidence.transcript);
            show_end("stderr", evidence.files.get("stderr.log").map_or(&[], Vec::as_slice));
            show_end("host console", host_console.get(before..).unwrap_or_default());
        }
        self.close_scenario(verdict)
    }

    /// Records scenarios that were not run because their host did not start.
    pub(crate) fn unrun_on<'s>(
        &mut self,
        scenarios: impl IntoIterator<Item = &'s &'s Scenario>,
        why: &str,
        console: &Path,
    ) -> Result<()> {
        show_end("host console", &fs::read(console).unwrap_or_default());
        self.unrun(scenarios, Outcome::Failed, why)
    }

    /// Records scenarios that were not run.
    pub(crate) fn unrun<'s>(
        &mut self,
        scenarios: impl IntoIterator<Item = &'s &'s Scenario>,
        outcome: Outcome,
        why: &str,
    ) -> Result<()> {
        for scenario in scenarios {
            fs::create_dir(self.directory.join(&scenario.name))
                .context("cannot create a scenario's directory")?;
            self.close_scenario(Verdict {
                name: scenario.name.clone(),
                outcome,
                reasons: vec![why.to_owned()],
                seconds: 0.0,
                steps: Vec::new(),
                ended: None,
                directory: PathBuf::new(),
                versions: BTreeMap::new(),
            })?;
        }
        Ok(())
    }

    fn close_scenario(&mut self, mut verdict: Verdict) -> Result<()> {
        verdict.directory = self.directory.join(&verdict.name);
        let word = match verdict.outcome {
            Outcome::Passed => "passed ",
            Outcome::Failed => "FAILED ",
            Outcome::Skipped => "skipped",
        };
        println!("{word} {:6.1} s  {}", verdict.seconds, verdict.name);
        for reason in &verdict.reasons {
            println!("             {reason}");
        }
        write_json(&verdict.directory.join("verdict.json"), &verdict)?;
        self.verdicts.push(verdict);
        Ok(())
    }

    /// Ends the run.
    pub(crate) fn close(self) -> Result<Vec<Verdict>> {
        let summary = Summary { count: Count::of(&self.verdicts), scenarios: &self.verdicts };
        write_json(&self.directory.join("summary.json"), &summary)?;
        println!("transcripts, events and verdicts are in {}", self.directory.display());
        Ok(self.verdicts)
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    fs::write(path, text + "\n").context(format_args!("cannot write {}", path.display()))
}

fn show_end(what: &str, content: &[u8]) {
    let text = String::from_utf8_lossy(content);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return;
    }
    println!("---- last lines of the {what}");
    for line in lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default() {
        println!("     {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_mentions_skips_only_if_there_are_any() {
        let mut count = Count { passed: 3, failed: 0, skipped: 0 };
        assert_eq!(count.to_string(), "3 passed, 0 failed");
        count.add(Outcome::Skipped);
        assert_eq!(count.to_string(), "3 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_run_of_skipped_scenarios_is_not_successful() {
        assert!(!Count { passed: 0, failed: 0, skipped: 2 }.is_good());
        assert!(!Count { passed: 2, failed: 1, skipped: 0 }.is_good());
        assert!(Count { passed: 2, failed: 0, skipped: 0 }.is_good());
    }

    #[test]
    fn runs_are_numbered() {
        let runs = tempfile::tempdir().unwrap();
        assert!(Records::new(runs.path()).unwrap().directory.ends_with("0001"));
        assert!(Records::new(runs.path()).unwrap().directory.ends_with("0002"));
    }

    #[test]
    fn the_last_runs_and_other_files_are_kept() {
        let runs = tempfile::tempdir().unwrap();
        fs::write(runs.path().join("note"), "").unwrap();
        for _ in 0..KEPT_RUNS + 3 {
            Records::new(runs.path()).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(runs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), KEPT_RUNS + 1);
        assert_eq!((names[0].to_str(), names[KEPT_RUNS].to_str()), (Some("0004"), Some("note")));
    }
}
