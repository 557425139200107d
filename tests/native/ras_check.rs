//! `ghest ras-check`. The guests here are a kernel that prints its initrd, which is what the guest's program would print: the lab has
//! kernels that handle errors.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::ghest::Outcome;
use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        what_a_guest_says_is_judged,
        a_difference_is_reported,
        what_cannot_be_checked_is_skipped,
        a_guest_without_the_program_is_reported,
        cases_are_listed,
        invalid_requests_are_refused,
    ]
}

const RECOVERED: &str = "\
    ras-check: Linux 6.12.1-test\n\
    ras-check: page 0x2000000\n\
    ras-check: ready\n\
    ras-check: SIGBUS code MCEERR_AR lsb 12 page 0 addr 0x7f0000001800\n\
    ras-check: access abandoned\n\
    ras-check: process continues\n\
    ras-check: log Memory failure: 0x2000: recovery action for <dirty> LRU page: Recovered\n\
    ras-check: done\n";

const EXPECTED: &str = "\
    [[expect]]\n\
    kind = [\"detected\"]\n\
    verdict = \"recovered\"\n\
    action = \"<dirty> LRU page: Recovered\"\n\
    process = \"SIGBUS MCEERR_AR lsb 12\"\n\
    why = \"a test\"\n";

/// Checks a guest that prints `console`, for one case.
fn check(scratch: &Scratch, console: &str, expected: &str) -> Ghest {
    scratch.file("kernel", kernels::prints_initrd());
    scratch.file("initrd", console);
    let expected = scratch.file("expected.toml", expected);
    let profile = scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"");
    let case = ["--tables", "acpi", "--kind", "detected", "--response", "polled", "--place", "user"];
    Ghest::new(["ras-check"]).arg(&profile.path).args(case).arg("--expectations").arg(expected)
}

fn only(json: &Value) -> &Value {
    assert_eq!(json["cases"].as_array().map(Vec::len), Some(1), "{json:#}");
    &json["cases"][0]
}

fn what_a_guest_says_is_judged() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let junit = scratch.path("junit.xml");
    let json = check(&scratch, RECOVERED, EXPECTED)
        .arg("--json")
        .arg("--junit")
        .arg(&junit)
        .finish()
        .expect(0)
        .json();
    assert_eq!((&json["format"], &json["kernel"]), (&1.into(), &"6.12.1-test".into()));
    let case = only(&json);
    assert_eq!((&case["result"], &case["verdict"]), (&"expected".into(), &"recovered".into()), "{json:#}");
    assert_eq!(
        (&case["tables"], &case["response"], &case["place"]),
        (&"acpi".into(), &"polled".into(), &"user".into())
    );
    assert_eq!(json["counts"]["expected"], 1);
    let xml = std::fs::read_to_string(junit).expect("a file");
    for part in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"1\" failures=\"0\" errors=\"0\" skipped=\"0\"",
        "<testsuite name=\"ras-check x86_64 6.12.1-test\"",
        "<testcase classname=\"acpi.detected.polled\" name=\"user\"",
        "recovery action for &lt;dirty&gt; LRU page: Recovered",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    Ok(())
}

fn a_difference_is_reported() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let junit = scratch.path("junit.xml");
    let ignored = RECOVERED.replace("Recovered", "Ignored");
    let outcome: Outcome = check(&scratch, &ignored, EXPECTED).arg("--junit").arg(&junit).finish().expect(5);
    let text = outcome.stdout();
    assert!(
        text.contains("UNEXPECTED  expected recovered (<dirty> LRU page: Recovered; SIGBUS MCEERR_AR lsb 12); was ignored"),
        "{outcome}"
    );
    assert!(text.contains("1 cases: 0 as expected, 1 unexpected"), "{outcome}");
    let xml = std::fs::read_to_string(junit).expect("a file");
    assert!(xml.contains("failures=\"1\"") && xml.contains("<failure type=\"UNEXPECTED\""), "{xml}");
    // A version without an expectation is no success.
    let later = format!("{EXPECTED}from = \"6.13\"\n");
    check(&scratch, RECOVERED, &later).finish().expect(5);
    Ok(())
}

fn what_cannot_be_checked_is_skipped() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let skipped = "ras-check: Linux 6.12.1-test\nras-check: skip no such page\nras-check: done\n";
    let outcome = check(&scratch, skipped, EXPECTED).finish().expect(0);
    assert!(outcome.stdout().contains("skipped  no such page"), "{outcome}");
    // Without a boot: the hole that would stand for the page cannot.
    let profile = scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"");
    let outcome = Ghest::new(["ras-check"])
        .arg(&profile.path)
        .args(["--tables", "acpi", "--kind", "consumed", "--response", "stop", "--place", "kernel-text"])
        .finish()
        .expect(0);
    assert!(
        outcome.stdout().contains("1 skipped") && outcome.stdout().contains("--via madvise"),
        "{outcome}"
    );
    Ok(())
}

fn a_guest_without_the_program_is_reported() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let outcome = check(&scratch, "hello\n", EXPECTED).finish().expect(1);
    outcome.expect_said("no line that begins with `ras-check: `").expect_said("hello");
    Ok(())
}

fn cases_are_listed() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"");
    let list = |words: &[&str]| {
        let outcome = Ghest::new(["ras-check", "--list"]).arg(&profile.path).args(words).finish().expect(0);
        outcome.stdout().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (some, all) = (list(&[]), list(&["--full"]));
    assert!(some.len() < all.len(), "{some:?}");
    assert!(some.iter().all(|case| all.contains(case)), "{some:?}");
    assert!(all.iter().any(|case| case == "acpi detected polled thp"), "{all:?}");
    let texts =
        list(&["--tables", "acpi", "--place", "page-table", "--kind", "consumed", "--response", "stop"]);
    assert_eq!(
        texts,
        [
            "acpi consumed stop page-table (skipped: a memslot hole cannot stand for it: use --via madvise, as root)"
        ]
    );
    Ok(())
}

fn invalid_requests_are_refused() -> Checked {
    let scratch = Scratch::new();
    let file = scratch.machine("kernel = \"kernel\"\ninitrd = \"initrd\"");
    let refused = |words: &[&str], reason: &str| {
        let outcome = Ghest::new(["ras-check"]).arg(&file.path).args(words).finish().expect(2);
        outcome.expect_said(reason);
    };
    refused(&["--via", "notice"], "--via notice poisons nothing");
    refused(&["--response", "sae"], "expected auto, sea");
    refused(&["--place", "nowhere"], "kernel-text");
    refused(&["--response", "sei", "--tables", "mptable"], "no case matches");
    let wrong = scratch.file("wrong.toml", "[[expect]]\nverdict = \"lost\"\nwhy = \"\"\n");
    refused(&["--expectations", wrong.to_str().expect("text")], "unknown variant `lost`");
    refused(&["--junit", file.path.to_str().expect("text")], "this is the profile");
    let without = scratch.profile("[machine]\nmemory = \"64MiB\"\n");
    Ghest::new(["ras-check"])
        .arg(&without.path)
        .finish()
        .expect(2)
        .expect_said("`boot.kernel`, a kernel to check");
    let without = scratch.machine("kernel = \"kernel\"");
    Ghest::new(["ras-check"]).arg(&without.path).finish().expect(2).expect_said("no initrd: --initrd");
    Ok(())
}
