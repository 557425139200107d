//! `cargo lab bench`: measurements of `ghest`, alone and beside another VMM in the same run.

mod fifty;
mod native;
mod side_by_side;
mod storm;

use std::fmt;

use crate::architecture::Architecture;
use crate::bundle::Cache;
use crate::error::Result;
use crate::workspace::Workspace;

/// Measures everything and prints it.
pub(crate) fn bench(workspace: &Workspace, cache: &Cache) -> Result<()> {
    let ghest = workspace.ghest(Architecture::X86_64, cache)?.program;
    println!("on this machine, built-in guest, 1 vCPU, 128 MiB:");
    native::bench(&ghest)?;
    println!("\nfifty of these machines at once:");
    fifty::bench(&ghest)?;
    println!("\nmemory errors on this machine, simulated:");
    storm::bench(workspace, &ghest)?;
    println!(
        "\non emulated hosts, Debian's kernel 6.1, 512 MiB (boots: x86_64, 1 vCPU; a consumed page: arm64, 2 vCPUs):"
    );
    side_by_side::bench(workspace, cache)
}

const HEADINGS: &str = "  minimum    median   maximum";

/// A line of the report: what was measured, and the result.
fn row(what: &str, values: impl fmt::Display) -> String {
    format!("  {what:44} {values}")
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
