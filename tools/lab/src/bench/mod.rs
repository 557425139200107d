//! `cargo lab bench`: measurements of `ghest`, alone and beside another VMM in the same run.

mod fifty;
mod memory;
mod native;
mod server;
mod side_by_side;
mod storm;
mod throughput;

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;

use crate::architecture::Architecture;
use crate::bundle::Cache;
use crate::error::Result;
use crate::workspace::Workspace;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Start, memory and instructions of the bare machine
    Bare,
    /// Fifty machines at once: start, stop and memory
    Fifty,
    /// What the devices of a server add to start and memory
    Server,
    /// Disk and network beside QEMU, on emulated hosts
    Throughput,
    /// Simulated memory errors
    Errors,
    /// Boots and a consumed page on emulated hosts, beside QEMU
    Emulated,
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Self::Bare => "on this machine, built-in guest, 1 vCPU, 128 MiB",
            Self::Fifty => "fifty of these machines at once",
            Self::Server => {
                "with a disk, a network, a random number generator and vsock, 1 vCPU, 128 MiB (start: this machine; \
                 memory: Debian's kernel 6.1 on emulated hosts)"
            }
            Self::Throughput => "on emulated hosts, Debian's kernel 6.1, 2 vCPUs, 1 GiB",
            Self::Errors => "memory errors on this machine, simulated",
            Self::Emulated => {
                "on emulated hosts, Debian's kernel 6.1, 512 MiB (boots: x86_64, 1 vCPU; a consumed page: arm64, 2 vCPUs)"
            }
        }
    }
}

/// Measures these parts, or everything if there are none, and prints it.
pub(crate) fn bench(workspace: &Workspace, cache: &Cache, parts: &[Part]) -> Result<()> {
    let ghest = workspace.ghest(Architecture::X86_64, cache)?.program;
    for part in if parts.is_empty() { Part::value_variants() } else { parts } {
        println!("{}:", part.title());
        match part {
            Part::Bare => native::bench(&ghest)?,
            Part::Fifty => fifty::bench(&ghest)?,
            Part::Server => server::bench(workspace, cache, &ghest)?,
            Part::Throughput => throughput::bench(workspace, cache)?,
            Part::Errors => storm::bench(workspace, &ghest)?,
            Part::Emulated => side_by_side::bench(workspace, cache)?,
        }
        println!();
    }
    Ok(())
}

const HEADINGS: &str = "  minimum    median   maximum";

/// A line of the report: what was measured, and the result.
fn row(what: &str, values: impl fmt::Display) -> String {
    format!("  {what:44} {values}")
}

/// What a guest printed as `result NAME VALUE`.
fn results(transcript: &str) -> BTreeMap<String, String> {
    let results = transcript.lines().filter_map(|line| line.trim().strip_prefix("result ")?.split_once(' '));
    results.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// Measurements of one quantity.
struct Spread(Vec<f64>);

impl Spread {
    fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The median; the greater of the two middle ones if their number is even.
    fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        let (least, most) = (end(self.0.first()), end(self.0.last()));
        let digits = formatter.precision().unwrap_or(1);
        write!(formatter, "{:9.digits$} {:9.digits$} {:9.digits$}", least, self.median(), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_shows_minimum_median_and_maximum() {
        let spread = Spread::new(vec![3.0, 10.0, 1.25]);
        assert_eq!(format!("{spread:.2}"), "     1.25      3.00     10.00");
        assert_eq!(Spread::new(vec![1.0, 2.0]).median(), 2.0);
    }
}
