//! Disk and network of a Linux guest under `ghest` and under QEMU, alternately on the same emulated host.

use std::collections::BTreeMap;

use super::{Spread, results, row};
use crate::bundle::Cache;
use crate::error::{Error, Result};
use crate::report::Count;
use crate::workspace::Workspace;
use crate::{run, scenario};

/// What is measured: its name in the scenario, its description, and whether more is better.
const MEASURED: [(&str, &str, bool); 8] = [
    ("read-latency", "µs, 4 KiB random read, alone", false),
    ("write-latency", "µs, 4 KiB random write, alone", false),
    ("random-reads", "4 KiB random reads a second, 32 queued", true),
    ("random-writes", "4 KiB random writes a second, 32 queued", true),
    ("sequential-read", "MiB/s, reads of 1 MiB", true),
    ("sequential-write", "MiB/s, writes of 1 MiB", true),
    ("to-host", "Mbit/s, TCP from the guest", true),
    ("to-guest", "Mbit/s, TCP to the guest", true),
];

const OURS: &str = "ghest";
const THEIRS: &str = "qemu";

/// Values by host, by what was measured, and by VMM.
type Measured = BTreeMap<String, BTreeMap<&'static str, BTreeMap<String, Vec<f64>>>>;

pub(super) fn bench(workspace: &Workspace, cache: &Cache) -> Result<()> {
    let scenarios = scenario::load(&workspace.scenarios().join("benchmark-throughput"))?;
    let mut measured = Measured::new();
    let verdicts = run::measure(workspace, cache, &scenarios, &mut |verdict, transcript| {
        let results = results(&String::from_utf8_lossy(transcript));
        // BOOT-HOST-MONITOR
        let mut parts = verdict.name.split('-').skip(1);
        let (Some(host), Some(monitor)) = (parts.next(), parts.next()) else { return };
        for (name, _, _) in MEASURED {
            if let Some(value) = results.get(name).and_then(|result| value(name, result)) {
                let of_host = measured.entry(host.to_owned()).or_default();
                of_host.entry(name).or_default().entry(monitor.to_owned()).or_default().push(value);
            }
        }
    })?;
    for (host, measured) in &measured {
        println!("{}", row(&format!("{host}, medians"), "    ghest      qemu  ghest is better by"));
        for (name, what, more_is_better) in MEASURED {
            let median = |monitor: &str| {
                let values = measured.get(name).and_then(|monitors| monitors.get(monitor)).cloned();
                Spread::new(values.unwrap_or_default()).median()
            };
            let (ours, theirs) = (median(OURS), median(THEIRS));
            let ratio = if more_is_better { ours / theirs } else { theirs / ours };
            println!("{}", row(what, format_args!("{ours:9.0} {theirs:9.0} {ratio:19.2}")));
        }
    }
    if Count::of(&verdicts).is_good() { Ok(()) } else { Err(Error::new("not all boots were completed")) }
}

/// The value of a result: fio(1), "Terse output", or iperf3's `[  5]   0.00-4.00   sec  1.2 MBytes  34 Mbits/sec  receiver`.
fn value(name: &str, result: &str) -> Option<f64> {
    if let Some((before, _)) = result.split_once(" Mbits/sec") {
        return before.split_whitespace().last()?.parse().ok();
    }
    // Fields of reads; those of writes follow 41 later.
    const KIB_A_SECOND: usize = 6;
    const A_SECOND: usize = 7;
    const MEAN_LATENCY: usize = 39;
    let field = |number: usize| -> Option<f64> {
        let number = if name.contains("write") { number + 41 } else { number };
        result.split(';').nth(number)?.parse().ok()
    };
    match name {
        "read-latency" | "write-latency" => field(MEAN_LATENCY),
        "sequential-read" | "sequential-write" => Some(field(KIB_A_SECOND)? / 1024.0),
        _ => field(A_SECOND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_both_programs_are_read() {
        let fields: Vec<String> = (0..130).map(|number| number.to_string()).collect();
        let terse = fields.join(";");
        assert_eq!(value("random-reads", &terse), Some(7.0));
        assert_eq!(value("random-writes", &terse), Some(48.0));
        assert_eq!(value("write-latency", &terse), Some(80.0));
        assert_eq!(value("sequential-write", &terse), Some(47.0 / 1024.0));
        let line = "[  5]   0.00-4.04   sec   100 MBytes  12345 Mbits/sec                  receiver";
        assert_eq!(value("to-host", line), Some(12345.0));
        assert_eq!(value("to-host", ""), None);
    }
}
