//! Checks of the guest by other tools. If a tool is not installed, its test is `ignored` in the summary.

#[path = "../guest/aml.rs"]
mod aml;
#[path = "../guest/dsdt.rs"]
mod dsdt;
#[path = "../guest/failure.rs"]
mod failure;
#[path = "../guest/format.rs"]
#[allow(dead_code, reason = "nothing is shown here; an expectation does not see traits")]
mod format;
#[path = "../guest/wire.rs"]
#[expect(dead_code, reason = "only resources are read here")]
mod wire;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use dsdt::{Dsdt, EventDevice, Interrupt};

fn main() -> ExitCode {
    let tests = [
        of_x86_64(test("objdump", "--version", "uses_no_vector_registers", uses_no_vector_registers)),
        test("iasl", "-v", "reads_a_dsdt_compiled_by_iasl", reads_a_dsdt_compiled_by_iasl),
        test("rustfmt", "--version", "is_formatted", is_formatted),
        test("clippy-driver", "--version", "passes_clippy", passes_clippy),
        of_x86_64(test(EMULATOR, "--version", "runs_on_qemu", runs_on_qemu)),
        of_x86_64(test(
            EMULATOR,
            "--version",
            "handles_errors_injected_by_qemu",
            handles_errors_injected_by_qemu,
        )),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests.into()).exit_code()
}

fn test(tool: &str, version: &str, name: &str, run: fn() -> Result<(), Failed>) -> Trial {
    let found = Command::new(path(tool)).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_missing = found.is_err();
    if is_missing {
        eprintln!("NOT RUN: {name} needs {tool}: try `cargo lab setup`");
    }
    Trial::test(name, run).with_kind(tool).with_ignored_flag(is_missing)
}

const EMULATOR: &str = "qemu-system-x86_64";

/// The tool that the lab has prepared (`cargo lab setup`), or else the one in `PATH`.
fn path(tool: &str) -> PathBuf {
    let prepared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab/bin").join(tool);
    if prepared.is_file() { prepared } else { tool.into() }
}

/// Ignores a test of the x86_64 guest on other architectures.
fn of_x86_64(test: Trial) -> Trial {
    let is_missing = cfg!(not(target_arch = "x86_64"));
    if is_missing {
        eprintln!("NOT RUN: {} is for x86_64", test.name());
    }
    let ignored = is_missing || test.has_ignored_flag();
    test.with_ignored_flag(ignored)
}

fn uses_no_vector_registers() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("probe.elf");
    fs::write(&image, probe_guest::IMAGE)?;
    let output = Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(image).output()?;
    let text = String::from_utf8(output.stdout)?;
    // Checks that this is a disassembly of the guest.
    assert!(text.contains("wrmsr") && text.lines().count() > 1000, "{text}");
    assert!(names_vector_register("movups %xmm0,(%rdi)") && names_vector_register("fld %st(0)"));
    let vector: Vec<_> = text.lines().filter(|line| names_vector_register(line)).collect();
    assert!(vector.is_empty(), "{vector:#?}");
    Ok(())
}

/// Whether an instruction has an MMX, SSE, AVX or x87 operand: `%mm0`, `%xmm0`, `%st(1)`.
fn names_vector_register(instruction: &str) -> bool {
    instruction.split('%').skip(1).map(|register| register.trim_start_matches(['x', 'y', 'z'])).any(
        |register| {
            register.strip_prefix("mm").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                || register.starts_with("st(")
        },
    )
}

fn reads_a_dsdt_compiled_by_iasl() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("dsdt.asl"), SOURCE)?;
    let output = Command::new("iasl").arg("dsdt.asl").current_dir(&dir).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let table = fs::read(dir.path().join("dsdt.aml"))?;
    let ged = EventDevice {
        interrupt: Interrupt { gsi: 17, level: true, active_low: true },
        selector: 0xd010_0000,
    };
    assert_eq!(Dsdt::read(&table[36..]), Ok(Dsdt { ged: Some(ged), has_rtc: true, s5_sleep_type: Some(7) }));
    Ok(())
}

/// All kinds of objects that may surround those that the guest reads.
const SOURCE: &str = r#"
DefinitionBlock ("", "DSDT", 2, "GHEST", "PROBE", 1)
{
    External (\_SB.ELSE, MethodObj)
    Name (\_S5, Package () { 7, 0, 0, 0 })
    Name (TEXT, "text")
    Name (LIST, Package () { 1, "two", Buffer () { 3 }, Package () { 0x1234567890, TEXT } })
    Mutex (MUTX, 3)
    Event (HAPP)
    Alias (TEXT, COPY)
    OperationRegion (PORT, SystemIO, 0x600, 3)
    Field (PORT, ByteAcc, NoLock, Preserve) { SLPC, 8, SLPS, 8, RSTR, 8 }
    IndexField (SLPC, SLPS, ByteAcc, NoLock, Preserve) { INDX, 8 }
    Method (ASKS, 2, Serialized) { While (Arg0) { Arg0 = Arg0 - 1 } Return (Arg1) }
    If (TEXT) { Name (CONA, 1) } Else { Name (CONB, 2) }
    Scope (\_SB)
    {
        PowerResource (PWRR, 0, 0) { Method (_STA) { Return (1) } }
        ThermalZone (ZONE) { Method (_TMP) { Return (3000) } }
        Processor (CPU0, 0, 0x0, 0) { Name (_STA, 0xf) }
        Device (HOST)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Device (RTC)
            {
                Name (_HID, EisaId ("PNP0B00"))
                Name (_CRS, ResourceTemplate () { IO (Decode16, 0x70, 0x70, 0, 2) IRQNoFlags () { 8 } })
            }
            Device (GED)
            {
                Name (_HID, "ACPI0013")
                Name (_UID, Zero)
                Name (_CRS, ResourceTemplate ()
                {
                    IO (Decode16, 0x10, 0x10, 0, 2)
                    Memory32Fixed (ReadWrite, 0xd0100000, 8)
                    Interrupt (ResourceConsumer, Level, ActiveLow, Exclusive) { 17 }
                })
                OperationRegion (REGS, SystemMemory, 0xd0100000, 8)
                Field (REGS, DWordAcc, NoLock, WriteAsZeros) { SELE, 32 }
                Method (_EVT, 1, Serialized) { Local0 = SELE If (Local0 & 2) { Notify (\_SB.PWRB, 0x80) } }
            }
            Name (_UID, 1)
        }
        Device (PWRB) { Name (_HID, EisaId ("PNP0C0C")) }
    }
}
"#;

/// `cargo fmt` does not include the guest.
fn is_formatted() -> Result<(), Failed> {
    let output = Command::new("rustfmt").args(["--check", "--edition=2024", GUEST]).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// `cargo clippy` does not include the guest.
fn passes_clippy() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let output = Command::new("clippy-driver")
        .args(["--edition=2024", "--crate-name=probe", "--crate-type=bin", "--emit=metadata", GUEST])
        .args(["-Cpanic=abort", "-Dwarnings", "-Dclippy::undocumented_unsafe_blocks", "-Dunreachable_pub"])
        .args(["-Dunsafe_op_in_unsafe_fn", "-Dclippy::indexing_slicing", "-Dclippy::unwrap_used"])
        .args(["-Dclippy::expect_used", "-Dclippy::panic", "--out-dir"])
        .arg(dir.path())
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/main.rs");

/// A QEMU machine, and the guest's output so far.
struct Machine {
    child: Child,
    lines: mpsc::Receiver<String>,
    report: Vec<String>,
    dir: tempfile::TempDir,
}

impl Machine {
    fn start(cmdline: &str) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("probe.elf");
        fs::write(&image, probe_guest::IMAGE)?;
        let monitor = format!("unix:{},server=on,wait=off", dir.path().join("monitor").display());
        let mut child = Command::new(path(EMULATOR))
            .args(["-M", "q35,accel=tcg", "-m", "256", "-smp", "3", "-nodefaults", "-no-reboot"])
            .args([
                "-display", "none", "-serial", "stdio", "-monitor", &monitor, "-append", cmdline, "-kernel",
            ])
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, lines) = mpsc::channel();
        let output = child.stdout.take().ok_or("no output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line.trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Machine { child, lines, report: Vec::new(), dir })
    }

    /// Reads lines up to one that starts with `start`. Returns the lines since the last call.
    fn wait_for(&mut self, start: &str) -> Result<&[String], Failed> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let from = self.report.len();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            let (is_end, is_failure) = (line.starts_with(start), line.starts_with("probe: failed"));
            self.report.push(line);
            if is_end {
                return Ok(&self.report[from..]);
            }
            if is_failure {
                break;
            }
        }
        Err(format!("no line starts with {start}: {:#?}", self.report).into())
    }

    /// Executes commands in the emulator's monitor.
    fn command(&self, commands: &[&str]) -> Result<(), Failed> {
        let mut monitor = UnixStream::connect(self.dir.path().join("monitor"))?;
        monitor.set_read_timeout(Some(Duration::from_secs(60)))?;
        for command in commands {
            monitor.write_all(format!("{command}\n").as_bytes())?;
        }
        // The monitor prints one prompt at the start and one after each command.
        let (mut output, mut byte) = (Vec::new(), [0]);
        while output.windows(6).filter(|window| window == b"(qemu)").count() <= commands.len() {
            monitor.read_exact(&mut byte)?;
            output.extend(byte);
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error means that the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Machine checks and NMIs on all processors.
fn handles_errors_injected_by_qemu() -> Result<(), Failed> {
    let cmdline = "probe.touch=0x2001000 probe.fetch=0x2002000 probe.touch-on=2 probe.await-errors=4 probe.timeout=60000";
    let mut machine = Machine::start(cmdline)?;
    let check = |vcpu, addr| {
        format!(
            "probe: error machine-check vcpu {vcpu} bank 9 status 0xbd000000000000c0 addr {addr} misc 0x8c mcg-status 0x5"
        )
    };
    // CPU, bank, status, MCG_STATUS, address and miscellaneous: an error detected by a scrubber (SRAO).
    let inject = |vcpu, addr| format!("mce {vcpu} 9 0xbd000000000000c0 0x5 {addr} 0x8c");
    machine.wait_for("probe: touching 0x2001000")?;
    machine.command(&[&inject(2, "0x2001008")])?;
    let lines = machine.wait_for("probe: touching 0x2002000")?;
    assert_eq!(
        lines,
        [&check(2, "0x2001008"), "probe: error offlined 0x2001000", "probe: touching 0x2002000"],
        "{lines:#?}"
    );
    machine.command(&[&inject(0, "0x2003000"), &inject(1, "0x2002000")])?;
    let mut lines = machine.wait_for("probe: awaiting")?.to_vec();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "probe: awaiting 4 errors",
            &check(0, "0x2003000"),
            &check(1, "0x2002000"),
            "probe: error offlined 0x2002000",
        ],
        "{lines:#?}"
    );
    machine.command(&["nmi"])?;
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend_from_slice(machine.wait_for("probe: error nmi vcpu ")?);
    }
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2].map(|vcpu| format!("probe: error nmi vcpu {vcpu}")));
    machine.command(&[&inject(0, "0x2003000")])?;
    assert_eq!(
        machine.wait_for("probe: ok")?,
        [&check(0, "0x2003000"), "probe: error total 4", "probe: ok"],
        "the same page is reported again"
    );
    Ok(())
}

/// QEMU's machine and firmware tables have neither an event device with a loopback register nor SLEEP_CONTROL_REG: the report
/// ends with `ok`, and the machine stays on.
fn runs_on_qemu() -> Result<(), Failed> {
    let mut machine = Machine::start("a \"b\"")?;
    let report = machine.wait_for("probe: ok")?;
    for wanted in [
        "probe: entry pvh",
        r#"probe: cmdline "a \x22b\x22""#,
        "probe: memory-touched ok",
        "probe: firmware acpi",
        "probe: error-sources none",
        "probe: timer ok",
        "probe: cpu 2 apic-id 2 online",
        "probe: cpus 3 listed, 3 online",
        "probe: serial-interrupt ok",
        "probe: ged none",
    ] {
        assert!(report.iter().any(|line| line == wanted), "{wanted} is missing in {report:#?}");
    }
    for table in ["RSDP", "FACP", "APIC", "DSDT"] {
        let start = format!("probe: table {table} at ");
        assert!(
            report.iter().any(|line| line.starts_with(&start) && line.ends_with("checksum ok")),
            "{table} is missing in {report:#?}"
        );
    }
    assert!(report.iter().any(|line| line.starts_with("probe: rtc 20")), "{report:#?}");
    assert_eq!(report.last().map(String::as_str), Some("probe: ok"));
    Ok(())
}
