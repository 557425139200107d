//! Memory errors that are only reported: `ghest ctl inject`, the ledger, the plan's refusals.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::ghest::{Outcome, Running};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_detected_error_stops_the_machine,
        a_detected_error_is_recorded,
        a_detected_error_is_a_machine_check,
        guest_takes_records,
        guest_takes_many_pages,
        guest_offlines_pages_that_it_accesses,
        guest_is_notified_of_too_few_errors,
        not_the_guests_memory,
        refused_where_the_host_reports_nothing,
    ]
}

fn profile_text(firmware: &str, asynchronous: &str) -> String {
    format!(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"{firmware}\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n\
         [ras]\nasynchronous = \"{asynchronous}\"\n"
    )
}

pub(crate) fn ctl(scratch: &Scratch, words: &[&str], status: i32) -> Value {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(status).json()
}

const INJECT: [&str; 5] = ["inject", "--gpa", "0x2001234", "--kind", "ao"];

fn a_detected_error_stops_the_machine() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi", "stop"));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    ctl(&scratch, &INJECT, 0);
    let said = "ghest: stopped: the profile's response to a memory error is to stop: 4096 bytes at 0x2001000";
    running.finish().expect(10).expect_last(said);
    Ok(())
}

/// The guest has halted: the first record is written and stays unread.
fn a_detected_error_is_recorded() -> Checked {
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

/// Intel's is an exception, AMD's is deferred and has to be polled for: the guest does both.
fn a_detected_error_is_a_machine_check() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut story = Story::boot(&scratch, "mptable", "mce", "probe.await-errors=1");
    story.inject("0x2001234", &[]);
    story.running.wait_for("probe: ok");
    let guest = story.stop();
    assert_eq!(guest.probe("error-sources"), ["none"], "{guest}");
    let reported = guest.probe("error machine-check").join("\n");
    assert!(
        reported.starts_with("vcpu 0 bank ") && reported.contains(" addr 0x2001000 misc 0x8c "),
        "{guest}"
    );
    assert_eq!(guest.probe("error total"), ["1"], "{guest}");
    let events = story_events(&scratch);
    assert!(events.contains(r#""event":"notified","how":"machine-check"#), "{events}");
    assert!(events.contains(r#""event":"answered""#) && events.contains(r#""response":"mce""#), "{events}");
    Ok(())
}

/// A guest that handles errors, then halts, and is stopped.
pub(crate) struct Story<'a> {
    scratch: &'a Scratch,
    pub(crate) running: Running,
}

impl<'a> Story<'a> {
    /// Boots, and waits until the guest touches memory or waits for errors.
    pub(crate) fn boot(scratch: &'a Scratch, firmware: &str, asynchronous: &str, words: &str) -> Self {
        let cmdline = "probe.timeout=20000 probe.exit=hang";
        let profile = scratch.profile(&format!(
            "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"{firmware}\"\n\n[boot]\n\
             cmdline = \"{cmdline} {words}\"\n\n[ras]\nasynchronous = \"{asynchronous}\"\n"
        ));
        let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
        let mut running = boot.arg("--events").arg(scratch.path("events")).start();
        running.wait_for(if words.contains("await") { "probe: awaiting" } else { "probe: touching" });
        Story { scratch, running }
    }

    fn inject(&mut self, gpa: &str, more: &[&str]) {
        ctl(self.scratch, &[&["inject", "--gpa", gpa, "--kind", "ao", "--via", "notice"], more].concat(), 0);
    }

    pub(crate) fn stop(self) -> Outcome {
        ctl(self.scratch, &["stop"], 0);
        self.running.finish().expect(0)
    }

    /// Waits until the VMM has seen that number of acknowledgements.
    pub(crate) fn expect_acknowledged(&self, times: usize) {
        let seen = || story_events(self.scratch).matches(r#""event":"acknowledged""#).count();
        let deadline = Instant::now() + Duration::from_secs(10);
        while seen() < times && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(seen(), times, "{}", story_events(self.scratch));
    }
}

fn story_events(scratch: &Scratch) -> String {
    std::fs::read_to_string(scratch.path("events")).expect("an event file")
}

/// From the error to its acknowledgement, for each notification of a detected error.
fn guest_takes_records() -> Checked {
    needs::kvm()?;
    for (asynchronous, way) in [
        ("gsiv", Some("probe: error interrupt ged")),
        ("gpio", Some("probe: error interrupt ged")),
        #[cfg(target_arch = "x86_64")]
        ("sci", Some("probe: error interrupt ged")),
        #[cfg(target_arch = "x86_64")]
        ("external", Some("probe: error interrupt gsi 13")),
        ("polled", None),
    ] {
        let scratch = Scratch::new();
        let mut story = Story::boot(&scratch, "acpi", asynchronous, "probe.await-errors=1");
        story.inject("0x2001234", &[]);
        story.running.wait_for("probe: ok");
        story.expect_acknowledged(1);
        let guest = story.stop();
        let sources = guest.probe("error-source");
        assert!(
            sources.iter().any(|source| source.starts_with(&format!("1 {asynchronous} block 0x"))),
            "{guest}"
        );
        let errors = guest.stdout();
        let errors: Vec<_> = errors.lines().filter(|line| line.starts_with("probe: error ")).collect();
        let reported = [
            "probe: error record source 1 severity recoverable entries 1",
            "probe: error page 0x2001000 section-severity recoverable",
            "probe: error acknowledged source 1",
            "probe: error total 1",
        ];
        let expected: Vec<_> = way.into_iter().chain(reported).collect();
        assert_eq!(errors, expected, "{guest}");
    }
    Ok(())
}

/// 128 KiB are 32 pages, and 16 go into one record: the second waits for the acknowledgement of the first.
fn guest_takes_many_pages() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut story = Story::boot(&scratch, "acpi", "gsiv", "probe.await-errors=32");
    story.inject("0x2020000", &["--span", "131072"]);
    story.running.wait_for("probe: ok");
    story.expect_acknowledged(2);
    let guest = story.stop();
    let pages: Vec<_> = (0..32)
        .map(|page| format!("{:#x} section-severity recoverable", 0x202_0000 + page * 0x1000))
        .collect();
    assert_eq!(guest.probe("error page"), pages, "{guest}");
    assert_eq!(guest.probe("error total"), ["32"], "{guest}");
    Ok(())
}

/// A guest that is notified of a page while it uses it, in any way and on any vCPU, offlines the page and continues.
fn guest_offlines_pages_that_it_accesses() -> Checked {
    needs::kvm()?;
    for (word, on) in [("touch", 0), ("store", 1), ("fetch", 0), ("fetch", 1)] {
        let scratch = Scratch::new();
        let words = format!("probe.{word}=0x2001008 probe.{word}=0x2003000 probe.touch-on={on}");
        let mut story = Story::boot(&scratch, "acpi", "gsiv", &words);
        story.inject("0x2001234", &[]);
        story.running.wait_for("probe: touching 0x2003000");
        story.inject("0x2002000", &[]);
        story.inject("0x2003000", &[]);
        story.running.wait_for("probe: ok");
        story.expect_acknowledged(3);
        let guest = story.stop();
        assert_eq!(guest.probe("error offlined"), ["0x2001008", "0x2003000"], "{guest}");
        assert!(guest.probe("touched").is_empty() && guest.probe("failed").is_empty(), "{guest}");
    }
    Ok(())
}

fn guest_is_notified_of_too_few_errors() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let cmdline = "probe.touch=0x2001000 probe.await-errors=1 probe.timeout=100";
    let guest = Ghest::boot(&scratch.machine(&format!("cmdline = \"{cmdline}\""))).finish().expect(0);
    assert_eq!(guest.probe("touched"), ["0x2001000 fine"], "{guest}");
    assert_eq!(guest.probe("failed"), ["errors reported: 0 of 1"], "{guest}");
    assert!(guest.probe("ok").is_empty(), "{guest}");
    Ok(())
}

fn not_the_guests_memory() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("acpi", "gsiv"));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    let answer = ctl(&scratch, &["inject", "--gpa", "0x4000000", "--kind", "ao"], 1);
    assert_eq!(answer["error"], "4 KiB at 0x4000000 is not memory of this guest");
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
