//! Comparisons of recorded boots, as text, JSON and HTML. `INSTA_UPDATE=always cargo test -p ghest-compare` accepts new output.

use std::path::Path;

use compare::{
    Answer, Change, Comparison, Console, Ending, HostSummary, Lack, Look, MachineSummary, Only, PlanSummary,
    Recording, Table, html, text,
};

fn fixture(name: &str, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn recording(name: &str, tables: &str, plan: PlanSummary) -> Recording {
    let mut console = Console::default();
    for line in fixture(name, "console.txt").lines() {
        let (time, text) = line.split_once('\t').expect("a time and a line");
        let ms: f64 = time.parse().expect("milliseconds");
        console.push((ms * 1e6) as u64, format!("{text}\r\n").as_bytes());
    }
    console.finish();
    Recording {
        tables: tables.into(),
        changes: Vec::new(),
        plan: Some(plan),
        console,
        events: fixture(name, "events.jsonl"),
        timings: fixture(name, "timings.json"),
        stderr: String::new(),
        ending: Ending::Exited { status: 0, after_ns: 231_000_000 },
    }
}

fn answer(question: &str, chosen: &str, source: Option<u16>, because: &str) -> Answer {
    Answer {
        question: question.into(),
        asked: None,
        chosen: chosen.into(),
        degraded: false,
        because: because.into(),
        source,
        otherwise: Some("ignore, 10000 ms after".into()),
        ruled_out: vec!["stop: possible, not preferred".into()],
    }
}

fn plan(tables: &[(&str, u64, u64)], answers: Vec<Answer>) -> PlanSummary {
    let table = |(name, gpa, len): &(&str, u64, u64)| Table { name: (*name).into(), gpa: *gpa, len: *len };
    PlanSummary {
        because: "requested by the profile".into(),
        tables: tables.iter().map(table).collect(),
        answers,
        notes: vec!["the host's kernel was built without CONFIG_MEMORY_FAILURE".into()],
    }
}

fn host() -> HostSummary {
    let lack =
        Lack { what: "KVM_CAP_ARM_SEA_TO_USER".into(), cost: "aborts reach the guest as SErrors".into() };
    HostSummary { kernel: "6.18.44".into(), lacks: vec![lack] }
}

fn machine(kernel: &str, architecture: &str) -> MachineSummary {
    MachineSummary {
        name: "quickstart".into(),
        architecture: architecture.into(),
        vcpus: 2,
        memory: 128 << 20,
        kernel: kernel.into(),
        cmdline: "probe.touch=0x2000000".into(),
    }
}

fn builtin_recordings() -> [Recording; 2] {
    let because = "the guest reads the record as soon as it takes the interrupt";
    let acpi = plan(
        &[("rsdp", 0xe0000, 36), ("hest", 0xe04c0, 132)],
        vec![
            answer("consumed", "mce", None, "the only exception"),
            answer("found", "gsiv", Some(1), because),
        ],
    );
    let mptable = plan(
        &[("mpfp", 0xf0000, 16), ("mptable", 0xf0040, 236)],
        vec![
            answer("consumed", "mce", None, "the only exception"),
            answer("found", "mce", None, "needs no table"),
        ],
    );
    let change = Change { key: "ras.asynchronous".into(), asked: "gsiv".into(), taken: "auto".into() };
    let mut mptable = recording("builtin-mptable", "mptable", mptable);
    mptable.changes.push(change);
    [recording("builtin-acpi", "acpi", acpi), mptable]
}

fn builtin(only: Only) -> Comparison {
    let orders = vec!["ar@0x2000000,when=probe: touching 0x2000000".into()];
    Comparison::new(machine("builtin:probe", "x86_64"), host(), orders, &builtin_recordings(), only)
}

fn linux() -> Comparison {
    let recordings = [
        recording(
            "linux-acpi",
            "acpi",
            plan(&[("hest", 0x4000_0740, 132)], vec![answer("consumed", "sea", Some(0), "record and abort")]),
        ),
        recording(
            "linux-devicetree",
            "devicetree",
            plan(
                &[("platform.dtb", 0x4010_0000, 4096)],
                vec![answer("consumed", "abort", None, "no record")],
            ),
        ),
    ];
    let orders = vec!["ar@{victim a page 1 * gpa},via=madvise,when=victim a is ready".into()];
    Comparison::new(machine("/boot/vmlinuz", "aarch64"), host(), orders, &recordings, Only::All)
}

const WIDE: Look = Look { width: 120, colour: false, fold: false };

#[test]
fn wide_text() {
    insta::assert_snapshot!(text(&builtin(Only::All), WIDE));
}

#[test]
fn wide_and_folded_text() {
    insta::assert_snapshot!(text(&builtin(Only::All), Look { fold: true, width: 100, ..WIDE }));
}

#[test]
fn narrow_text() {
    insta::assert_snapshot!(text(&builtin(Only::Errors), Look { width: 50, ..WIDE }));
}

#[test]
fn text_of_a_linux_guest() {
    insta::assert_snapshot!(text(&linux(), WIDE));
}

#[test]
fn coloured_text_has_the_same_content() {
    let comparison = builtin(Only::All);
    for width in [40, 80, 92, 120, 200] {
        let plain = text(&comparison, Look { width, ..WIDE });
        let coloured = text(&comparison, Look { width, colour: true, ..WIDE });
        assert!(coloured.contains("\x1b[1;33m*\x1b[0m"));
        let mut bare = String::new();
        for (number, piece) in coloured.split('\x1b').enumerate() {
            bare.push_str(if number == 0 { piece } else { piece.split_once('m').expect("a colour").1 });
        }
        assert_eq!(bare.lines().map(str::trim_end).collect::<Vec<_>>(), plain.lines().collect::<Vec<_>>());
    }
}

#[test]
fn no_line_is_too_wide() {
    for comparison in [builtin(Only::All), linux()] {
        for width in [0, 24, 33, 60, 91, 92, 93, 140, 300, usize::MAX] {
            for fold in [false, true] {
                let text = text(&comparison, Look { width, fold, ..WIDE });
                let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
                assert!(longest <= width.max(24), "{longest} > {width}\n{text}");
            }
        }
    }
}

#[test]
fn json() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&builtin(Only::Errors)).expect("JSON"));
}

#[test]
fn json_is_read_back() {
    let comparison = linux();
    let json = serde_json::to_string(&comparison).expect("JSON");
    assert_eq!(serde_json::from_str::<Comparison>(&json).expect("a comparison"), comparison);
}

/// The difference that matters, on arm64 with a Debian kernel.
#[test]
fn with_acpi_the_kernel_recovers_with_a_devicetree_there_is_only_a_signal() {
    let comparison = linux();
    let values = |key: &str| comparison.row("error-1", key).expect("a row").values.clone();
    let [acpi, devicetree] = values("record");
    assert!(acpi[0].starts_with("source 0"), "{acpi:?}");
    assert_eq!(devicetree, ["none"]);
    let [acpi, devicetree] = values("guest");
    let says = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    assert!(says(&acpi, "Recovered") && says(&acpi, "MCEERR_AR"), "{acpi:?}");
    assert!(!says(&devicetree, "Recovered") && says(&devicetree, "SIGBUS OBJERR"), "{devicetree:?}");
    assert_eq!(values("acknowledged"), [["source 0"], ["no record to acknowledge"]]);
}

#[test]
fn a_hang_is_reported_and_the_other_side_is_complete() {
    let mut recordings = builtin_recordings();
    recordings[1].ending = Ending::Hung { limit_ns: 30_000_000_000 };
    recordings[1].timings.clear();
    let comparison =
        Comparison::new(machine("builtin:probe", "x86_64"), host(), Vec::new(), &recordings, Only::All);
    let [acpi, mptable] = comparison.row("end", "how").expect("a row").values.clone();
    assert_eq!(acpi, ["status 0: the guest shut down"]);
    assert_eq!(mptable, ["HUNG: the guest did not end within 30.00 s and was stopped"]);
    assert!(comparison.row("end", "how").is_some_and(|row| row.differs));
}

#[test]
fn a_side_that_did_not_start_states_its_reason() {
    let mut recordings = builtin_recordings();
    recordings[1] = Recording {
        plan: None,
        console: Console::default(),
        events: String::new(),
        timings: "{".into(),
        ending: Ending::NotStarted { why: "machine.vcpus: too many".into() },
        ..recordings[1].clone()
    };
    let comparison =
        Comparison::new(machine("builtin:probe", "x86_64"), host(), Vec::new(), &recordings, Only::All);
    assert_eq!(
        comparison.row("end", "how").expect("a row").values[1],
        ["not started: machine.vcpus: too many"]
    );
    assert!(html(&comparison).contains("No plan."));
}

/// Guest output, an event file and a profile that contain markup and terminal escapes.
#[test]
fn hostile_input_is_escaped() {
    let evil = "<script>alert(1)</script>\"'&\x1b[2J\u{202e}\r";
    let mut recordings = builtin_recordings();
    for recording in &mut recordings {
        for line in [
            format!("probe: firmware {evil}"),
            format!("probe: error page 0x2000000 section-severity {evil}"),
            "probe: error page 0xffffffffffffffffffff section-severity x".into(),
            "probe: error machine-check vcpu 0 bank 1 status 2 addr  misc".into(),
        ] {
            recording.console.push(1, format!("{line}\n").as_bytes());
        }
        recording.events.push_str(
            "{\"t_ns\":-1,\"event\":\"memory-error\",\"gpa\":18446744073709551615,\"span\":18446744073709551615}\n\
             {\"event\":\"memory-error\",\"gpa\":1,\"span\":0,\"origin\":\"<b>\\u001b\"}\n\
             {\"event\":\"stopped\",\"reason\":\"<i>\\u001b[31m\"}\n",
        );
        recording.timings = "{\"first-run\": 18446744073709551615, \"<x>\": 1}".into();
    }
    recordings[0].ending = Ending::Hung { limit_ns: u64::MAX };
    let mut machine = machine("builtin:probe", "x86_64");
    machine.name = "<b>name".into();
    let comparison = Comparison::new(machine, host(), vec!["<u>".into()], &recordings, Only::All);
    for look in [WIDE, Look { width: 30, ..WIDE }] {
        assert!(!text(&comparison, look).contains(|it: char| it.is_control() && it != '\n'));
    }
    let page = html(&comparison);
    for tag in ["<script", "<b>name", "<i>", "<u>", "<x>", "\x1b"] {
        assert!(!page.contains(tag), "{tag}");
    }
}

#[test]
fn the_page_refers_to_no_other_resource() {
    let page = html(&linux());
    for outside in ["http", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg") && page.contains("prefers-color-scheme: dark"));
    assert_eq!(
        page.matches("<tr").count(),
        page.matches("<th scope=row").count() + page.matches("<thead><tr>").count()
    );
}
