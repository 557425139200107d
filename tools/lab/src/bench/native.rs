//! Times, memory and instructions on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::memory::Memory;
use super::{HEADINGS, Spread, row};
use crate::error::{Context, Error, Result};
use crate::{process, setup};

const BOOTS: usize = 20;
pub(super) const PROFILE: &str = "[machine]\nvcpus = 1\nmemory = \"128MiB\"\nfirmware = \"acpi\"\n";
const HANGING: &str = "boot.cmdline=probe.exit=hang";
/// The last line of the guest's report.
pub(super) const REPORT_END: &str = "probe: ok";

pub(super) fn bench(ghest: &Path) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot create a directory")?;
    let profile = directory.path().join("machine.toml");
    fs::write(&profile, PROFILE).context("cannot write a profile")?;
    if Path::new("/dev/kvm").exists() {
        times(ghest, &profile, directory.path())?;
        memory(ghest, &profile)?;
    } else {
        println!("  SKIPPED times and memory: this machine has no /dev/kvm");
    }
    match setup::install(&["valgrind"]) {
        Ok(()) => instructions(ghest, &profile, directory.path()),
        Err(error) => {
            println!("  SKIPPED instructions: no valgrind ({error})");
            Ok(())
        }
    }
}

/// Boots a machine, and returns its times, in milliseconds since the start of the process, by their names.
fn boot(ghest: &Path, profile: &Path, directory: &Path) -> Result<impl Fn(&str) -> Result<f64>> {
    let timings = directory.join("timings.json");
    process::output(Command::new(ghest).arg("boot").arg(profile).arg("--timings").arg(&timings))?;
    let marks: Value = serde_json::from_slice(&fs::read(&timings).context("no timings")?)
        .context("timings that are not JSON")?;
    Ok(move |mark: &str| {
        let ns = marks.get(mark).and_then(Value::as_f64);
        ns.map(|ns| ns / 1e6).context(format_args!("no time of {mark}"))
    })
}

/// The time from the process' start to the first KVM_RUN, in milliseconds.
pub(super) fn first_run(ghest: &Path, profile: &Path, directory: &Path) -> Result<f64> {
    boot(ghest, profile, directory)?("first-run")
}

fn times(ghest: &Path, profile: &Path, directory: &Path) -> Result<()> {
    let (mut first_runs, mut power_offs, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        let began = Instant::now();
        let time = boot(ghest, profile, directory)?;
        ends.push(began.elapsed().as_secs_f64() * 1e3);
        first_runs.push(time("first-run")?);
        power_offs.push(time("guest-shutdown")?);
    }
    println!("{}", row(&format!("ms, of {BOOTS} boots"), HEADINGS));
    for (what, times) in [
        ("process start to first KVM_RUN", first_runs),
        ("process start to the guest's power-off", power_offs),
        ("process start to process end", ends),
    ] {
        println!("{}", row(what, format_args!("{:.2}", Spread::new(times))));
    }
    Ok(())
}

/// The proportional set size of all mappings except the guest's memory, once the guest is idle.
fn memory(ghest: &Path, profile: &Path) -> Result<()> {
    let mut command = process::mortal_in_background(ghest);
    command.arg("boot").arg(profile).args(["--set", HANGING, "--set", "memory.backing=memfd"]);
    let memory = Memory::once(command, REPORT_END)?;
    println!("{}", row("KiB besides the guest's memory (aim: 4096)", format_args!("{:19}", memory.own)));
    println!("{}", row("KiB of the guest's memory", format_args!("{:19}", memory.guest)));
    Ok(())
}

fn instructions(ghest: &Path, profile: &Path, directory: &Path) -> Result<()> {
    // Profiles with problems end with status 2.
    let count = |arguments: &[&str], status: i32| -> Result<u64> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(ghest).args(arguments);
        let output = command.current_dir(directory).output().context("cannot run valgrind")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(status) {
            return Err(Error::new(format!("ghest {} under valgrind: {said}", arguments.join(" "))));
        }
        collected(&said).context(format_args!("valgrind counted nothing: {said}"))
    };
    let profile = &*profile.to_string_lossy();
    for arguments in [&["--version"][..], &["check", profile], &["tables", profile, "--out", "tables"]] {
        let what = format!("instructions of ghest {}", arguments.first().unwrap_or(&""));
        println!("{}", row(&what, format_args!("{:19}", count(arguments, 0)?)));
    }
    for (what, of_one, number) in [
        ("1,000 unknown keys", "unknown-key-# = 1\n", 1_000),
        ("8,000 unknown keys", "unknown-key-# = 1\n", 8_000),
        ("10,000 devices", "[[device]]\ntype = \"virtio-block\"\npath = \"disk-#\"\n", 10_000),
    ] {
        let lines = (0..number).map(|number| of_one.replace('#', &number.to_string()));
        let broken = directory.join("broken.toml");
        fs::write(&broken, "[machine]\n".to_owned() + &lines.collect::<String>())
            .context("cannot write a profile")?;
        let instructions = count(&["check", &broken.to_string_lossy()], 2)?;
        println!(
            "{}",
            row(&format!("instructions of ghest check, {what}"), format_args!("{instructions:19}"))
        );
    }
    Ok(())
}

/// `==PID== Collected : COUNT`
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valgrinds_count_is_parsed() {
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 632101\n"), Some(632_101));
        assert_eq!(collected("==1== killed"), None);
    }
}
