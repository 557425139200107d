//! Errors that the guest injects into its own memory by EINJ. The built-in guest executes whatever instructions the table has.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::ghest::Outcome;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        an_error_that_is_triggered_is_detected,
        an_error_that_is_not_triggered_waits_for_an_access,
        a_fatal_error_has_a_fatal_record,
        memory_that_is_not_the_guests_own_is_refused,
        a_fatal_error_is_not_offered_where_none_is_reported,
        the_plan_says_what_can_be_injected,
        without_the_key_there_is_no_table,
    ]
}

fn profile_text(words: &str, ras: &str) -> String {
    format!(
        "[machine]\nvcpus = 2\nmemory = \"64MiB\"\nfirmware = \"acpi\"\n\n[boot]\ncmdline = \"probe.timeout=20000 {words}\"\n\n[ras]\n{ras}\n"
    )
}

/// Boots the built-in guest with this command line, and injection.
fn boot(scratch: &Scratch, words: &str, ras: &str) -> Outcome {
    let profile = scratch.profile(&profile_text(words, &format!("{ras}\ninjection = true")));
    Ghest::boot(&profile).arg("--events").arg(scratch.path("events")).finish()
}

/// Class, severity and origin of the memory errors in the events.
fn errors(scratch: &Scratch) -> Vec<[String; 3]> {
    let text = std::fs::read_to_string(scratch.path("events")).expect("an event file");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let errors = all.filter(|event| event["event"] == "memory-error");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    errors.map(|error| ["class", "severity", "origin"].map(|key| word(&error[key]))).collect()
}

fn an_error_that_is_triggered_is_detected() -> Checked {
    needs::kvm()?;
    for response in ["gsiv", "polled"] {
        let scratch = Scratch::new();
        let ras = format!("asynchronous = \"{response}\"");
        let guest = boot(&scratch, "probe.inject=0x2000000 probe.await-errors=1", &ras).expect_ok();
        assert_eq!(guest.probe("einj"), ["types 0x30", "injected 0x2000000"], "{guest}");
        assert_eq!(guest.probe("error record"), ["source 1 severity recoverable entries 1"], "{guest}");
        assert_eq!(guest.probe("error page"), ["0x2000000 section-severity recoverable"], "{guest}");
        assert_eq!(guest.probe("error acknowledged"), ["source 1"], "{guest}");
        assert_eq!(errors(&scratch), [["AO", "recoverable", "einj"]], "{response}");
    }
    Ok(())
}

fn an_error_that_is_not_triggered_waits_for_an_access() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.inject-only=0x2000008 probe.touch=0x2000010";
    let guest = boot(&scratch, words, "synchronous = \"nmi\"").expect_ok();
    assert_eq!(guest.probe("einj injected"), ["0x2000008"], "{guest}");
    assert_eq!(guest.probe("error nmi"), ["vcpu 0"], "{guest}");
    assert_eq!(guest.probe("error page"), ["0x2000000 section-severity recoverable"], "{guest}");
    assert_eq!(guest.probe("error offlined"), ["0x2000010"], "{guest}");
    assert_eq!(errors(&scratch), [["AR", "recoverable", "einj"]]);
    Ok(())
}

fn a_fatal_error_has_a_fatal_record() -> Checked {
    needs::kvm()?;
    for (words, source, class) in [
        ("probe.inject=0x2000000 probe.await-errors=1", 1, "AO"),
        ("probe.inject-only=0x2000000 probe.touch=0x2000000", 0, "AR"),
    ] {
        let scratch = Scratch::new();
        let words = format!("probe.inject-type=0x20 {words}");
        let guest = boot(&scratch, &words, "synchronous = \"nmi\"").expect_ok();
        let record = format!("source {source} severity fatal entries 1");
        assert_eq!(guest.probe("error record"), [record], "{guest}");
        assert_eq!(errors(&scratch), [[class, "fatal", "einj"]]);
    }
    Ok(())
}

/// Tables, registers, the end of memory, and none.
fn memory_that_is_not_the_guests_own_is_refused() -> Checked {
    needs::kvm()?;
    for gpa in ["0xe0000", "0xd0101000", "0x4000000", "0xffffffffffffffff"] {
        let scratch = Scratch::new();
        let guest = boot(&scratch, &format!("probe.inject={gpa}"), "").expect_ok();
        assert_eq!(guest.probe("einj refused"), [format!("{gpa} status 2")], "{guest}");
        assert!(errors(&scratch).is_empty());
    }
    Ok(())
}

fn a_fatal_error_is_not_offered_where_none_is_reported() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let words = "probe.inject-type=0x20 probe.inject=0x2000000";
    let guest = boot(&scratch, words, "asynchronous = \"ignore\"").expect_ok();
    assert_eq!(guest.probe("einj"), ["types 0x10", "refused 0x2000000 status 2"], "{guest}");
    Ok(())
}

fn the_plan_says_what_can_be_injected() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("", "injection = true\nasynchronous = \"gsiv\""));
    let plan = || Ghest::new(["plan"]).arg(&profile.path).args(["--arch", "x86_64"]);
    let line = "injection     by the guest itself (EINJ): Memory Uncorrectable non-fatal (0x10), Memory Uncorrectable fatal (0x20)";
    let text = plan().finish().expect(0).stdout();
    assert!(text.contains(line), "{text}");
    let json = plan().arg("--json").finish().expect(0).json();
    let types: Vec<_> = json["injection"].as_array().expect("a list").iter().map(|it| &it["type"]).collect();
    assert_eq!(types, [0x10, 0x20], "{json}");
    let none = plan().args(["--set", "ras.injection=false"]).finish().expect(0).stdout();
    assert!(!none.contains("EINJ") && !none.contains("einj"), "{none}");
    Ok(())
}

fn without_the_key_there_is_no_table() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(&profile_text("probe.inject=0x2000000", ""));
    let guest = Ghest::boot(&profile).finish();
    assert_eq!(guest.probe("failed"), ["no EINJ"], "{guest}");
    assert!(!guest.probe("table").iter().any(|table| table.starts_with("EINJ")), "{guest}");
    Ok(())
}
