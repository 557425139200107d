//! Compares two recorded consoles of the built-in guest, which differ in their firmware tables, and prints the result.
//!
//! `cargo run -p ghest-compare --example two_consoles`

use compare::{Comparison, Console, Ending, HostSummary, Look, MachineSummary, Only, Recording, text};

/// A console: milliseconds since the start of the VMM, and a line.
const ACPI: &[(u64, &str)] = &[
    (16, "probe: entry pvh"),
    (86, "probe: firmware acpi"),
    (98, "probe: table FACP at 0xe0280 276 bytes checksum ok"),
    (155, "probe: cpus 2 listed, 2 online"),
    (166, "probe: ged ok gsi 9 events 0x80000000"),
    (172, "probe: rtc 2026-11-25T20:07:40"),
    (195, "probe: ok"),
];
const MP_TABLE: &[(u64, &str)] = &[
    (17, "probe: entry pvh"),
    (84, "probe: firmware mptable"),
    (90, "probe: table _MP_ at 0xf0000 16 bytes checksum ok"),
    (150, "probe: cpus 2 listed, 2 online"),
    (160, "probe: ged none"),
    (181, "probe: ok"),
];

fn main() {
    let recordings = [recording("acpi", ACPI), recording("mptable", MP_TABLE)];
    let machine = MachineSummary {
        name: "example".into(),
        architecture: "x86_64".into(),
        vcpus: 2,
        memory: 128 << 20,
        kernel: "builtin:probe".into(),
        cmdline: String::new(),
    };
    let host = HostSummary { kernel: "6.18.44".into(), lacks: Vec::new() };
    let comparison = Comparison::new(machine, host, Vec::new(), &recordings, Only::All);
    print!("{}", text(&comparison, Look { width: 100, colour: false, fold: false }));
}

fn recording(tables: &str, lines: &[(u64, &str)]) -> Recording {
    let mut console = Console::default();
    for (ms, line) in lines {
        console.push(ms * 1_000_000, format!("{line}\r\n").as_bytes());
    }
    console.finish();
    Recording {
        tables: tables.into(),
        changes: Vec::new(),
        plan: None,
        console,
        events:
            "{\"t_ns\":200000000,\"event\":\"stopped\",\"reason\":\"the guest switched its machine off\"}\n"
                .into(),
        timings: "{\"first-run\": 12000000, \"guest-shutdown\": 199000000}".into(),
        stderr: String::new(),
        ending: Ending::Exited { status: 0, after_ns: 201_000_000 },
    }
}
