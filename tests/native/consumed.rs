//! Memory errors that a vCPU consumes: simulated by memslot holes, and by signals like those of the host. From the signal's handler on
//! everything is as for a real error.

use std::time::Instant;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::{Outcome, TIME_LIMIT};
use crate::harness::machine_checks::{MachineCheckHandler, takes_a_machine_check};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_example_of_the_read_me,
        every_access_is_a_machine_check_for_the_vcpu_that_made_it,
        an_mp_table_guest_takes_a_machine_check,
        an_nmi_comes_with_its_record,
        stopped_with_a_report,
        two_vcpus_of_one_machine,
        detected_and_then_consumed,
        a_guest_that_cannot_take_the_exception_is_stopped,
        a_guest_that_hangs_in_its_machine_check,
        while_paused,
        a_reset_repairs,
        never_repaired,
        repaired_when_acknowledged,
        memory_of_the_vmms_own_making_is_restored,
        a_page_is_poisoned_once,
        an_invalid_injection_request_is_refused,
        sigbus_from_a_process,
    ]
}

/// A profile with this command line and this `[ras]`.
fn profile_text(words: &str, ras: &str) -> String {
    format!(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"{words}\"\n\n[ras]\n{ras}\n"
    )
}

const POISONED: &str = "ar@0x2000000,when=probe: touching";

/// Boots with one page that is poisoned when the guest begins to touch it.
fn story(scratch: &Scratch, words: &str, ras: &str, more: &[&str]) -> Outcome {
    let profile = scratch.profile(&profile_text(words, ras));
    let boot = Ghest::boot(&profile).args(["--inject", POISONED]).arg("--events").arg(scratch.path("events"));
    boot.args(more).finish()
}

fn events(scratch: &Scratch, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(scratch.path("events")).expect("an event file");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|event| event["event"] == name).collect()
}

fn ctl(scratch: &Scratch, words: &[&str], status: i32) -> Value {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(status).json()
}

/// The first command of README.md, and its output.
fn the_example_of_the_read_me() -> Checked {
    needs::kvm()?;
    let orders = ["ar@0x4000000,when=probe: touching", "ao@0x5000000,when=probe: awaiting"];
    let command = format!(
        "cargo run -- boot config-examples/memory-error.toml -v --inject \"{}\" --inject \"{}\"",
        orders[0], orders[1]
    );
    let read_me = include_str!("../../README.md");
    assert!(read_me.contains(&command), "{command}");
    let boot =
        ["boot", "config-examples/memory-error.toml", "-v", "--inject", orders[0], "--inject", orders[1]];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guest = Ghest::new(boot).directory(&root).finish().expect_ok();
    assert_eq!(guest.probe("error offlined"), ["0x4000000"], "{guest}");
    assert_eq!(guest.probe("error page"), ["0x5000000 section-severity recoverable"], "{guest}");
    assert_eq!(guest.probe("error total"), ["2"], "{guest}");
    guest
        .expect_said("vCPU 0 consumed poisoned memory: 4 KiB at 0x4000000 (action required, by injected)")
        .expect_said("uncorrected memory error detected: 4 KiB at 0x5000000 (action optional, by injected)")
        .expect_said("the guest acknowledged the record of 4 KiB at 0x5000000");
    Ok(())
}

fn every_access_is_a_machine_check_for_the_vcpu_that_made_it() -> Checked {
    needs::kvm()?;
    for (word, vcpu) in [("touch", 0), ("store", 0), ("fetch", 0), ("touch", 1), ("store", 1), ("fetch", 1)] {
        let scratch = Scratch::new();
        let words = format!("probe.{word}=0x2000000 probe.touch-on={vcpu}");
        let guest = story(&scratch, &words, "", &[]).expect_ok();
        let reported = guest.probe("error machine-check");
        assert_eq!(reported.len(), 1, "{word}: {guest}");
        assert!(
            reported[0].starts_with(&format!("vcpu {vcpu} bank "))
                && reported[0].contains("addr 0x2000000 misc 0x8c"),
            "{word}: {guest}"
        );
        assert_eq!(guest.probe("error offlined"), ["0x2000000"], "{word}: {guest}");
        let errors = events(&scratch, "memory-error");
        assert_eq!(errors.len(), 1, "{errors:?}");
        let error = &errors[0];
        assert_eq!((&error["class"], &error["vcpu"]), (&"AR".into(), &vcpu.into()), "{error}");
        assert_eq!((&error["origin"], &error["response"]), (&"injected".into(), &"mce".into()), "{error}");
        assert_eq!(events(&scratch, "notified")[0]["vcpu"], vcpu);
    }
    Ok(())
}

fn an_mp_table_guest_takes_a_machine_check() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let more = ["--set", "machine.firmware=mptable"];
    let guest = story(&scratch, "probe.touch=0x2000000", "", &more).expect_ok();
    assert_eq!(guest.probe("error offlined"), ["0x2000000"], "{guest}");
    assert_eq!(guest.probe("error machine-check").len(), 1, "{guest}");
    Ok(())
}

fn an_nmi_comes_with_its_record() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let guest = story(&scratch, "probe.touch=0x2000000", "synchronous = \"nmi\"", &[]).expect_ok();
    assert_eq!(guest.probe("error nmi"), ["vcpu 0"], "{guest}");
    assert_eq!(guest.probe("error page"), ["0x2000000 section-severity recoverable"], "{guest}");
    assert_eq!(guest.probe("error acknowledged"), ["source 0"], "{guest}");
    assert_eq!(guest.probe("error offlined"), ["0x2000000"], "{guest}");
    assert_eq!(events(&scratch, "record-written")[0]["source"], 0);
    Ok(())
}

fn stopped_with_a_report() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let guest = story(&scratch, "probe.touch=0x2000000", "synchronous = \"stop\"", &[]).expect(10);
    assert!(guest.probe("error").is_empty(), "{guest}");
    guest
        .expect_said("vCPU 0 consumed poisoned memory: 4 KiB at 0x2000000 (action required, by injected)")
        .expect_last(
            "ghest: stopped: the profile's response to a memory error is to stop: 4096 bytes at 0x2000000",
        );
    assert_eq!(events(&scratch, "stopped")[0]["status"], 10);
    Ok(())
}

/// Each vCPU touches its own page, one after the other.
fn two_vcpus_of_one_machine() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.touch=0x2000000 probe.touch=0x2100000 probe.store=0x2200000";
    let more = ["--inject", "ar@0x2100000", "--inject", "ar@0x2200000,span=64KiB"];
    let guest = story(&scratch, words, "", &more).expect_ok();
    assert_eq!(guest.probe("error offlined"), ["0x2000000", "0x2100000", "0x2200000"], "{guest}");
    let spans: Vec<_> = events(&scratch, "memory-error").iter().map(|event| event["span"].clone()).collect();
    assert_eq!(spans, [4096, 4096, 65536]);
    Ok(())
}

fn detected_and_then_consumed() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let ras = "asynchronous = \"ignore\"";
    let profile = scratch.profile(&profile_text("probe.touch=0x2000000", ras));
    let boot = Ghest::boot(&profile).args(["--inject", "ao@0x2000000,when=probe: touching"]);
    let guest = boot.arg("--events").arg(scratch.path("events")).finish().expect_ok();
    assert_eq!(guest.probe("error offlined"), ["0x2000000"], "{guest}");
    let classes: Vec<_> =
        events(&scratch, "memory-error").iter().map(|event| event["class"].clone()).collect();
    // The guest touches the page all the time: it may consume the error before it is notified of its detection.
    assert!(classes.contains(&"AO".into()) && classes.contains(&"AR".into()), "{classes:?}");
    Ok(())
}

/// It touches its last page before it has enabled machine checks: a processor would shut down.
fn a_guest_that_cannot_take_the_exception_is_stopped() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("", ""));
    let boot = Ghest::boot(&profile).args(["--set", "machine.firmware=mptable", "--inject", "ar@0x3fff000"]);
    let guest = boot.arg("--events").arg(scratch.path("events")).finish().expect(10);
    let said = "ghest: stopped: the vCPU cannot take the exception that the plan has for this error: 4096 bytes at 0x3fff000";
    guest.expect_last(said);
    assert_eq!(events(&scratch, "stopped")[0]["status"], 10);
    Ok(())
}

/// An injection request while the guest is paused is executed once it resumes.
fn while_paused() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("probe.await-errors=1 probe.timeout=20000", ""));
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(scratch.path("events")).start();
    running.wait_for("probe: awaiting");
    ctl(&scratch, &["pause"], 0);
    assert_eq!(ctl(&scratch, &["inject", "--gpa", "0x2000000", "--kind", "ao"], 0)["state"], "paused");
    assert_eq!(ctl(&scratch, &["ledger"], 0)["bytes_lost"], 4096);
    let metrics = ctl(&scratch, &["metrics"], 0);
    assert_eq!(
        (&metrics["events"]["memory-error"], &metrics["bytes_lost"]),
        (&1.into(), &4096.into()),
        "{metrics}"
    );
    assert_eq!(metrics["signals_not_kept"], 0, "{metrics}");
    ctl(&scratch, &["resume"], 0);
    let guest = running.finish().expect_ok();
    assert_eq!(guest.probe("error page"), ["0x2000000 section-severity recoverable"], "{guest}");
    Ok(())
}

/// The second boot touches the same page without an error.
fn a_reset_repairs() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.touch=0x2000000 probe.timeout=300 probe.exit=reset";
    let text = profile_text(words, "").replace("[boot]", "on-reboot = \"restart\"\n[boot]");
    let profile = scratch.profile(&text);
    let boot =
        Ghest::boot(&profile).args(["--inject", POISONED]).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(scratch.path("events")).start();
    running.wait_for("probe: touched 0x2000000 fine");
    let ledger = ctl(&scratch, &["ledger"], 0);
    assert_eq!(ledger["bytes_lost"], 0, "{ledger}");
    assert!(ledger["entries"][0]["repaired-ns"].is_u64(), "{ledger}");
    ctl(&scratch, &["stop"], 0);
    let guest = running.finish().expect(0);
    assert_eq!(guest.probe("error offlined"), ["0x2000000"], "only in the first boot: {guest}");
    let repaired = events(&scratch, "repaired");
    assert_eq!((&repaired[0]["gpa"], &repaired[0]["span"]), (&0x200_0000.into(), &4096.into()));
    Ok(())
}

/// The second boot has the page in its memory map as unusable. It accesses it all the same, and consumes the error again.
fn never_repaired() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.touch=0x2000000 probe.timeout=20000 probe.exit=reset";
    let text = profile_text(words, "repair = \"never\"").replace("[boot]", "on-reboot = \"restart\"\n[boot]");
    let profile = scratch.profile(&text);
    let boot =
        Ghest::boot(&profile).args(["--inject", POISONED]).arg("--control").arg(scratch.path("control"));
    let mut running = boot.start();
    running.wait_for_times("probe: error offlined 0x2000000", 2);
    ctl(&scratch, &["stop"], 0);
    let guest = running.finish().expect(0);
    assert!(guest.probe("memory").contains(&"0x2000000-0x2001000 unusable".into()), "{guest}");
    Ok(())
}

fn repaired_when_acknowledged() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.await-errors=1 probe.timeout=20000 probe.exit=hang";
    let profile = scratch.profile(&profile_text(words, "repair = \"when-acknowledged\""));
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(scratch.path("events")).start();
    running.wait_for("probe: awaiting");
    ctl(&scratch, &["inject", "--gpa", "0x2000000", "--kind", "ao"], 0);
    running.wait_for("probe: ok");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while events(&scratch, "repaired").is_empty() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ledger = ctl(&scratch, &["ledger"], 0);
    assert_eq!(ledger["bytes_lost"], 0, "{ledger}");
    // The page is usable again, and can be poisoned again.
    ctl(&scratch, &["inject", "--gpa", "0x2000000", "--kind", "ao"], 0);
    assert_eq!(ctl(&scratch, &["ledger"], 0)["bytes_lost"], 4096);
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    Ok(())
}

/// The pages of a record's block and of its acknowledge register are poisoned when the guest is notified of the record: it reads and
/// acknowledges it, and is notified of nothing else.
fn memory_of_the_vmms_own_making_is_restored() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.touch=0x2000000 probe.await-errors=2 probe.timeout=20000";
    let profile = scratch.profile(&profile_text(words, "asynchronous = \"gsiv\""));
    let plan = Ghest::new(["plan", "--json"]).arg(&profile.path).finish().expect(0).json();
    let mut tables = plan["tables"].as_array().expect("tables").iter();
    let records = tables.find(|table| table["name"] == "error-records").expect("a record area");
    let records = records["gpa"].as_u64().expect("an address");
    // The registers are 64 KiB behind the start, the blocks 128 KiB.
    let (register, block) = (records + 0x1_0000, records + 0x2_0000);
    let mut boot =
        Ghest::boot(&profile).args(["--inject", POISONED]).arg("--events").arg(scratch.path("events"));
    for spec in [format!("ar@{register:#x}"), format!("ar@{block:#x}"), "ao@0x2100000".to_owned()] {
        boot = boot.args(["--inject", &format!("{spec},when=probe: awaiting")]);
    }
    let guest = boot.finish().expect_ok();
    assert_eq!(guest.probe("error offlined"), ["0x2000000"], "{guest}");
    assert_eq!(guest.probe("error page"), ["0x2100000 section-severity recoverable"], "{guest}");
    assert_eq!(guest.probe("error acknowledged"), ["source 1"], "{guest}");
    assert_eq!(guest.probe("error machine-check").len(), 1, "{guest}");
    let mut restored: Vec<_> =
        events(&scratch, "repaired").iter().map(|event| event["gpa"].clone()).collect();
    restored.sort_by_key(Value::as_u64);
    assert_eq!(restored, [register, block].map(Value::from), "{guest}");
    let ignored =
        events(&scratch, "memory-error").iter().filter(|event| event["response"] == "ignore").count();
    assert_eq!((ignored, events(&scratch, "notified").len()), (2, 2), "{guest}");
    assert_eq!(events(&scratch, "acknowledged").len(), 1, "{guest}");
    Ok(())
}

fn a_page_is_poisoned_once() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("probe.exit=hang", ""));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    let lose = |gpa, via| ["inject", "--gpa", gpa, "--kind", "ar", "--via", via];
    ctl(&scratch, &lose("0x2000000", "simulate"), 0);
    let again = ctl(&scratch, &lose("0x2000800", "simulate"), 1);
    assert_eq!(again["error"], "4 KiB at 0x2000000 is poisoned already");
    let notice = ctl(&scratch, &lose("0x2100000", "notice"), 1);
    assert_eq!(
        notice["error"],
        "the method `notice` poisons no memory, so no vCPU can consume it: use kind `ao`"
    );
    ctl(&scratch, &["stop"], 0);
    running.finish().expect(0);
    Ok(())
}

fn an_invalid_injection_request_is_refused() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("", ""));
    let boot = |order: &str| Ghest::boot(&profile).args(["--inject", order]).finish().expect(2);
    boot("0x2000000").expect_said("an injection request starts with `ar@`, `ao@` or `ce@`");
    boot("ar@0x2000000,via=magic")
        .expect_said("unknown method `magic`: expected simulate, madvise or notice");
    needs::kvm()?;
    boot("ar@0x4000000").expect_last(
        "ghest: --inject: 0x4000000: 4 KiB at 0x4000000 is not memory of this guest, which has 0x0 to 0x3ffffff",
    );
    boot("ar@0x2000000,span=128MiB").expect_said("128 MiB at 0x0 is not memory");
    Ok(())
}

/// Nothing else shows that it hangs: it has no record to acknowledge.
fn a_guest_that_hangs_in_its_machine_check() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", takes_a_machine_check(0x200_0000, MachineCheckHandler::Hangs));
    let boot = Ghest::boot(&scratch.machine("kernel = \"kernel\"")).args(["--inject", "ar@0x2000000"]);
    let boot = boot.arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(scratch.path("events")).start();
    running.wait_for("m");
    let said = "the guest has not ended the machine check of 4 KiB at 0x2000000";
    assert!(running.stderr.wait_for(said, 1, Instant::now() + TIME_LIMIT), "{said:?} was not said");
    let overdue = serde_json::json!([{ "source": null, "gpa": 0x200_0000, "span": 4096, "consumed_by": 0 }]);
    assert_eq!(ctl(&scratch, &["status"], 0)["overdue"], overdue);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    assert_eq!(events(&scratch, "overdue").len(), 1);
    Ok(())
}

/// It is not a memory error, and is not handled as one.
fn sigbus_from_a_process() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("probe.exit=hang", ""));
    let mut running = Ghest::boot(&profile).arg("--events").arg(scratch.path("events")).start();
    running.wait_for("probe: ok");
    running.signal(Signal::BUS);
    let last = format!("ghest: stopped by a SIGBUS that process {} sent", std::process::id());
    running.finish().expect(135).expect_last(&last);
    assert_eq!(events(&scratch, "stopped")[0]["status"], 135);
    Ok(())
}
