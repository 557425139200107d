//! Times, memory and instructions on this machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{HEADINGS, Spread, row};
use crate::error::{Context, Error, Result};
use crate::{process, setup};

const BOOTS: usize = 20;
/// The size of the guest's memory in KiB, by which its mapping is recognised.
const GUEST_KIB: u64 = 128 << 10;
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

fn times(ghest: &Path, profile: &Path, directory: &Path) -> Result<()> {
    let timings = directory.join("timings.json");
    let (mut first_runs, mut power_offs, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        let began = Instant::now();
        process::output(Command::new(ghest).arg("boot").arg(profile).arg("--timings").arg(&timings))?;
        ends.push(began.elapsed().as_secs_f64() * 1e3);
        let marks: Value = serde_json::from_slice(&fs::read(&timings).context("no timings")?)
            .context("timings that are not JSON")?;
        let milliseconds = |mark: &str| {
            marks
                .get(mark)
                .and_then(Value::as_f64)
                .map(|ns| ns / 1e6)
                .context(format_args!("no time of {mark}"))
        };
        first_runs.push(milliseconds("first-run")?);
        power_offs.push(milliseconds("guest-shutdown")?);
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
    // The mapping of a memfd is not merged with its neighbours.
    let backing = "memory.backing=memfd";
    command
        .arg("boot")
        .arg(profile)
        .args(["--set", HANGING, "--set", backing])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut monitor = command.spawn().context("cannot start ghest")?;
    let console = monitor.stdout.take().context("no console")?;
    let reported =
        BufReader::new(console).lines().map_while(|line| line.ok()).any(|line| line.trim() == REPORT_END);
    // It prints its last line a moment before it halts.
    std::thread::sleep(Duration::from_millis(300));
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", monitor.id()));
    monitor.kill().and_then(|()| monitor.wait().map(drop)).context("cannot end ghest")?;
    if !reported {
        return Err(Error::new("the built-in guest did not complete its report"));
    }
    let memory = Memory::of(&smaps.context("cannot read smaps")?)?;
    println!("{}", row("KiB besides the guest's memory (aim: 4096)", format_args!("{:19}", memory.own)));
    println!("{}", row("KiB of the guest's memory", format_args!("{:19}", memory.guest)));
    Ok(())
}

/// Proportional set sizes, in KiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) own: u64,
    pub(super) guest: u64,
}

impl Memory {
    /// Parses `/proc/PID/smaps` (proc(5)), in which `Size` precedes `Pss` in each mapping.
    pub(super) fn of(smaps: &str) -> Result<Self> {
        let (mut size, mut found, mut memory) = (0, false, Self { own: 0, guest: 0 });
        for line in smaps.lines() {
            let value = |name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
            if let Some(kib) = value("Size:") {
                size = kib;
                found |= size == GUEST_KIB;
            } else if let Some(kib) = value("Pss:") {
                *(if size == GUEST_KIB { &mut memory.guest } else { &mut memory.own }) += kib;
            }
        }
        if found { Ok(memory) } else { Err(Error::new("no mapping has the size of the guest's memory")) }
    }
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
    fn the_guests_memory_is_recognised_by_its_size() {
        let smaps = "00400000-00500000 r-xp 0 00:00 0 ghest\nSize: 1024 kB\nRss: 900 kB\nPss: 450 kB\n\
                     7f0000000000-7f0008000000 rw-p 0 00:00 0\nSize: 131072 kB\nPss: 2048 kB\n\
                     7ffe00000000-7ffe00021000 rw-p 0 00:00 0 [stack]\nSize: 132 kB\nPss: 12 kB\nPss_Dirty: 12 kB\n";
        assert_eq!(Memory::of(smaps).unwrap(), Memory { own: 462, guest: 2048 });
        assert!(Memory::of("Size: 4 kB\nPss: 4 kB\n").is_err());
    }

    #[test]
    fn valgrinds_count_is_parsed() {
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 632101\n"), Some(632_101));
        assert_eq!(collected("==1== killed"), None);
    }
}
