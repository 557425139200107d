//! Fifty machines of the built-in guest at once: that all come up, answer and stop, and what each costs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::memory::Memory;
use super::native::{PROFILE, REPORT_END};
use super::{HEADINGS, Spread, row};
use crate::error::{Context, Error, Result};
use crate::process;

const MACHINES: usize = 50;
/// Time for each step of all machines.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn bench(ghest: &Path) -> Result<()> {
    if !Path::new("/dev/kvm").exists() {
        println!("  SKIPPED: this machine has no /dev/kvm");
        return Ok(());
    }
    let directory = tempfile::tempdir().context("cannot create a directory")?;
    let start = |number| Machine::start(ghest, directory.path(), number);
    let mut machines = (1..=MACHINES).map(start).collect::<Result<Vec<_>>>()?;
    let ups = machines.iter().map(Machine::wait_until_up).collect::<Result<Vec<_>>>()?;
    for machine in &machines {
        machine.read_metrics(ghest)?;
    }
    let memory = machines.iter().map(Machine::memory).collect::<Result<Vec<_>>>()?;
    let stops = machines.iter_mut().map(|machine| machine.stop(ghest)).collect::<Result<Vec<_>>>()?;
    let first_runs = machines.iter().map(Machine::first_run).collect::<Result<Vec<_>>>()?;

    println!("{}", row("ms, KiB", HEADINGS));
    let kib = |of: fn(&Memory) -> u64| memory.iter().map(|memory| of(memory) as f64).collect();
    for (what, values) in [
        ("process start to first KVM_RUN", first_runs),
        ("process start to the guest's report", ups),
        ("power button to the end of the process", stops),
        ("KiB besides the guest's memory", kib(|memory| memory.own)),
        ("KiB of the guest's memory", kib(|memory| memory.guest)),
    ] {
        println!("{}", row(what, Spread::new(values)));
    }
    Ok(())
}

/// A machine that waits for its power button.
struct Machine {
    name: String,
    directory: PathBuf,
    monitor: Child,
    /// The milliseconds from its start to the end of its guest's report.
    reported: Receiver<f64>,
}

impl Machine {
    fn start(ghest: &Path, directory: &Path, number: usize) -> Result<Self> {
        let name = format!("vm-{number}");
        let directory = directory.join(&name);
        fs::create_dir(&directory).context("cannot create a directory")?;
        let profile = directory.join("machine.toml");
        let text =
            format!("{PROFILE}name = \"{name}\"\n[metrics]\nfile = \"metrics.prom\"\ninterval = \"100ms\"\n");
        fs::write(&profile, text).context("cannot write a profile")?;
        let mut command = process::mortal_in_background(ghest);
        command.arg("boot").arg(&profile).args(["--control"]).arg(directory.join("control"));
        command.arg("--timings").arg(directory.join("timings.json"));
        // The mapping of a memfd is not merged with its neighbours.
        command.args(["--set", "boot.cmdline=probe.exit=power-button", "--set", "memory.backing=memfd"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        let mut monitor = command.spawn().context("cannot start ghest")?;
        let console = monitor.stdout.take().context("no console")?;
        let (sender, reported) = mpsc::channel();
        // Reads to the end: a guest waits for the reader of its console.
        thread::spawn(move || {
            for line in BufReader::new(console).lines().map_while(|line| line.ok()) {
                if line.trim() == REPORT_END && sender.send(began.elapsed().as_secs_f64() * 1e3).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, directory, monitor, reported })
    }

    fn wait_until_up(&self) -> Result<f64> {
        self.reported.recv_timeout(TIMEOUT).context(format_args!("{} did not come up", self.name))
    }

    /// Reads its metrics over the control socket, and from its file.
    fn read_metrics(&self, ghest: &Path) -> Result<()> {
        let expected = format!("ghest_vcpus{{machine=\"{}\"}} 1\n", self.name);
        let printed = process::text(self.control(ghest).args(["metrics", "--prometheus"]))?;
        if !printed.contains(&expected) {
            return Err(Error::new(format!("{}: no {expected:?} in {printed}", self.name)));
        }
        let deadline = Instant::now() + TIMEOUT;
        while !fs::read_to_string(self.directory.join("metrics.prom"))
            .is_ok_and(|text| text.contains(&expected))
        {
            if Instant::now() > deadline {
                return Err(Error::new(format!("{} has no file of metrics", self.name)));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.monitor.id()));
        Memory::of(&smaps.context("cannot read smaps")?)
    }

    /// Presses the power button; returns the milliseconds until the process has ended.
    fn stop(&mut self, ghest: &Path) -> Result<f64> {
        let began = Instant::now();
        process::output(self.control(ghest).args(["power-button", "--wait", "60s"]))?;
        let status = self.monitor.wait().context("cannot wait for ghest")?;
        if status.success() {
            Ok(began.elapsed().as_secs_f64() * 1e3)
        } else {
            Err(Error::new(format!("{} ended: {status}", self.name)))
        }
    }

    /// The milliseconds from its start to the first KVM_RUN, which it has written when it ends.
    fn first_run(&self) -> Result<f64> {
        let timings = fs::read(self.directory.join("timings.json")).context("no timings")?;
        let timings: Value = serde_json::from_slice(&timings).context("timings that are not JSON")?;
        timings.get("first-run").and_then(Value::as_f64).map(|ns| ns / 1e6).context("no time of first-run")
    }

    fn control(&self, ghest: &Path) -> Command {
        let mut command = Command::new(ghest);
        command.arg("ctl").arg(self.directory.join("control"));
        command
    }
}
