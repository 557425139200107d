//! `--events` and `--timings`.

use std::fs;
use std::path::Path;
use std::time::Instant;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::ghest::TIME_LIMIT;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        events_of_a_boot,
        events_of_a_reset,
        events_of_a_crash,
        events_of_a_signal,
        events_of_restarts,
        events_of_a_refusal,
        events_cannot_be_written,
        timings_of_a_boot,
        timings_of_a_signal,
        timings_cannot_be_written,
    ]
}

/// Every line of an event file. Asserts that times do not decrease and that each event has a name.
fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("an event file");
    assert!(text.ends_with('\n'), "{text}");
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    let times: Vec<u64> = events.iter().map(|event| event["t_ns"].as_u64().expect("t_ns")).collect();
    assert!(times.is_sorted(), "{text}");
    events
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().expect("event")).collect()
}

/// The fields of an event except time and name.
fn said(event: &Value) -> Value {
    let mut fields = event.as_object().expect("an object").clone();
    fields.retain(|name, _| name != "t_ns" && name != "event");
    Value::Object(fields)
}

/// Boots a guest of 3 vCPUs with a command line and returns its events.
fn boot(cmdline: &str, status: i32) -> Vec<Value> {
    let scratch = Scratch::new();
    let profile = scratch.profile(&format!(
        "[machine]\nname = \"three\"\nvcpus = 3\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n\
         [boot]\ncmdline = \"{cmdline}\"\n"
    ));
    let path = scratch.path("events");
    Ghest::boot(&profile).arg("--events").arg(&path).finish().expect(status);
    events(&path)
}

/// Asserts the events of a running machine with 3 vCPUs, whose order depends on threads: each vCPU is started once.
fn expect_started(events: &[Value]) {
    assert_eq!(events[0]["event"], "plan", "{events:?}");
    let mut vcpus: Vec<u64> = events
        .iter()
        .filter(|event| event["event"] == "vcpu-started")
        .map(|event| event["vcpu"].as_u64().expect("a number"))
        .collect();
    vcpus.sort_unstable();
    assert_eq!(vcpus, [0, 1, 2], "{events:?}");
    let place = |wanted: &str| names(events).iter().position(|name| *name == wanted);
    assert!(place("first-exit") > place("vcpu-started"), "{events:?}");
    assert_eq!(names(events).iter().filter(|name| **name == "first-exit").count(), 1, "{events:?}");
}

fn events_of_a_boot() -> Checked {
    needs::kvm()?;
    let events = boot("", 0);
    expect_started(&events);
    let plan = said(&events[0]);
    assert_eq!(plan["machine"], "three");
    assert_eq!(plan["vcpus"], 3);
    assert_eq!(plan["memory"], 64 << 20);
    assert_eq!(plan["firmware"], "acpi");
    let first_exit = events.iter().find(|event| event["event"] == "first-exit").expect("first-exit");
    // The guest's first exit is a write to the serial port.
    assert_eq!(said(first_exit), json!({ "vcpu": 0, "exit": "port-out" }));
    assert_eq!(names(&events)[events.len() - 2..], ["guest-shutdown", "stopped"], "{events:?}");
    let stopped = json!({ "reason": "the guest switched its machine off", "status": 0 });
    assert_eq!(events.last().map(said), Some(stopped));
    assert_eq!(events.len(), 7, "{events:?}");
    Ok(())
}

fn events_of_a_reset() -> Checked {
    needs::kvm()?;
    let events = boot("probe.exit=reset", 0);
    expect_started(&events);
    let stopped = json!({ "reason": "the guest reset its machine by the ACPI reset register", "status": 0 });
    assert_eq!(events.last().map(said), Some(stopped));
    Ok(())
}

fn events_of_a_crash() -> Checked {
    needs::kvm()?;
    let events = boot("probe.exit=triple-fault", 4);
    expect_started(&events);
    let shutdown =
        events.iter().find(|event| event["event"] == "guest-shutdown").expect("an end of the guest");
    assert_eq!(said(shutdown), json!({ "how": "crash" }));
    let stopped = said(events.last().expect("events"));
    assert_eq!(stopped["status"], 4);
    assert!(stopped["reason"].as_str().is_some_and(|reason| reason.contains("triple fault")), "{stopped}");
    Ok(())
}

fn events_of_a_signal() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("events");
    let mut running =
        Ghest::boot(&scratch.machine("cmdline = \"probe.exit=hang\"")).arg("--events").arg(&path).start();
    running.wait_for("probe: ok");
    // Events are written immediately, by another thread.
    let deadline = Instant::now() + TIME_LIMIT;
    while names(&events(&path)) != ["plan", "vcpu-started", "first-exit"] {
        assert!(Instant::now() < deadline, "{:?}", events(&path));
    }
    running.signal(Signal::TERM);
    running.finish().expect(143);
    let events = events(&path);
    assert_eq!(names(&events), ["plan", "vcpu-started", "first-exit", "stopped"]);
    let stopped = json!({ "reason": "stopped by signal SIGTERM", "status": 143 });
    assert_eq!(events.last().map(said), Some(stopped));
    Ok(())
}

/// One plan and one end, and between them every start of every vCPU.
fn events_of_restarts() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\non-reboot = \"restart\"\n\n\
         [boot]\ncmdline = \"probe.echo probe.exit=reset\"\n",
    );
    let path = scratch.path("events");
    let mut running =
        Ghest::boot(&profile).stdin(std::process::Stdio::piped()).arg("--events").arg(&path).start();
    running.wait_for("probe: listening");
    std::io::Write::write_all(&mut running.take_stdin(), b"quit\n").expect("ghest reads");
    running.wait_for_times("probe: listening", 2);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    let events = events(&path);
    let names = names(&events);
    for (name, times) in [("plan", 1), ("vcpu-started", 4), ("stopped", 1)] {
        assert_eq!(names.iter().filter(|found| **found == name).count(), times, "{name}: {events:?}");
    }
    assert_eq!((names.first(), names.last()), (Some(&"plan"), Some(&"stopped")), "{events:?}");
    Ok(())
}

/// The end is an event even if no machine was created.
fn events_of_a_refusal() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("events");
    Ghest::boot(&scratch.machine("kernel = \"missing\"")).arg("--events").arg(&path).finish().expect(2);
    let events = events(&path);
    assert_eq!(names(&events), ["plan", "stopped"], "{events:?}");
    assert_eq!(events[1]["status"], 2);
    Ok(())
}

fn events_cannot_be_written() -> Checked {
    cannot_be_written("--events")
}

fn timings_cannot_be_written() -> Checked {
    cannot_be_written("--timings")
}

fn cannot_be_written(option: &str) -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("missing/file");
    Ghest::boot(&scratch.machine(""))
        .arg(option)
        .arg(&path)
        .finish()
        .expect(1)
        .expect_last(&format!("ghest: {}: No such file or directory (os error 2)", path.display()));
    Ok(())
}

/// In the order of a boot.
const PHASES: [&str; 9] = [
    "process-start",
    "profile",
    "memory",
    "kernel",
    "tables",
    "vcpus",
    "first-run",
    "first-exit",
    "guest-shutdown",
];

/// Asserts that a timings file has every phase in this order, with times that do not decrease.
fn expect_phases(path: &Path) {
    let text = fs::read_to_string(path).expect("a timings file");
    let timings: Value = serde_json::from_str(&text).expect("JSON");
    let times = PHASES.map(|phase| timings[phase].as_u64().unwrap_or_else(|| panic!("{phase} of {text}")));
    assert!(times.is_sorted(), "{text}");
    let written: Vec<&String> = timings.as_object().expect("an object").keys().collect();
    assert_eq!(written, PHASES, "{text}");
}

fn timings_of_a_boot() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("timings");
    Ghest::boot(&scratch.machine("")).arg("--timings").arg(&path).finish().expect_ok();
    expect_phases(&path);
    Ok(())
}

fn timings_of_a_signal() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let path = scratch.path("timings");
    let mut running =
        Ghest::boot(&scratch.machine("cmdline = \"probe.exit=loop\"")).arg("--timings").arg(&path).start();
    running.wait_for("probe: ok");
    running.signal(Signal::INT);
    running.finish().expect(130);
    expect_phases(&path);
    Ok(())
}
