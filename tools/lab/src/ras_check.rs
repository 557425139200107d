//! `cargo lab ras-check`: the memory failure handling of Debian's kernels, and a page with the results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::Args;
use serde::Deserialize;

use crate::architecture::Architecture;
use crate::bundle::Cache;
use crate::error::{Context, Error, Result};
use crate::report::Count;
use crate::run;
use crate::scenario::Scenario;
use crate::workspace::Workspace;

/// How the names of the scenarios begin.
const PREFIXES: [&str; 2] = ["ras-check-places-", "ras-check-responses-"];
/// What a scenario leaves in its directory: the JSON of `ghest ras-check`.
const RESULTS: &str = "ras-check.json";
/// The document, in the checkout.
const PAGE: &str = "docs/ras-check-results.md";

const HEAD: &str = "\
# What Linux does about memory errors

Each cell was read from a run of [`ghest ras-check`](ras-check.md): an unmodified Debian kernel boots on an emulated host, whose
kernel poisons the page (`MADV_HWPOISON`). The cells have the verdict, the result of the guest's memory_failure(), and what the process
got: its SIGBUS, or how its access ended. The words are those of [ras-check.md](ras-check.md).

This page is generated: `cargo lab ras-check --document` runs every host and kernel, `--no-run` uses the last runs.
";

/// What a complete page has.
const ARCHITECTURES: [&str; 2] = ["aarch64", "x86_64"];
const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

#[derive(Args)]
pub(crate) struct Options {
    /// Only on hosts of this architecture
    #[arg(long)]
    host: Option<Architecture>,
    /// Only the guest kernel of this key
    #[arg(long)]
    kernel: Option<String>,
    /// Rewrite docs/ras-check-results.md, from this run and the last ones of the other hosts and kernels
    #[arg(long)]
    document: bool,
    /// Rewrite that document without running anything
    #[arg(long, requires = "document")]
    no_run: bool,
}

/// The part of the JSON that the page has.
#[derive(Deserialize)]
struct Report {
    architecture: String,
    kernel: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    tables: String,
    kind: String,
    response: String,
    place: String,
    result: String,
    verdict: Option<String>,
    action: String,
    process: String,
    why: Option<String>,
    reason: String,
}

pub(crate) fn ras_check(
    options: &Options,
    workspace: &Workspace,
    cache: &Cache,
    mut scenarios: Vec<Scenario>,
) -> Result<Option<Count>> {
    let kept = workspace.lab().join("ras-check");
    fs::create_dir_all(&kept).context(format_args!("cannot create {}", kept.display()))?;
    let mut count = None;
    if !options.no_run {
        scenarios.retain(|scenario| options.takes(scenario));
        if scenarios.is_empty() {
            return Err(Error::new("no scenario matches: see cargo lab run --list --full ras-check"));
        }
        let verdicts = run::run(workspace, cache, &scenarios, false)?;
        for verdict in &verdicts {
            // Also of a run with unexpected results, which has them all.
            let results = verdict.directory.join(RESULTS);
            if results.is_file() {
                let to = kept.join(format!("{}.json", verdict.name));
                fs::copy(&results, &to).context(format_args!("cannot copy {}", results.display()))?;
            }
        }
        count = Some(Count::of(&verdicts));
    }
    if options.document {
        let path = workspace.root.join(PAGE);
        fs::write(&path, page(&reports(&kept)?)).context(format_args!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(count)
}

impl Options {
    fn takes(&self, scenario: &Scenario) -> bool {
        PREFIXES.iter().any(|prefix| scenario.name.starts_with(prefix))
            && self.host.is_none_or(|host| host == scenario.host)
            && self.kernel.as_ref().is_none_or(|kernel| scenario.kernel.as_ref() == Some(kernel))
    }
}

/// The last results of each architecture and kernel, the oldest kernel first.
fn reports(directory: &Path) -> Result<Vec<Report>> {
    let listing = fs::read_dir(directory).context(format_args!("cannot list {}", directory.display()))?;
    let mut paths: Vec<_> = listing.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut reports = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).context(format_args!("cannot read {}", path.display()))?;
        let report = serde_json::from_str::<Report>(&text);
        reports.push(report.context(format_args!("{} has no results", path.display()))?);
    }
    reports.sort_by_key(|report| {
        let numbers = report.kernel.split(|character: char| !character.is_ascii_digit());
        let version: Vec<u32> = numbers.map_while(|number| number.parse().ok()).collect();
        (report.architecture.clone(), version)
    });
    // A kernel may have several, with other cases.
    reports.dedup_by(|next, report| {
        let is_same = (&next.architecture, &next.kernel) == (&report.architecture, &report.kernel);
        if is_same {
            report.cases.append(&mut next.cases);
        }
        is_same
    });
    Ok(reports)
}

fn page(reports: &[Report]) -> String {
    let mut page = HEAD.to_owned();
    for reports in reports.chunk_by(|a, b| a.architecture == b.architecture) {
        let Some(Report { architecture, .. }) = reports.first() else { continue };
        let rows = rows(reports);
        if reports.len() > 1 {
            let _ = write!(page, "\n## {architecture}: where the versions differ\n\n");
            let different: Vec<_> = rows.iter().filter(|row| row.differs()).collect();
            page.push_str(&match different.is_empty() {
                true => "They do not.\n".to_owned(),
                false => table(reports, different.into_iter()),
            });
        }
        let _ = write!(page, "\n## {architecture}: every case\n\n{}", table(reports, rows.iter()));
        let _ = write!(page, "\n<details><summary>{architecture}: why</summary>\n\n");
        for (why, names) in reasons(&rows) {
            let _ = writeln!(page, "- {why}. {}", names.join("; "));
        }
        page.push_str("\n</details>\n");
    }
    let is_run = |architecture: &str, kernel: &str| {
        let of_kernel = |report: &Report| report.kernel.split(['.', '-']).take(2).eq(kernel.split('.'));
        reports.iter().any(|report| report.architecture == architecture && of_kernel(report))
    };
    let wanted = ARCHITECTURES.iter().flat_map(|arch| KERNELS.iter().map(move |kernel| (*arch, *kernel)));
    let missing: Vec<_> = wanted.filter(|(architecture, kernel)| !is_run(architecture, kernel)).collect();
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(|(arch, kernel)| format!("{arch} {kernel}")).collect();
        let _ = write!(page, "\nNot run for this page: {}.\n", missing.join(", "));
    }
    page
}

/// Each reason, with its cases.
fn reasons(rows: &[Row]) -> Vec<(&str, Vec<&str>)> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Row { name, why, .. } in rows {
        let Some(why) = why else { continue };
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    reasons
}

/// A case, with a cell for each report.
struct Row {
    name: String,
    cells: Vec<String>,
    why: Option<String>,
}

impl Row {
    /// Whether the versions that were run differ.
    fn differs(&self) -> bool {
        let mut run = self.cells.iter().filter(|cell| *cell != NOT_RUN);
        let first = run.next();
        run.any(|cell| Some(cell) != first)
    }
}

const NOT_RUN: &str = "not run";

fn rows(reports: &[Report]) -> Vec<Row> {
    let mut order = Vec::new();
    let mut cases = BTreeMap::new();
    for (number, report) in reports.iter().enumerate() {
        for case in &report.cases {
            let name = format!("{}, {}, {}, {}", case.tables, case.kind, case.response, case.place);
            if !order.contains(&name) {
                order.push(name.clone());
            }
            let row: &mut Row = cases.entry(name.clone()).or_insert_with(|| Row {
                name,
                cells: vec![NOT_RUN.to_owned(); reports.len()],
                why: None,
            });
            row.cells[number] = cell(case);
            row.why = case.why.clone().or(row.why.take());
        }
    }
    order.iter().filter_map(|name| cases.remove(name)).collect()
}

fn cell(case: &Case) -> String {
    let details: Vec<&str> =
        [case.action.as_str(), case.process.as_str()].into_iter().filter(|text| !text.is_empty()).collect();
    let text = match &case.verdict {
        None => format!("skipped: {}", case.reason),
        Some(verdict) if details.is_empty() => verdict.clone(),
        Some(verdict) => format!("{verdict}: {}", details.join("; ")),
    };
    let mark = if case.result == "unexpected" { " (unexpected)" } else { "" };
    text.replace('|', "\\|").replace('<', "&lt;") + mark
}

fn table<'a>(reports: &[Report], rows: impl Iterator<Item = &'a Row>) -> String {
    let kernels: Vec<&str> = reports.iter().map(|report| report.kernel.as_str()).collect();
    let mut table = format!(
        "| tables, kind, response, place | {} |\n|---|{}\n",
        kernels.join(" | "),
        "---|".repeat(kernels.len())
    );
    for Row { name, cells, .. } in rows {
        let mut shown = Vec::new();
        for (number, cell) in cells.iter().enumerate() {
            let is_same = number > 0 && cell != NOT_RUN && cells.get(number - 1) == Some(cell);
            shown.push(if is_same { "the same" } else { cell.as_str() });
        }
        let _ = writeln!(table, "| {name} | {} |", shown.join(" | "));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kernel: &str, process: &str) -> Report {
        let json = serde_json::json!({
            "architecture": "aarch64", "kernel": kernel,
            "cases": [{
                "tables": "acpi", "kind": "consumed", "response": "sea", "place": "user", "result": "expected",
                "verdict": "recovered", "action": "dirty LRU page: Recovered", "process": process,
                "why": "because", "reason": ""
            }]
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_page_has_a_column_for_each_kernel() {
        let same = page(&[report("6.1.0", "fine"), report("6.12.0", "fine")]);
        assert!(same.contains("They do not."), "{same}");
        let row = "| acpi, consumed, sea, user | recovered: dirty LRU page: Recovered; fine | the same |";
        assert!(same.contains(row), "{same}");
        assert!(
            same.ends_with("Not run for this page: aarch64 7.3, x86_64 6.1, x86_64 6.12, x86_64 7.3.\n"),
            "{same}"
        );
        let different = page(&[report("6.1.0", "fine"), report("6.12.0", "stale")]);
        assert!(!different.contains("They do not."), "{different}");
        assert!(different.contains("- because. acpi, consumed, sea, user\n"), "{different}");
    }
}
