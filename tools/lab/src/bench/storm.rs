//! The cost of memory errors on this machine: from a signal to its exception, and ten thousand at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::row;
use crate::error::{Context, Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// Pages with an error that is detected at the same time, one error each: far more than the queue of a status block holds.
const PAGES: u64 = 10_000;
/// The guest waits until all of them have been reported and printed.
const PROFILE: &str = "[machine]\nvcpus = 1\nmemory = \"256MiB\"\nfirmware = \"acpi\"\n\n\
                       [boot]\ncmdline = \"probe.await-errors=10000 probe.timeout=600000\"\n";

pub(super) fn bench(workspace: &Workspace, ghest: &Path) -> Result<()> {
    if !Path::new("/dev/kvm").exists() {
        println!("  SKIPPED memory errors: this machine has no /dev/kvm");
        return Ok(());
    }
    let mut cargo = workspace.cargo();
    process::run(cargo.args(["bench", "--quiet", "--package", "ghest", "--bench", "signal_to_exception"]))?;
    storm(ghest)
}

/// Each page is reported in a record of its own, which the built-in guest reads and acknowledges, exactly once.
fn storm(ghest: &Path) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot create a directory")?;
    let (profile, events) = (directory.path().join("machine.toml"), directory.path().join("events"));
    fs::write(&profile, PROFILE).context("cannot write a profile")?;
    let mut command = Command::new(ghest);
    command.arg("boot").arg(&profile).arg("--events").arg(&events);
    for page in 0..PAGES {
        let gpa = 0x100_0000 + page * 0x2000;
        command.arg("--inject").arg(format!("ao@{gpa:#x},via=notice,when=probe: awaiting"));
    }
    let began = Instant::now();
    let console = process::text(&mut command)?;
    let seconds = began.elapsed().as_secs_f64();
    let mut reported = BTreeMap::<&str, u64>::new();
    console
        .lines()
        .filter_map(|line| line.strip_prefix("probe: error page "))
        .for_each(|page| *reported.entry(page).or_default() += 1);
    let mut after: Vec<f64> = fs::read_to_string(&events)
        .context("no events")?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event.get("event").is_some_and(|name| name == "acknowledged"))
        .filter_map(|event| Some(event.get("after_ns")?.as_f64()? / 1e6))
        .collect();
    if reported.len() as u64 != PAGES
        || reported.values().any(|times| *times != 1)
        || after.len() as u64 != PAGES
    {
        return Err(Error::new(format!(
            "of {PAGES} pages {} were reported and {} acknowledged",
            reported.len(),
            after.len()
        )));
    }
    after.sort_by(f64::total_cmp);
    let median = after.get(after.len() / 2).copied().unwrap_or(f64::NAN);
    println!(
        "{}",
        row(
            &format!("{PAGES} pages detected at the same time: reported once each"),
            format_args!("{:19}", reported.len())
        )
    );
    println!("{}", row("seconds for all, the guest's console included", format_args!("{seconds:19.1}")));
    println!("{}", row("ms from a record to its acknowledgement", format_args!("{median:19.2}")));
    Ok(())
}
