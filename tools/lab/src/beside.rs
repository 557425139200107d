//! `cargo lab beside-qemu`: the same guest, the same host, the same poisoned page, under `ghest` and under QEMU, as a table.

use std::collections::BTreeMap;
use std::fs;

use crate::bundle::Cache;
use crate::error::{Context, Error, Result};
use crate::report::Count;
use crate::workspace::Workspace;
use crate::{run, scenario};

/// The document that the table is written to.
const PAGE: &str = "docs/beside-qemu.md";
/// The prefix of a line for the table.
const FACT: &str = "fact ";

/// Runs the scenarios of `beside-qemu` and prints the table; `document` also rewrites the document.
pub(crate) fn beside_qemu(workspace: &Workspace, cache: &Cache, document: bool) -> Result<Count> {
    let scenarios = scenario::load(&workspace.scenarios().join("beside-qemu"))?;
    let mut tables = BTreeMap::<String, Table>::new();
    let verdicts = run::measure(workspace, cache, &scenarios, &mut |verdict, transcript| {
        if let Some((case, monitor)) = verdict.name.rsplit_once('-') {
            tables.entry(case.to_owned()).or_default().add(monitor, &String::from_utf8_lossy(transcript));
        }
    })?;
    let versions = verdicts.iter().flat_map(|verdict| &verdict.versions);
    let version = |package: &str| {
        let found = versions.clone().find(|(name, _)| name.starts_with(package));
        found.map_or("none", |(_, version)| version.as_str()).to_owned()
    };
    let heading = format!(
        "Debian's kernel {} as host and as guest; QEMU {} with UEFI and `ras=on`.",
        version("linux-image-6"),
        version("qemu-system-arm:")
    );
    let text = page(&heading, &tables);
    println!("{text}");
    if document {
        let path = workspace.root.join(PAGE);
        fs::write(&path, text).context(format_args!("cannot write {}", path.display()))?;
    }
    if tables.values().any(|table| table.monitors.len() < 2) {
        return Err(Error::new("one of the two VMMs reported no facts"));
    }
    Ok(Count::of(&verdicts))
}

/// The facts that the run of each VMM reported; in the order in which they were first reported.
#[derive(Debug, Default)]
struct Table {
    facts: Vec<String>,
    monitors: BTreeMap<String, BTreeMap<String, String>>,
}

impl Table {
    fn add(&mut self, monitor: &str, transcript: &str) {
        let said = self.monitors.entry(monitor.to_owned()).or_default();
        let facts = transcript.lines().filter_map(|line| line.trim().strip_prefix(FACT)?.split_once(':'));
        for (fact, value) in facts {
            if !self.facts.iter().any(|known| known == fact) {
                self.facts.push(fact.to_owned());
            }
            said.insert(fact.to_owned(), value.trim().to_owned());
        }
    }

    /// The table in Markdown.
    fn markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let monitors = || self.monitors.keys().cloned();
        let mut text = row([String::new()].into_iter().chain(monitors()).collect());
        text += &row(std::iter::repeat_n("---".to_owned(), self.monitors.len() + 1).collect());
        for fact in &self.facts {
            let cell = |said: &BTreeMap<String, String>| match said.get(fact).map(String::as_str) {
                None => "not reported".to_owned(),
                Some("") => "none".to_owned(),
                Some(value) => value.replace('|', "\\|"),
            };
            text += &row([fact.clone()].into_iter().chain(self.monitors.values().map(cell)).collect());
        }
        text
    }
}

fn page(heading: &str, tables: &BTreeMap<String, Table>) -> String {
    let mut text = format!(
        "# The same poisoned page under ghest and under QEMU\n\nWritten by `cargo lab beside-qemu --document`, from runs on an emulated \
         arm64 host with real KVM and a page that its kernel has poisoned. {heading}\n"
    );
    for (case, table) in tables {
        let title = match case.as_str() {
            "process" => "A process of the guest reads it",
            "kernel" => "The guest's kernel reads it, for a process (write(2) of the page into a pipe)",
            other => other,
        };
        text += &format!("\n## {title}\n\n{}", table.markdown());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_both_are_columns() {
        let mut table = Table::default();
        table.add("ghest", "noise\r\nfact records: 2\r\nfact a | b: \r\n");
        table.add("qemu", "fact records: 0\nfact exit: 1\n");
        assert_eq!(
            table.markdown(),
            "|  | ghest | qemu |\n| --- | --- | --- |\n| records | 2 | 0 |\n| a | b | none | not reported |\n\
             | exit | not reported | 1 |\n"
        );
    }
}
