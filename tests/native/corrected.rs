//! Corrected errors: the guest is notified of each by a source of their own, and nothing is poisoned.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::errors::ctl;
use crate::harness::ghest::Running;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_guest_is_notified_of_each_error,
        the_guest_injects_corrected_errors,
        a_record_goes_to_the_source_by_its_name,
        without_a_source_none_is_injected,
        the_plan_has_source_and_threshold,
    ]
}

fn profile_text(words: &str, ras: &str) -> String {
    format!(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.timeout=20000 {words}\"\n\n[ras]\n{ras}\n"
    )
}

fn boot(scratch: &Scratch, words: &str, ras: &str) -> Running {
    let profile = scratch.profile(&profile_text(words, ras));
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    boot.arg("--events").arg(scratch.path("events")).start()
}

/// The events of that name.
fn events(scratch: &Scratch, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(scratch.path("events")).expect("an event file");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|event| event["event"] == name).collect()
}

/// As many entries in records as there are errors, in however many records.
fn the_guest_is_notified_of_each_error() -> Checked {
    needs::kvm()?;
    for way in ["gsiv", "polled"] {
        let scratch = Scratch::new();
        let ras = format!("corrected = \"{way}\"\ncorrected-threshold = 3");
        let mut running = boot(&scratch, "probe.exit=hang probe.await-errors=4", &ras);
        running.wait_for("probe: awaiting");
        for _ in 0..4 {
            ctl(&scratch, &["inject", "--gpa", "0x2001234", "--kind", "ce"], 0);
        }
        running.wait_for("probe: ok");
        let ledger = ctl(&scratch, &["ledger"], 0);
        assert_eq!((&ledger["bytes_lost"], &ledger["entries"]), (&0.into(), &Value::Array(vec![])));
        let metrics = ctl(&scratch, &["metrics"], 0);
        let numbers =
            ["corrected_errors", "corrected_errors_not_reported", "corrected_thresholds", "poisoned_pages"];
        assert_eq!(numbers.map(|key| metrics[key].as_u64()), [4, 0, 1, 0].map(Some), "{metrics}");
        ctl(&scratch, &["stop"], 0);
        let guest = running.finish().expect(0);
        let sources = guest.probe("error-source");
        assert!(sources.iter().any(|source| source.starts_with(&format!("2 {way} block 0x"))), "{guest}");
        assert_eq!(guest.probe("error page"), ["0x2001000 section-severity corrected"; 4], "{guest}");
        let records = guest.probe("error record");
        assert!(records.iter().all(|it| it.starts_with("source 2 severity corrected entries ")), "{guest}");

        let errors = events(&scratch, "memory-error");
        assert_eq!(errors.len(), 4);
        let fields = ["class", "severity", "origin", "response"];
        let first = fields.map(|key| errors[0][key].as_str().unwrap_or_default());
        assert_eq!(first, ["CE", "corrected", "injected", way]);
        let reached = events(&scratch, "threshold-exceeded");
        let fields = ["source", "gpa", "errors"].map(|key| reached[0][key].as_u64());
        assert_eq!((reached.len(), fields), (1, [2, 0x200_1000, 3].map(Some)));
        let written = events(&scratch, "record-written");
        assert_eq!(written.len(), records.len());
        assert!(written.iter().all(|event| event["source"] == 2 && event["gpa"] == 0x200_1000));
    }
    Ok(())
}

fn the_guest_injects_corrected_errors() -> Checked {
    needs::kvm()?;
    let ras = "corrected = \"gsiv\"\ninjection = true";
    let scratch = Scratch::new();
    let words = "probe.inject-type=0x8 probe.inject=0x2000008 probe.await-errors=1";
    let guest = boot(&scratch, words, ras).finish().expect_ok();
    assert_eq!(guest.probe("einj"), ["types 0x38", "injected 0x2000008"], "{guest}");
    assert_eq!(guest.probe("error record"), ["source 2 severity corrected entries 1"], "{guest}");
    assert_eq!(guest.probe("error page"), ["0x2000000 section-severity corrected"], "{guest}");
    let errors = events(&scratch, "memory-error");
    assert_eq!((errors.len(), &errors[0]["class"], &errors[0]["origin"]), (1, &"CE".into(), &"einj".into()));

    // One that is not triggered is no error: the page can be used.
    let scratch = Scratch::new();
    let words = "probe.inject-type=0x8 probe.inject-only=0x2000008 probe.touch=0x2000008 probe.timeout=50";
    let guest = boot(&scratch, words, ras).finish().expect_ok();
    assert_eq!(guest.probe("touched"), ["0x2000008 fine"], "{guest}");
    assert!(events(&scratch, "memory-error").is_empty());

    // Memory that is not the guest's own.
    let scratch = Scratch::new();
    let guest = boot(&scratch, "probe.inject-type=0x8 probe.inject=0x4000000", ras).finish().expect_ok();
    assert_eq!(guest.probe("einj refused"), ["0x4000000 status 2"], "{guest}");
    Ok(())
}

fn a_record_goes_to_the_source_by_its_name() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let description = scratch.file(
        "description",
        r#"{ "section": [{ "severity": "corrected", "memory_error": { "physical_address": "0x2005000" } }] }"#,
    );
    let record = scratch.path("record");
    Ghest::new(["encode", "--out"]).arg(&record).arg(description).finish().expect(0);
    let mut running = boot(&scratch, "probe.exit=hang probe.await-errors=1", "corrected = \"gsiv\"");
    running.wait_for("probe: awaiting");
    let record = record.to_string_lossy().into_owned();
    ctl(&scratch, &["inject", "--record", &record, "--source", "corrected"], 0);
    running.wait_for("probe: ok");
    ctl(&scratch, &["stop"], 0);
    let guest = running.finish().expect(0);
    assert_eq!(guest.probe("error record"), ["source 2 severity corrected entries 1"], "{guest}");
    assert_eq!(guest.probe("error page"), ["0x2005000 section-severity corrected"], "{guest}");
    Ok(())
}

fn without_a_source_none_is_injected() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = boot(&scratch, "probe.exit=hang", "injection = true");
    running.wait_for("probe: ok");
    for (words, said) in [
        (&[][..], "this machine has no source of corrected errors: set `ras.corrected` in its profile"),
        (
            &["--via", "madvise"],
            "the method `madvise` poisons memory, and a corrected error (`ce`) poisons none",
        ),
        (&["--span", "2MiB"], "a corrected error (`ce`) is within one page"),
    ] {
        let words = [&["inject", "--gpa", "0x2001234", "--kind", "ce"], words].concat();
        let answer = ctl(&scratch, &words, 1);
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(said)), "{answer}");
    }
    ctl(&scratch, &["stop"], 0);
    let guest = running.finish().expect(0);
    assert!(guest.probe("error-source").iter().all(|source| !source.starts_with("2 ")), "{guest}");
    assert!(events(&scratch, "memory-error").is_empty());
    Ok(())
}

fn the_plan_has_source_and_threshold() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("", "corrected = \"polled\"\ninjection = true"));
    let plan = |set: &str| {
        Ghest::new(["plan", "--arch", "x86_64", "--set", set]).arg(&profile.path).finish().expect(0).stdout()
    };
    let text = plan("ras.corrected-window=36h");
    let corrected = text.split_once("\ncorrected     polled\n").expect("a response").1;
    let corrected = corrected.split_once("\nby a device").expect("the next response").0;
    for line in ["requested   polled", "source      2", "threshold   10 errors of one page within 129600s"] {
        assert!(corrected.lines().any(|it| it.trim() == line), "{line}\n{text}");
    }
    assert!(text.contains("(EINJ): Memory Correctable (0x8), "), "{text}");
    let off = plan("ras.corrected=off");
    let corrected = off.split_once("\ncorrected     ignore\n").expect("a response").1;
    assert!(corrected.trim_start().starts_with("requested   off\n"), "{off}");
    assert!(!off.contains("Memory Correctable"), "{off}");
    let json =
        Ghest::new(["plan", "--arch", "aarch64", "--json"]).arg(&profile.path).finish().expect(0).json();
    let corrected = &json["ras"]["corrected"];
    assert_eq!((&corrected["chosen"], &corrected["source"]), (&"polled".into(), &2.into()));
    let threshold = &corrected["threshold"];
    assert_eq!((&threshold["errors"], &threshold["window-ms"]), (&10.into(), &86_400_000.into()));
    Ok(())
}
