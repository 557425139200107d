//! The same kernel under `ghest` and under another VMM, alternately on the same host.

use std::collections::BTreeMap;

use super::{HEADINGS, Spread, row};
use crate::apt::{Follow, Release};
use crate::architecture::Architecture;
use crate::bundle::Cache;
use crate::error::{Error, Result};
use crate::report::Count;
use crate::verdict::Verdict;
use crate::workspace::Workspace;
use crate::{run, scenario};

pub(super) fn bench(workspace: &Workspace, cache: &Cache) -> Result<()> {
    let scenarios = scenario::load(&workspace.scenarios().join("benchmark"))?;
    let verdicts = run::measure(workspace, cache, &scenarios, &mut |_, _| {})?;
    if !Count::of(&verdicts).is_good() {
        return Err(Error::new("not all boots were completed"));
    }
    // Seconds by what was measured, and then by monitor.
    let mut measured = BTreeMap::<(&str, &str), BTreeMap<&str, Vec<f64>>>::new();
    for verdict in &verdicts {
        let Boot { kind, monitor, marks } = Boot::of(verdict)?;
        for (mark, seconds) in marks {
            measured.entry((kind, mark)).or_default().entry(monitor).or_default().push(seconds);
        }
    }
    println!("{}", row("seconds", HEADINGS));
    for ((kind, mark), monitors) in measured {
        let mut medians = BTreeMap::new();
        for (monitor, seconds) in monitors {
            let spread = Spread::new(seconds);
            println!("{}", row(&format!("{kind}, {mark}, {monitor}"), format_args!("{spread:.2}")));
            medians.insert(monitor, spread.median());
        }
        let ours = medians.remove(OURS).unwrap_or(f64::NAN);
        for (monitor, theirs) in medians {
            let ratio = ours / theirs;
            println!("{}", row(&format!("{kind}, {mark}, {OURS} : {monitor}"), format_args!("{ratio:19.2}")));
        }
    }
    without_kvmtool(cache)
}

const OURS: &str = "ghest";

/// One boot, and its measured times in seconds.
struct Boot<'a> {
    kind: &'a str,
    monitor: &'a str,
    marks: Vec<(&'static str, f64)>,
}

impl<'a> Boot<'a> {
    /// The times of a verdict named `BOOT-KIND-MONITOR`: between its last two steps, and from the first of these to the VMM's end.
    fn of(verdict: &'a Verdict) -> Result<Self> {
        let parts: Vec<&str> = verdict.name.split('-').collect();
        match (parts.as_slice(), verdict.steps.as_slice(), verdict.ended) {
            ([_, kind @ "consumed", monitor], [.., touched, signalled], _) => Ok(Self {
                kind,
                monitor,
                marks: vec![("from the touch to the process's signal", signalled - touched)],
            }),
            ([_, kind, monitor], [started, up], Some(ended)) => Ok(Self {
                kind,
                monitor,
                marks: vec![
                    ("from start to user space", up - started),
                    ("from start to the VMM's end", ended - started),
                ],
            }),
            _ => Err(Error::new(format!("{}: unknown benchmark", verdict.name))),
        }
    }
}

/// Prints why kvmtool is not part of the comparison.
fn without_kvmtool(cache: &Cache) -> Result<()> {
    for release in [Release::Bookworm, Release::Trixie, Release::TrixieBackports] {
        let apt = cache.apt(release)?;
        let found = apt.resolve("kvmtool", Architecture::X86_64, Follow::Only(&[])).is_ok();
        println!(
            "  SKIPPED kvmtool: {}",
            match (apt.has_lists(), found) {
                (true, true) => format!("{} has it now", release.name()),
                (true, false) => format!("{} has no such package", release.name()),
                (false, _) => format!("the package lists of {} were not fetched", release.name()),
            }
        );
    }
    Ok(())
}
