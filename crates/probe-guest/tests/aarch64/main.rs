//! The guest for aarch64 on QEMU, with QEMU's devicetree and with our tables. If an emulator or a compiler is not installed, its
//! tests are `ignored` in the summary.

mod cross;
mod emulated;
mod errors;
#[path = "../oem/mod.rs"]
mod oem;

use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use firmware_tables::{GuestTables, TableSet};
use libtest_mimic::{Arguments, Failed, Trial};
use platform::aarch64::{self, Features};
use platform::{Chosen, InterruptController, MemoryMap, Platform, Range, Region, RegionKind};

use emulated::{Machine, Outcome};
use oem::OEM;

fn main() -> ExitCode {
    let tests = [
        test("is_an_image", is_an_image),
        test("passes_clippy", || cross::lint(GUEST)),
        emulated("runs_with_gicv3", || runs_on_qemu("gic-version=3")),
        emulated("runs_with_gicv2", || runs_on_qemu("gic-version=2")),
        emulated("reads_our_devicetree_with_gicv3", || reads_our_devicetree(3)),
        emulated("reads_our_devicetree_with_gicv2", || reads_our_devicetree(2)),
        emulated("reads_our_acpi_with_gicv3", || reads_our_acpi(3)),
        emulated("reads_our_acpi_with_gicv2", || reads_our_acpi(2)),
        emulated("echoes", echoes),
        emulated("resets", resets),
        emulated("hangs", || stays_on("probe.exit=hang")),
        emulated("loops", || stays_on("probe.exit=loop probe.exit=triple-fault")),
        emulated("reports_missing_memory", reports_missing_memory),
        emulated("reports_missing_processors", reports_missing_processors),
        emulated("reports_missing_redistributors", reports_missing_redistributors),
        emulated("reports_wrong_checksums", reports_wrong_checksums),
        emulated("abandons_accesses_that_abort_with_gicv3", || errors::abandons_accesses_that_abort(3)),
        emulated("abandons_accesses_that_abort_with_gicv2", || errors::abandons_accesses_that_abort(2)),
        emulated("processes_records_of_acpi", errors::processes_records_of_acpi),
        emulated("processes_records_of_a_devicetree", errors::processes_records_of_a_devicetree),
        emulated("rejects_malformed_records", errors::rejects_malformed_records),
        emulated("a_wait_for_errors_times_out", errors::a_wait_for_errors_times_out),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests.into()).exit_code()
}

fn test(name: &str, run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    let missing = cross::missing();
    if let Some(missing) = missing {
        eprintln!("NOT RUN: {name} needs {missing}");
    }
    Trial::test(name, run).with_kind("aarch64").with_ignored_flag(missing.is_some())
}

fn emulated(name: &str, run: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    let found = Command::new(emulated::emulator())
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_missing = found.is_err();
    if is_missing {
        eprintln!("NOT RUN: {name} needs {}, which `cargo lab setup` provides", emulated::EMULATOR);
    }
    let trial = test(name, run);
    let ignored = is_missing || trial.has_ignored_flag();
    trial.with_ignored_flag(ignored)
}

const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/main.rs");

/// The Image, built once.
fn image() -> Result<&'static [u8], Failed> {
    static IMAGE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let built = IMAGE.get_or_init(|| {
        cross::image().map_err(|failed| failed.message().unwrap_or("the guest does not build").to_owned())
    });
    Ok(built.as_deref().map_err(Clone::clone)?)
}

/// Linux, Documentation/arch/arm64/booting.rst, 4.
fn is_an_image() -> Result<(), Failed> {
    let image = image()?;
    let quad = |at: usize| image[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    assert_eq!(&image[56..60], b"ARM\x64");
    assert_eq!(image[3] & 0xfc, 0x14, "a branch");
    assert_eq!((quad(8), quad(24)), (Some(0), Some(0xa)), "offset 0; little-endian, 4 KiB, anywhere");
    let size = quad(16).ok_or("no size")?;
    assert!((image.len() as u64) < size && size < 2 << 20 && size.is_multiple_of(4096), "{size:#x}");
    assert!(image.len() < 96 << 10, "{} bytes", image.len());
    Ok(())
}

fn assert_lines(report: &[String], wanted: &[&str]) {
    for wanted in wanted {
        assert!(report.iter().any(|line| line == wanted), "{wanted} is missing in {report:#?}");
    }
}

fn runs_on_qemu(options: &str) -> Result<(), Failed> {
    let Outcome { report, ended } = Machine::new(options, 3)?.kernel(image()?, "a \"b\"")?.run("")?;
    assert_lines(
        &report,
        &[
            "probe: entry image",
            r#"probe: cmdline "a \x22b\x22""#,
            "probe: memory 0x40000000-0x60000000 usable",
            "probe: memory-total 536870912",
            "probe: memory-touched ok",
            "probe: firmware devicetree",
            "probe: psci 1.1 hvc",
            "probe: timer ok",
            "probe: cpu 0 mpidr 0x0 boot",
            "probe: cpu 2 mpidr 0x2 online",
            "probe: cpus 3 listed, 3 online",
            "probe: serial-interrupt ok",
            "probe: ged none",
        ],
    );
    assert!(report.iter().any(|line| line.starts_with("probe: rtc 20")), "{report:#?}");
    assert_eq!(report.last().map(String::as_str), Some("probe: ok"));
    assert!(ended, "the machine stays on");
    Ok(())
}

/// The range of our tables, which does not overlap the emulator's devicetree.
const TABLES: Range = Range { start: 0x4040_0000, len: aarch64::TABLES_LEN };
/// Neither the guest's link address nor the usual address of a kernel.
const IMAGE_AT: u64 = 0x4660_0000;

/// Our description of the emulator's machine.
fn machine(gic: u8, vcpus: u32, memory: u64) -> Platform {
    let features = Features { gic, performance_monitors: false };
    let devices = vec![
        devices::pl011::node(aarch64::SERIAL_BASE, aarch64::SERIAL_INTID),
        devices::pl031::node(aarch64::RTC_BASE, "TEST0031"),
    ];
    let mut machine =
        aarch64::platform(&aarch64::Layout::REFERENCE, vcpus, memory, features, devices, Some("serial0"));
    match &mut machine.interrupts {
        InterruptController::Gicv3 { redistributors, .. } => redistributors.start = 0x80a_0000,
        InterruptController::Gicv2 { cpu_interface, .. } => cpu_interface.start = 0x801_0000,
        InterruptController::Apic { .. } => {}
    }
    let ram = Range { start: aarch64::RAM_START, len: memory };
    let region = |start, end, kind| Region { range: Range::between(start, end), kind };
    machine.memory = MemoryMap {
        ram: vec![ram],
        regions: vec![
            region(ram.start, TABLES.start, RegionKind::Usable),
            region(TABLES.start, TABLES.end(), RegionKind::AcpiReclaim),
            region(TABLES.end(), ram.end(), RegionKind::Usable),
        ],
        tables: TABLES,
        devicetree: machine.memory.devicetree,
        records: None,
        boot_record: None,
        error_log: None,
    };
    machine
}

fn tables(set: TableSet, machine: &Platform, cmdline: &str) -> Result<GuestTables, Failed> {
    let chosen = Chosen { command_line: cmdline.to_owned(), ..Chosen::default() };
    Ok(firmware_tables::build(set, machine, &chosen, &OEM)?)
}

/// Runs the guest on a machine with three processors and 512 MiB. The tables may describe another machine.
fn run(set: TableSet, described: &Platform, cmdline: &str) -> Result<Outcome, Failed> {
    let tables = tables(set, described, cmdline)?;
    let gic = if matches!(described.interrupts, InterruptController::Gicv2 { .. }) { 2 } else { 3 };
    Machine::new(&format!("gic-version={gic},acpi=off"), 3)?
        .boot(image()?, IMAGE_AT, &tables)?
        .run("hello\r\n\r\nquit\n")
}

fn reads_our_devicetree(gic: u8) -> Result<(), Failed> {
    let Outcome { report, ended } = run(TableSet::Devicetree, &machine(gic, 3, 512 << 20), "a b")?;
    assert_lines(
        &report,
        &[
            r#"probe: cmdline "a b""#,
            "probe: firmware devicetree",
            "probe: timer ok",
            "probe: cpus 3 listed, 3 online",
            "probe: serial-interrupt ok",
            "probe: ged none",
        ],
    );
    assert!(report.iter().any(|line| line.starts_with("probe: rtc 20")), "{report:#?}");
    assert_eq!(report.last().map(String::as_str), Some("probe: ok"));
    assert!(ended, "the machine stays on");
    Ok(())
}

fn reads_our_acpi(gic: u8) -> Result<(), Failed> {
    let Outcome { report, ended } = run(TableSet::Acpi, &machine(gic, 3, 512 << 20), "a b")?;
    assert_lines(
        &report,
        &[
            r#"probe: cmdline "a b""#,
            "probe: memory 0x40000000-0x40400000 usable",
            "probe: memory 0x40400000-0x404f0000 acpi",
            "probe: memory 0x404f0000-0x60000000 usable",
            "probe: memory-total 535887872",
            "probe: firmware acpi",
            "probe: efi-runtime-services 0x0",
            "probe: psci 1.1 hvc",
            "probe: timer ok",
            "probe: cpu 2 mpidr 0x2 online",
            "probe: cpus 3 listed, 3 online",
            "probe: serial-interrupt ok",
            "probe: ged none",
            "probe: rtc none",
        ],
    );
    let has =
        |start: &str, end: &str| report.iter().any(|line| line.starts_with(start) && line.ends_with(end));
    assert!(has("probe: efi 0x404", "checksum ok runtime 0x0"), "{report:#?}");
    assert!(has("probe: devicetree at 0x40100000 ", " nodes 2"), "{report:#?}");
    assert!(has("probe: rsdp 0x404", " from efi"), "{report:#?}");
    for table in ["RSDP", "XSDT", "FACP", "APIC", "GTDT", "SPCR", "DBG2", "PPTT", "DSDT"] {
        assert!(has(&format!("probe: table {table} at 0x404"), "checksum ok"), "{table}: {report:#?}");
    }
    assert_eq!(report.last().map(String::as_str), Some("probe: ok"));
    assert!(ended, "the machine stays on");
    Ok(())
}

fn echoes() -> Result<(), Failed> {
    let Outcome { report, ended } = run(TableSet::Devicetree, &machine(3, 1, 512 << 20), "probe.echo")?;
    let last: Vec<_> = report.iter().rev().take(3).rev().map(String::as_str).collect();
    assert_eq!(last, ["probe: listening", "probe: echo hello", "probe: ok"]);
    assert!(ended, "the machine stays on");
    Ok(())
}

/// After a reset the machine boots again and prints another report.
fn resets() -> Result<(), Failed> {
    let Outcome { report, ended } = run(TableSet::Acpi, &machine(3, 2, 512 << 20), "probe.exit=reset")?;
    let after: Vec<_> =
        report.windows(2).filter(|pair| pair[0] == "probe: ok").map(|pair| pair[1].as_str()).collect();
    assert!(!after.is_empty() && after.iter().all(|line| *line == "probe: entry image"), "{report:#?}");
    assert!(!ended, "the machine is off");
    Ok(())
}

fn stays_on(cmdline: &str) -> Result<(), Failed> {
    let Outcome { report, ended } = run(TableSet::Acpi, &machine(3, 2, 512 << 20), cmdline)?;
    assert_eq!(report.last().map(String::as_str), Some("probe: ok"));
    assert!(!ended, "the machine is off");
    Ok(())
}

/// The tables list more memory than exists: the last frame is not backed.
fn reports_missing_memory() -> Result<(), Failed> {
    let Outcome { report, .. } = run(TableSet::Devicetree, &machine(3, 1, 1 << 30), "")?;
    let result = report.last().ok_or("no report")?;
    assert!(
        result.starts_with("probe: failed exception ESR 0x96") && result.ends_with(" FAR 0x7ffff000"),
        "{report:#?}"
    );
    Ok(())
}

fn reports_missing_processors() -> Result<(), Failed> {
    let Outcome { report, .. } = run(TableSet::Acpi, &machine(2, 5, 512 << 20), "")?;
    assert_lines(
        &report,
        &["probe: cpu 2 mpidr 0x2 online", "probe: cpu 3 mpidr 0x3 silent", "probe: cpus 5 listed, 3 online"],
    );
    let failed = "probe: failed PSCI does not start the processor with MPIDR 0x3";
    assert_eq!(report.last().map(String::as_str), Some(failed));
    Ok(())
}

fn reports_missing_redistributors() -> Result<(), Failed> {
    let mut machine = machine(3, 3, 512 << 20);
    if let InterruptController::Gicv3 { redistributors, .. } = &mut machine.interrupts {
        redistributors.len = 2 * aarch64::GIC_REDISTRIBUTOR_LEN;
    }
    let Outcome { report, .. } = run(TableSet::Devicetree, &machine, "")?;
    let failed = "probe: failed no redistributor for the processor with MPIDR 0x2";
    assert_eq!(report.last().map(String::as_str), Some(failed));
    Ok(())
}

fn reports_wrong_checksums() -> Result<(), Failed> {
    for (name, start) in [
        ("gtdt", "probe: failed checksum bad of the table at 0x404"),
        ("efi-system-table", "probe: failed EFI system table: checksum bad, expected 0x"),
    ] {
        let mut tables = tables(TableSet::Acpi, &machine(3, 1, 512 << 20), "")?;
        let table = tables.tables.iter_mut().find(|table| table.name == name).ok_or(name)?;
        // The secure timer's interrupt in the GTDT, the revision in the system table.
        let at = if name == "gtdt" { 48 } else { 8 };
        table.bytes[at] ^= 1;
        let outcome =
            Machine::new("gic-version=3,acpi=off", 3)?.boot(image()?, IMAGE_AT, &tables)?.run("")?;
        let result = outcome.report.last().ok_or("no report")?;
        assert!(result.starts_with(start), "{:#?}", outcome.report);
    }
    Ok(())
}
