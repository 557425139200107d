//! An emulated machine that runs the guest, and its output.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use firmware_tables::GuestTables;
use libtest_mimic::Failed;
use tempfile::TempDir;

/// Longer than any wait of the guest, on a busy machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const EMULATOR: &str = "qemu-system-aarch64";

/// The emulator that the lab has prepared (`cargo lab setup`), or else the one in `PATH`.
pub(crate) fn emulator() -> PathBuf {
    let prepared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab/bin").join(EMULATOR);
    if prepared.is_file() { prepared } else { EMULATOR.into() }
}

/// A machine that is not started yet.
pub(crate) struct Machine {
    command: Command,
    /// Directory of the files that are loaded into it.
    files: TempDir,
}

/// The outcome of a run.
pub(crate) struct Outcome {
    /// Lines of the console.
    pub(crate) report: Vec<String>,
    /// Whether the machine ended by itself.
    pub(crate) ended: bool,
}

impl Machine {
    /// QEMU's `virt` with machine options and a number of processors.
    pub(crate) fn new(options: &str, processors: u32) -> Result<Self, Failed> {
        let mut command = Command::new(emulator());
        command
            .args(["-M", &format!("virt,{options}"), "-cpu", "max,pauth=off", "-m", "512"])
            .args(["-smp", &processors.to_string(), "-nodefaults"])
            .args(["-display", "none", "-serial", "stdio"]);
        Ok(Machine { command, files: tempfile::tempdir()? })
    }

    /// Has the emulator load the guest, with the emulator's devicetree.
    pub(crate) fn kernel(mut self, image: &[u8], cmdline: &str) -> Result<Self, Failed> {
        let path = self.file("probe.img", image)?;
        self.command.arg("-kernel").arg(path).args(["-append", cmdline]);
        Ok(self)
    }

    /// Loads the guest and its tables at their addresses, and enters it as a boot loader does.
    pub(crate) fn boot(mut self, image: &[u8], at: u64, tables: &GuestTables) -> Result<Self, Failed> {
        /// Address of the code that enters the guest, otherwise unused.
        const SHIM: u64 = 0x5f00_0000;
        self = self.load("probe.img", image, at)?;
        for table in &tables.tables {
            self = self.load(&format!("{:x}-{}", table.gpa, table.file_name), &table.bytes, table.gpa)?;
        }
        self = self.load("shim", &enter(at, tables.entry.gpa()), SHIM)?;
        self.command.args(["-device", &format!("loader,addr={SHIM:#x},cpu-num=0")]);
        Ok(self)
    }

    fn load(mut self, name: &str, bytes: &[u8], at: u64) -> Result<Self, Failed> {
        let path = self.file(name, bytes)?;
        self.command.args(["-device", &format!("loader,file={path},addr={at:#x},force-raw=on")]);
        Ok(self)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<String, Failed> {
        let path: &Path = &self.files.path().join(name);
        fs::write(path, bytes)?;
        Ok(path.display().to_string())
    }

    /// Runs until the machine ends, or for five seconds after the guest's report. `input` is written to the console when a line
    /// starts with `probe: listening`.
    pub(crate) fn run(mut self, input: &str) -> Result<Outcome, Failed> {
        let mut child =
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut console = child.stdin.take().ok_or("no input")?;
        let output = child.stdout.take().ok_or("no output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut deadline = Instant::now() + RUN_TIMEOUT;
        let mut report = Vec::new();
        let ended = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let line = line.trim_end().to_owned();
                    if line.starts_with("probe: listening") {
                        console.write_all(input.as_bytes())?;
                    }
                    if line.starts_with("probe: ok") {
                        // Power-off is immediate, and does not happen if the guest is to hang.
                        deadline = deadline.min(Instant::now() + Duration::from_secs(5));
                    }
                    report.push(line);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break true,
                Err(mpsc::RecvTimeoutError::Timeout) => break false,
            }
        };
        if !ended {
            child.kill()?;
        }
        let status = child.wait()?;
        if ended && !status.success() {
            return Err(format!("the emulator ended with {status}: {report:#?}").into());
        }
        Ok(Outcome { report, ended })
    }
}

/// Code that enters an arm64 Image: X0 is the address of the devicetree.
fn enter(image: u64, devicetree: u64) -> Vec<u8> {
    const LDR_X0_16: u32 = 0x5800_0080;
    const LDR_X16_20: u32 = 0x5800_00b0;
    const BR_X16: u32 = 0xd61f_0200;
    const NOP: u32 = 0xd503_201f;
    let code = [LDR_X0_16, LDR_X16_20, BR_X16, NOP].map(u32::to_le_bytes).concat();
    [code, devicetree.to_le_bytes().to_vec(), image.to_le_bytes().to_vec()].concat()
}
