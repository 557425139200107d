//! Memory errors that are told without one: `ghest ctl inject`, the ledger, the plan's refusals, `ghest decode`.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        found_error_stops,
        found_error_is_recorded,
        found_error_is_a_machine_check,
        not_the_guests_memory,
        refused_where_the_host_reports_nothing,
        records_are_decoded,
    ]
}

fn profile_text(firmware: &str, asynchronous: &str) -> String {
    format!(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"{firmware}\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n\
         [ras]\nasynchronous = \"{asynchronous}\"\n"
    )
}

fn ctl(scratch: &Scratch, words: &[&str], status: i32) -> Value {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(status).json()
}

const INJECT: [&str; 5] = ["inject", "--gpa", "0x2001234", "--kind", "ao"];

fn found_error_stops() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi", "stop"));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    ctl(&scratch, &INJECT, 0);
    let said = "ghest: stopped: the profile answers a memory error by stopping: 4096 bytes at 0x2001000";
    running.finish().expect(10).expect_last(said);
    Ok(())
}

/// The built-in guest has no driver for records: the first is written and waits.
fn found_error_is_recorded() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi", "gsiv"));
    let events = scratch.path("events");
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(&events).start();
    running.wait_for("probe: ok");
    ctl(&scratch, &INJECT, 0);
    let ledger = ctl(&scratch, &["ledger"], 0);
    assert_eq!(ledger["bytes_lost"], 4096, "{ledger}");
    assert_eq!(ledger["entries"][0]["answered"], "gsiv", "{ledger}");
    let slots = ctl(&scratch, &["memory-map"], 0);
    assert_eq!((&slots["slots"][0]["gpa"], &slots["slots"][0]["len"]), (&0.into(), &(64 << 20).into()));
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0).expect_last("ghest: stopped by the control socket");

    let events = std::fs::read_to_string(events).expect("an event file");
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let find = |name: &str| events.iter().find(|event| event["event"] == name).unwrap_or(&Value::Null);
    let error = find("memory-error");
    assert_eq!(
        (&error["class"], &error["gpa"], &error["origin"]),
        (&"AO".into(), &0x200_1234.into(), &"injected".into())
    );
    assert_eq!(
        (&find("record-written")["gpa"], &find("record-written")["source"]),
        (&0x200_1000.into(), &1.into())
    );
    assert_eq!(find("notified")["how"], "error-event");
    Ok(())
}

/// What becomes of the guest depends on the processor's vendor: AMD's deferred errors wait to be looked for, Intel's end a
/// guest that is not ready for them, as the built-in guest is not.
fn found_error_is_a_machine_check() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("mptable", "mce"));
    let events = scratch.path("events");
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(&events).start();
    running.wait_for("probe: ok");
    ctl(&scratch, &INJECT, 0);
    running.signal(rustix::process::Signal::TERM);
    running.finish();
    let events = std::fs::read_to_string(events).expect("an event file");
    assert!(events.contains(r#""event":"notified","how":"machine-check""#), "{events}");
    assert!(events.contains(r#""event":"answered""#) && events.contains(r#""response":"mce""#), "{events}");
    Ok(())
}

fn not_the_guests_memory() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi", "gsiv"));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    let answer = ctl(&scratch, &["inject", "--gpa", "0x4000000", "--kind", "ao"], 1);
    assert_eq!(answer["error"], "0x4000000 is not memory of this guest");
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    Ok(())
}

fn refused_where_the_host_reports_nothing() -> Checked {
    let scratch = Scratch::new();
    let host =
        scratch.file("host.json", r#"{ "arch": { "x86_64": {} }, "memory-failure": { "handled": "no" } }"#);
    let profile = scratch.profile(
        "[machine]\nvcpus = 1\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[ras]\non-missing-support = \"refuse\"\n",
    );
    let outcome = Ghest::new(["plan", "--arch", "x86_64", "--host"]).arg(&host).arg(&profile.path).finish();
    outcome.expect(3).expect_said(&profile.place("on-missing-support")).expect_said("CONFIG_MEMORY_FAILURE");

    let typo = scratch.file("typo.json", r#"{ "arch": { "x86_64": {} }, "memory-failures": {} }"#);
    let outcome = Ghest::new(["plan", "--arch", "x86_64", "--host"]).arg(&typo).arg(&profile.path).finish();
    outcome.expect(2).expect_said("unknown field `memory-failures`");
    Ok(())
}

fn records_are_decoded() -> Checked {
    use ras_core::{Kind, MemoryBlocks, MemoryReport, Span};
    let scratch = Scratch::new();
    let mut block = [0; 4096];
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 1_795_446_245, 17);
    let len =
        MemoryBlocks::new(Span::around(0x4567_8000, 12), report).write_next(&mut block).expect("one block");
    let file = scratch.file("block", &block[..len]);
    let text = Ghest::new(["decode"]).arg(&file).finish().expect(0);
    assert!(text.stdout().contains("0x45678000"), "{text}");
    assert!(text.stdout().contains("ghest mem #17"), "{text}");
    let json = Ghest::new(["decode", "--json"]).arg(&file).finish().expect(0).json();
    assert!(json.to_string().contains("memory"), "{json}");
    Ghest::new(["decode"]).arg(scratch.file("garbage", [0xff; 64])).finish().expect(2);
    Ok(())
}
