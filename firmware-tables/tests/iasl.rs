//! Validation of the ACPI tables by `iasl` and `acpiexec` (Debian: `acpica-tools`).
//!
//! iasl disassembles every table without a remark, and compiles the result to the same bytes. The sources of the default
//! machines with error sources are in `tests/golden` and compile to the same bytes as the builder's. After an intended
//! change, update them and review the difference:
//!
//! ```text
//! UPDATE_GOLDEN=1 cargo test -p ghest-firmware-tables --test iasl
//! ```
//!
//! acpiexec evaluates the methods with ACPICA, the interpreter of Linux.
//!
//! Without these programs, the tests are reported as ignored.

#[path = "machine/aarch64.rs"]
mod aarch64;
mod oem;
#[path = "machine/x86_64.rs"]
mod x86_64;

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, ExitCode};

use firmware_tables::{GuestTables, Table, TableSet};
use libtest_mimic::{Arguments, Failed, Trial};
use oem::OEM;
use platform::aarch64::Features;
use platform::{Arch, Platform};
use ras_core::{ErrorSource, Notification};

const GICV2: Features = Features { gic: 2, performance_monitors: false };

fn main() -> ExitCode {
    let missing =
        ["iasl", "acpiexec"].iter().any(|program| Command::new(program).arg("-v").output().is_err());
    if missing {
        eprintln!(
            "\n*** iasl or acpiexec is missing (Debian: acpica-tools). NO ACPI TABLE IS VALIDATED. ***\n"
        );
    }
    let mut trials = Vec::new();
    for machine in with_error_sources() {
        let name = format!("golden_sources_compile_to_the_tables_of_{}", machine.arch);
        trials.push(Trial::test(name, move || golden(&machine)));
    }
    for (vcpus, transports) in [(1, 0), (2, 1), (8, 13), (254, 1), (255, 1), (256, 1), (512, 64)] {
        let name = format!("x86_64_vcpus_{vcpus}_transports_{transports}_survive_a_round_trip");
        trials.push(Trial::test(name, move || validate(&x86_64::machine(vcpus, 1 << 30, transports))));
    }
    for (vcpus, features) in
        [1, 2, 16, 17, 512].map(|vcpus| (vcpus, aarch64::ALL)).into_iter().chain([(1, GICV2), (8, GICV2)])
    {
        let name = format!("aarch64_vcpus_{vcpus}_gic_{}_survive_a_round_trip", features.gic);
        trials.push(Trial::test(name, move || validate(&aarch64::machine(vcpus, features, 64))));
    }
    trials.push(Trial::test("an_its_survives_a_round_trip", || validate(&aarch64::machine_with_its())));
    trials.push(Trial::test("port_selector_and_high_windows_survive_a_round_trip", unusual_devices));
    trials.push(Trial::test("every_notification_survives_a_round_trip", every_notification));
    trials.push(Trial::test("an_event_notifies_its_device_and_no_other_bit_does", events));
    trials.push(Trial::test("capabilities_are_negotiated", capabilities));
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(missing)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The default machines, with error sources and error injection.
fn with_error_sources() -> [Platform; 2] {
    [
        x86_64::default_machine()
            .with_error_sources(x86_64::error_sources())
            .with_error_injection(x86_64::error_injection)
            .with_boot_record()
            .with_error_serialization(x86_64::error_serialization()),
        aarch64::default_machine()
            .with_error_sources(aarch64::error_sources())
            .with_error_injection(aarch64::error_injection)
            .with_boot_record()
            .with_error_serialization(aarch64::error_serialization()),
    ]
}

/// Sources with every notification, some of them twice, on both architectures.
fn every_notification() -> Result<(), Failed> {
    let polled = |milliseconds| {
        let interval_ms = NonZeroU32::new(milliseconds).ok_or("zero")?;
        Ok::<_, Failed>(Notification::Polled { interval_ms })
    };
    let shared = [Notification::Gsiv, Notification::Gpio, Notification::Gpio, polled(1)?, polled(u32::MAX)?];
    let lines = [15, 1, 15].map(|gsi| Notification::External { gsi });
    for (mut machine, own) in [
        (
            x86_64::default_machine(),
            &[Notification::Nmi, Notification::Sci, lines[0], lines[1], lines[2]][..],
        ),
        (aarch64::default_machine(), &[Notification::Sea, Notification::Sei, Notification::Sea]),
    ] {
        let notifications = shared.iter().chain(own).copied().zip((0..=u16::MAX).rev());
        if machine.arch == Arch::X86_64 {
            machine.devices.retain(|device| device.interrupts.iter().all(|interrupt| interrupt.gsi != 15));
        }
        validate(&machine.with_error_sources(
            notifications.map(|(notification, id)| ErrorSource { id, notification }).collect(),
        ))?;
    }
    Ok(())
}

/// Devices unlike those of the default machine.
fn unusual_devices() -> Result<(), Failed> {
    use platform::{AcpiObject, Interrupt, Trigger, Window};

    let mut machine = x86_64::default_machine();
    for device in &mut machine.devices {
        let Some(identity) = &mut device.acpi else { continue };
        for object in &mut identity.objects {
            if let AcpiObject::GenericEvents { selector, sources } = object {
                *selector = Window::Ports { base: 0x700, len: 4 };
                let second = platform::EventSource { mask: 1 << 31, ..sources[0] };
                sources.push(second);
            }
        }
        if device.name == "virtio0" {
            device.windows = vec![
                Window::Mmio { base: 1 << 40, len: 1 << 33 },
                Window::Mmio { base: 0xffff_f000, len: 0x1000 },
                Window::Ports { base: 0x1000, len: 0x1000 },
            ];
            device.interrupts.push(Interrupt { gsi: 600, trigger: Trigger::Level });
            identity.objects.push(AcpiObject::Integer { name: "_CCA", value: 1 });
            identity.objects.push(AcpiObject::Text { name: "_DDN", value: "a \"disk\" \\ more".into() });
            identity.objects.push(AcpiObject::Integer { name: "BIGN", value: u64::MAX - 1 });
        }
    }
    validate(&machine)
}

fn validate(machine: &Platform) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    for table in acpi_tables(&build(machine)?) {
        let source = if table.name == "rsdp" {
            rsdp_source(&table.bytes)
        } else {
            disassemble(table, directory.path())?
        };
        same(table, &compile(table, &source, directory.path())?)?;
    }
    Ok(())
}

fn golden(machine: &Platform) -> Result<(), Failed> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(machine.arch.name());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let directory = tempfile::tempdir()?;
    let built = build(machine)?;
    for table in acpi_tables(&built).filter(|table| table.name != "rsdp") {
        let path = golden.join(table.name).with_extension("dsl");
        let found = disassemble(table, directory.path())?;
        if update {
            fs::write(&path, &found)?;
        }
        let expected = fs::read_to_string(&path)?;
        same(table, &compile(table, &expected, directory.path())?)
            .map_err(|difference| format!("{difference:?}; the table now:\n{found}"))?;
    }
    Ok(())
}

/// Evaluates `_EVT` with a selector of which every byte has this value.
fn events() -> Result<(), Failed> {
    let built = build(&x86_64::default_machine())?;
    for (selector, notified) in [
        ("0x9d", &[][..]),
        ("0x02", &["PWRB"]),
        ("0x20", &["GERR"]),
        ("0x40", &["VGEN"]),
        ("0xff", &["PWRB", "GERR", "VGEN"]),
    ] {
        let text = evaluate(&built, &["-fv", selector], "\\_SB.GED0._EVT 9")?;
        let calls: Vec<&str> = text.lines().filter(|line| line.contains("Notify on")).collect();
        // Each call is a thread of its own: they come in any order.
        let one_call = |device: &&str| {
            let to = format!("[{device}]");
            calls.iter().filter(|call| call.contains(&to) && call.contains("Value 0x80")).count() == 1
        };
        let right = calls.len() == notified.len() && notified.iter().all(one_call);
        if !right {
            return Err(format!("selector {selector}: {calls:?}\n{text}").into());
        }
    }
    Ok(())
}

/// Evaluates `_OSC` as Linux does, and with invalid arguments.
fn capabilities() -> Result<(), Failed> {
    const PLATFORM: &str = "6E B0 11 08 27 4A F9 44 8D 60 3C BB C2 2E 7B 48";
    const WHEA: &str = "0C 5E 85 ED 90 6C BF 47 A6 2A 26 DE 0F C5 AD 5C";
    const USB4: &str = "3A D1 A0 23 AB 26 6C 48 9C 5F 0F FA 52 5A 57 5A";
    let cases = [
        ("nothing but APEI, a query", PLATFORM, 1, "01 00 00 00 10 00 00 00", "00 00 00 00 10 00 00 00"),
        ("nothing but APEI, a request", PLATFORM, 1, "00 00 00 00 10 00 00 00", "00 00 00 00 10 00 00 00"),
        ("nothing", PLATFORM, 1, "01 00 00 00 00 00 00 00", "00 00 00 00 00 00 00 00"),
        ("more than the platform grants", PLATFORM, 1, "01 00 00 00 FF FF FF FF", "10 00 00 00 10 08 00 00"),
        (
            "nothing that the platform grants",
            PLATFORM,
            1,
            "01 00 00 00 EF F7 FF FF",
            "10 00 00 00 00 00 00 00",
        ),
        (
            "a third doubleword",
            PLATFORM,
            1,
            "01 00 00 00 50 00 00 00 78 56 34 12",
            "10 00 00 00 10 00 00 00 78 56 34 12",
        ),
        ("another revision", PLATFORM, 2, "01 00 00 00 10 00 00 00", "08 00 00 00 10 00 00 00"),
        ("another revision, and more", PLATFORM, 2, "01 00 00 00 11 00 00 00", "18 00 00 00 10 00 00 00"),
        (
            "Linux on WHEA",
            WHEA,
            1,
            "01 00 00 00 01 00 00 00 00 00 00 00",
            "00 00 00 00 01 00 00 00 00 00 00 00",
        ),
        ("WHEA with a bit unknown", WHEA, 1, "01 00 00 00 11 00 00 00", "10 00 00 00 01 00 00 00"),
        ("an interface unknown", USB4, 1, "01 00 00 00 0F 00 00 00", "04 00 00 00 0F 00 00 00"),
        ("the shortest buffer", USB4, 1, "01 00 00 00", "04 00 00 00"),
    ];
    for machine in with_error_sources() {
        let built = build(&machine)?;
        for (case, uuid, revision, requested, expected) in cases {
            let count = requested.len().div_ceil(12);
            let call = format!("\\_SB._OSC ({uuid}) {revision} {count} ({requested})");
            let text = evaluate(&built, &[], &call)?;
            let results: Vec<&str> = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("[Buffer] Length ")?.split_once("0000: "))
                .map(|(_, bytes)| bytes.split("//").next().unwrap_or_default().trim())
                .collect();
            if results != [expected] {
                return Err(format!("{case}, on {}: {results:?}\n{text}", machine.arch).into());
            }
        }
    }
    if build(&x86_64::default_machine())?
        .table("dsdt")
        .is_none_or(|dsdt| dsdt.bytes.windows(4).any(|name| name == b"_OSC"))
    {
        return Err("a machine without error sources has _OSC".into());
    }
    Ok(())
}

/// Evaluates an object of the DSDT by `acpiexec`. Returns its output.
fn evaluate(built: &GuestTables, options: &[&str], call: &str) -> Result<String, Failed> {
    let directory = tempfile::tempdir()?;
    let dsdt = built.table("dsdt").ok_or("no DSDT")?;
    fs::write(directory.path().join(dsdt.file_name), &dsdt.bytes)?;
    let output = Command::new("acpiexec")
        .args(options)
        .args(["-b", &format!("evaluate {call}"), dsdt.file_name])
        .current_dir(directory.path())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = call.split(' ').next().unwrap_or_default();
    if !text.contains(&format!("Evaluating {name}")) || text.contains("ACPI Error") {
        return Err(format!("{call}:\n{text}").into());
    }
    Ok(text)
}

fn build(machine: &Platform) -> Result<GuestTables, Failed> {
    Ok(firmware_tables::build(TableSet::Acpi, machine, &aarch64::chosen(), &OEM)?)
}

/// The ACPI tables, without EFI tables and devicetree.
fn acpi_tables(built: &GuestTables) -> impl Iterator<Item = &Table> {
    built.tables.iter().filter(|table| table.name == "rsdp" || table.file_name.ends_with(".aml"))
}

/// The source of `table`, without the opening comment, which holds a date and a path, and without a dump of the bytes.
fn disassemble(table: &Table, directory: &Path) -> Result<String, Failed> {
    fs::write(directory.join(table.file_name), &table.bytes)?;
    iasl(directory, &["-d", table.file_name])?;
    let source = fs::read_to_string(directory.join(table.name).with_extension("dsl"))?;
    let (_, source) = source.split_once("*/").ok_or("no opening comment")?;
    let (source, _) = source.split_once("Raw Table Data").unwrap_or((source, ""));
    let lines: Vec<&str> = source.lines().map(str::trim_end).collect();
    Ok(format!("{}\n", lines.join("\n").trim()))
}

/// Compiles `source`. Integers and names already have their shortest form, so iasl has nothing to optimize.
fn compile(table: &Table, source: &str, directory: &Path) -> Result<Vec<u8>, Failed> {
    fs::write(directory.join("again.dsl"), source)?;
    let text = iasl(directory, &["-z", "-p", "again", "again.dsl"])?;
    let verdict = text.lines().find(|line| line.starts_with("Compilation successful")).unwrap_or_default();
    let clean = "Compilation successful. 0 Errors, 0 Warnings, 0 Remarks";
    if verdict != clean && verdict != format!("{clean}, 0 Optimizations") {
        return Err(format!("iasl rejects {}:\n{text}\n{source}", table.name).into());
    }
    Ok(fs::read(directory.join("again.aml"))?)
}

/// Runs iasl; any error, warning or remark is a failure. Returns its output.
fn iasl(directory: &Path, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new("iasl").arg("-vs").args(arguments).current_dir(directory).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let complaint = text.lines().find(|line| {
        let line = line.to_lowercase();
        let summary = line.starts_with("compilation successful");
        !summary && ["error", "warning", "remark", "invalid"].iter().any(|word| line.contains(word))
    });
    if !output.status.success() || complaint.is_some() {
        return Err(format!("iasl {arguments:?}:\n{text}").into());
    }
    Ok(text)
}

/// iasl writes its own creator id and revision into a DSDT that it compiles, so the checksum differs too.
fn same(table: &Table, again: &[u8]) -> Result<(), Failed> {
    let unsigned = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if table.name == "dsdt" && bytes.len() >= 36 {
            bytes[9] = 0;
            bytes[28..36].fill(0);
        }
        bytes
    };
    if unsigned(&table.bytes) != unsigned(again) {
        return Err(format!("{}: iasl makes\n{again:02x?}\nof\n{:02x?}", table.name, table.bytes).into());
    }
    Ok(())
}

/// iasl compiles an RSDP but does not disassemble one: the source is made here (ACPI 6.5, table 5.3).
fn rsdp_source(bytes: &[u8]) -> String {
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
    let number = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().rev().map(|byte| format!("{byte:02X}")).collect()
    };
    format!(
        "Signature : \"{}\"\nChecksum : {}\nOem ID : \"{}\"\nRevision : {}\nRSDT Address : {}\nLength : {}\n\
         XSDT Address : {}\nExtended Checksum : {}\nReserved : {}\n",
        text(0..8),
        number(8..9),
        text(9..15),
        number(15..16),
        number(16..20),
        number(20..24),
        number(24..32),
        number(32..33),
        number(33..36),
    )
}
