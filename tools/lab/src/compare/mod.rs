//! `cargo lab compare`: one guest under both table sets, on emulated hosts, with memory that the host has poisoned.

mod document;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use compare::{Comparison, Look, html, text};

use crate::architecture::Architecture;
use crate::bundle::Cache;
use crate::error::{Context, Error, Result};
use crate::report::Count;
use crate::run;
use crate::scenario::Scenario;
use crate::verdict::Outcome;
use crate::workspace::Workspace;

/// The scenarios that compare are called `compare-HOST-KERNEL`.
const PREFIX: &str = "compare-";
/// The document, in the checkout.
const PAGE: &str = "docs/acpi-and-devicetree.md";

#[derive(Args)]
pub(crate) struct Options {
    /// Only on hosts of this architecture; without it, on aarch64, and for a document on both
    #[arg(long)]
    host: Option<Architecture>,
    /// Only with the guest kernel of this key; without it, 6.1, and for a document all
    #[arg(long)]
    kernel: Option<String>,
    /// Write the comparisons to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the comparison to this file, as HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Rewrite docs/acpi-and-devicetree.md, from this run and the last successful ones of the other hosts and kernels
    #[arg(long)]
    document: bool,
    /// Rewrite that document without running anything
    #[arg(long, requires = "document")]
    no_run: bool,
}

/// Runs and prints comparisons.
pub(crate) fn compare(
    options: &Options,
    workspace: &Workspace,
    cache: &Cache,
    mut scenarios: Vec<Scenario>,
) -> Result<Option<Count>> {
    let kept = workspace.lab().join("compare");
    fs::create_dir_all(&kept).context(format_args!("cannot create {}", kept.display()))?;
    let mut count = None;
    if !options.no_run {
        scenarios.retain(|scenario| options.takes(scenario));
        if scenarios.is_empty() {
            return Err(Error::new("no comparison matches: see cargo lab run --list --full compare"));
        }
        let verdicts = run::run(workspace, cache, &scenarios, false)?;
        for verdict in verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Passed) {
            let comparison = read(&verdict.directory.join("compare.json"))?;
            write(&kept.join(format!("{}.json", verdict.name)), &json(&comparison)?)?;
            println!("\n{}", text(&comparison, Look { width: 120, colour: false, fold: false }));
            for (path, content) in [(&options.json, json(&comparison)?), (&options.html, html(&comparison))] {
                path.as_ref().map(|path| write(path, &content)).transpose()?;
            }
        }
        count = Some(Count::of(&verdicts));
    }
    if options.document {
        let page = document::page(&comparisons(&kept)?);
        let path = workspace.root.join(PAGE);
        fs::create_dir_all(workspace.root.join("docs")).context("cannot create docs")?;
        write(&path, &page)?;
        println!("wrote {}", path.display());
    }
    Ok(count)
}

impl Options {
    fn takes(&self, scenario: &Scenario) -> bool {
        let kernel = self.kernel.as_deref().or((!self.document).then_some("6.1"));
        let host = self.host.or((!self.document).then_some(Architecture::Aarch64));
        scenario.name.starts_with(PREFIX)
            && host.is_none_or(|host| host == scenario.host)
            && kernel.is_none_or(|kernel| scenario.kernel.as_deref() == Some(kernel))
    }
}

/// The last comparison of each host and kernel, by name.
fn comparisons(directory: &Path) -> Result<Vec<(String, Comparison)>> {
    let listing = fs::read_dir(directory).context(format_args!("cannot list {}", directory.display()))?;
    let mut comparisons = Vec::new();
    for path in listing.flatten().map(|entry| entry.path()) {
        let name = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
        if let Some(name) = name {
            comparisons.push((name.to_owned(), read(&path)?));
        }
    }
    // Versions as numbers: 6.12 comes after 6.1.
    comparisons.sort_by_key(|(name, _)| {
        let (host, kernel) = name.split_once('-').unwrap_or((name, ""));
        let numbers: Vec<u32> = kernel.split('.').filter_map(|number| number.parse().ok()).collect();
        (host.to_owned(), numbers)
    });
    Ok(comparisons)
}

fn read(path: &Path) -> Result<Comparison> {
    let text = fs::read_to_string(path).context(format_args!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).context(format_args!("{} is no comparison", path.display()))
}

fn json(comparison: &Comparison) -> Result<String> {
    serde_json::to_string_pretty(comparison).map(|text| text + "\n").context("cannot write JSON")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(format_args!("cannot write {}", path.display()))
}
