//! The results, as text and as JSON.

use std::fmt::Write as _;

use platform::Arch;
use serde::Serialize;

use super::case::{self, Case, Kind, Place};
use super::expectation::{Expectations, version};
use super::facts::{Facts, Verdict};

/// Incremented by every incompatible change of the JSON.
const FORMAT: u32 = 1;

/// The results of all cases: the JSON of `ghest ras-check --json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    format: u32,
    pub(super) architecture: &'static str,
    /// The guest kernel's release.
    pub(super) kernel: String,
    cases: Vec<Checked>,
    counts: Counts,
}

/// A case and its result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Checked {
    tables: &'static str,
    kind: Kind,
    response: &'static str,
    place: Place,
    pub(super) result: Judgement,
    /// What the guest did. `None` if it was skipped.
    verdict: Option<Verdict>,
    action: String,
    process: String,
    notified: String,
    /// Why the machine ended.
    end: String,
    /// Of the expectation: why the guest should do that. `None` if there is none.
    why: Option<String>,
    /// What is unexpected, or why the case was skipped.
    pub(super) reason: String,
    #[serde(skip)]
    release: Option<String>,
    time_ns: u64,
    pub(super) lines: Vec<String>,
}

/// The result of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Judgement {
    Expected,
    Unexpected,
    /// There is no expectation.
    Unknown,
    Skipped,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) total: usize,
    pub(super) expected: usize,
    pub(super) unexpected: usize,
    pub(super) unknown: usize,
    pub(super) skipped: usize,
}

impl Judgement {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Judgement::Expected => "as expected",
            Judgement::Unexpected => "UNEXPECTED",
            Judgement::Unknown => "NO EXPECTATION",
            Judgement::Skipped => "skipped",
        }
    }
}

impl Checked {
    pub(super) fn new(arch: Arch, case: Case, facts: Facts, expectations: &Expectations) -> Self {
        let version = facts.release.as_deref().and_then(version);
        let expectation = version.and_then(|version| expectations.find(arch, &case, version));
        let (result, reason) = match (&facts.skipped, expectation) {
            (Some(reason), _) => (Judgement::Skipped, reason.clone()),
            (None, Some(expectation)) if expectation.is_met(&facts) => (Judgement::Expected, String::new()),
            (None, Some(expectation)) => {
                let expected = outcome(
                    Some(expectation.verdict),
                    expectation.action.as_deref().unwrap_or_default(),
                    expectation.process.as_deref().unwrap_or_default(),
                );
                let was = outcome(facts.verdict, &facts.action, &facts.process);
                (Judgement::Unexpected, format!("expected {expected}; was {was}"))
            }
            (None, None) => {
                (Judgement::Unknown, format!("was {}", outcome(facts.verdict, &facts.action, &facts.process)))
            }
        };
        Checked {
            tables: case.tables.name(),
            kind: case.kind,
            response: case.response.name(),
            place: case.place,
            result,
            verdict: facts.verdict,
            action: facts.action,
            process: facts.process,
            notified: facts.notified,
            end: facts.end,
            why: expectation.map(|expectation| expectation.why.clone()),
            reason,
            release: facts.release,
            time_ns: u64::try_from(facts.time.as_nanos()).unwrap_or(u64::MAX),
            lines: facts.lines,
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.time_ns as f64 / 1e9
    }

    /// All but the place, with dots between.
    pub(super) fn class(&self) -> String {
        format!("{}.{}.{}", self.tables, case::name(self.kind), self.response)
    }

    pub(super) fn place(&self) -> String {
        case::name(self.place)
    }
}

/// `recovered (dirty LRU page: Recovered; SIGBUS MCEERR_AR lsb 12)`
fn outcome(verdict: Option<Verdict>, action: &str, process: &str) -> String {
    let verdict = verdict.map_or("nothing", Verdict::name);
    let details: Vec<_> = [action, process].into_iter().filter(|text| !text.is_empty()).collect();
    if details.is_empty() { verdict.into() } else { format!("{verdict} ({})", details.join("; ")) }
}

impl Report {
    pub(super) fn new(arch: Arch) -> Self {
        let kernel = String::new();
        Report {
            format: FORMAT,
            architecture: arch.name(),
            kernel,
            cases: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn push(&mut self, case: Checked) {
        if let (true, Some(release)) = (self.kernel.is_empty(), &case.release) {
            self.kernel.clone_from(release);
        }
        self.counts.total += 1;
        *match case.result {
            Judgement::Expected => &mut self.counts.expected,
            Judgement::Unexpected => &mut self.counts.unexpected,
            Judgement::Unknown => &mut self.counts.unknown,
            Judgement::Skipped => &mut self.counts.skipped,
        } += 1;
        self.cases.push(case);
    }

    pub(super) fn cases(&self) -> &[Checked] {
        &self.cases
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Cases whose guest was booted.
    pub(super) fn ran(&self) -> usize {
        self.cases.iter().filter(|case| case.release.is_some()).count()
    }

    pub(super) const fn is_as_expected(&self) -> bool {
        self.counts.unexpected == 0 && self.counts.unknown == 0
    }

    /// A table.
    pub(super) fn text(&self) -> String {
        let mut text = format!("guest: {}, Linux {}\n\n", self.architecture, self.kernel);
        let mut rows = vec![["tables", "kind", "response", "place", "", "the guest"].map(str::to_owned)];
        for case in &self.cases {
            let what = match case.result {
                Judgement::Expected => outcome(case.verdict, &case.action, &case.process),
                _ => case.reason.clone(),
            };
            rows.push([
                case.tables.to_owned(),
                case::name(case.kind),
                case.response.to_owned(),
                case.place(),
                case.result.name().to_owned(),
                what,
            ]);
        }
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
        let widths = [0, 1, 2, 3, 4].map(width);
        for [tables, kind, response, place, result, what] in &rows {
            let [a, b, c, d, e] = widths;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{tables:a$}  {kind:b$}  {response:c$}  {place:d$}  {result:e$}  {what}");
        }
        let Counts { total, expected, unexpected, unknown, skipped } = self.counts;
        let _ = writeln!(
            text,
            "\n{total} cases: {expected} as expected, {unexpected} unexpected, {unknown} without an expectation, {skipped} skipped"
        );
        text
    }
}
