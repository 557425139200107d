//! Injected error records, and the built-in guest that reads them.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::errors::{Story, ctl};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![guest_reads_an_injected_record, records_that_are_refused]
}

/// A CPER record with a memory error of that severity, and one of a PCIe port.
fn description(severity: &str) -> String {
    format!(
        r#"{{ "section": [
            {{ "severity": "{severity}", "memory_error": {{ "physical_address": "0x2005000" }} }},
            {{ "severity": "corrected", "pcie_error": {{ "port_type": "root port" }} }}
        ] }}"#
    )
}

/// Encodes a description, and returns the path of the result.
fn encode(scratch: &Scratch, name: &str, json: &str) -> String {
    let out = scratch.path(name);
    Ghest::new(["encode", "--out"]).arg(&out).arg(scratch.file("description", json)).finish().expect(0);
    out.to_string_lossy().into_owned()
}

fn inject(scratch: &Scratch, record: &str, source: &str, more: &[&str], status: i32) -> Value {
    ctl(scratch, &[&["inject", "--record", record, "--source", source], more].concat(), status)
}

fn guest_reads_an_injected_record() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let corrected = encode(&scratch, "corrected", &description("corrected"));
    let recoverable = encode(&scratch, "recoverable", &description("recoverable"));
    let mut story = Story::boot(&scratch, "acpi", "gsiv", "probe.await-errors=4");
    // The first is acknowledged, or the others wait until it is.
    inject(&scratch, &corrected, "1", &["--repeat", "3", "--interval", "1ms"], 0);
    inject(&scratch, &recoverable, "1", &[], 0);
    story.running.wait_for("probe: ok");
    story.expect_acknowledged(4);
    assert_eq!(ctl(&scratch, &["ledger"], 0)["entries"], Value::Array(vec![]), "no page is poisoned");
    let guest = story.stop();
    let corrected = "source 1 severity corrected entries 2";
    let recoverable = "source 1 severity recoverable entries 2";
    assert_eq!(guest.probe("error record"), [corrected, corrected, corrected, recoverable], "{guest}");
    assert_eq!(
        guest.probe("error page").last().map(String::as_str),
        Some("0x2005000 section-severity recoverable"),
        "{guest}"
    );
    Ok(())
}

fn records_that_are_refused() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let good = encode(&scratch, "good", &description("corrected"));
    let short = r#"{ "entry": [{ "severity": "corrected", "section_type": "a5bc1114-6f64-4ede-b863-3e83ed7c83b1" }] }"#;
    let short = encode(&scratch, "short", short);
    let empty = encode(
        &scratch,
        "empty",
        r#"{ "block_status": [], "entry_count": 0, "severity": "recoverable", "entry": [] }"#,
    );
    let long = format!(
        r#"{{ "severity": "corrected", "section_type": "00112233-4455-6677-8899-aabbccddeeff", "section": "{}" }}"#,
        "00".repeat(4096)
    );
    let long = encode(&scratch, "long", &long);
    let garbage = scratch.file("garbage", [0xff; 64]).to_string_lossy().into_owned();
    let mut wrong_length = std::fs::read(&short).expect("a block");
    wrong_length[12] += 1;
    let wrong_length = scratch.file("wrong-length", wrong_length).to_string_lossy().into_owned();

    let story = Story::boot(&scratch, "acpi", "gsiv", "probe.await-errors=1");
    for (record, source, said) in [
        (&good, "7", "there is no error source 7: this machine has 1 (`gsiv`)"),
        (
            &good,
            "corrected",
            "this machine has no error source of its own for corrected errors: name one of 1 (`gsiv`)",
        ),
        (&good, "fatal", "for fatal errors"),
        (&short, "1", "Linux would refuse section 1 of it as too short; `--force` writes it all the same"),
        (&empty, "1", "its status is zero"),
        (
            &wrong_length,
            "1",
            "Linux would refuse the status block: the entry at offset 92 has 64 bytes, and 1 are left",
        ),
        (&long, "1", "it has 4188 bytes, and the status block of the source has 4096"),
        (&garbage, "1", "it has no status block, CPER record or section"),
    ] {
        let answer = inject(&scratch, record, source, &[], 1);
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(said)), "{answer}");
    }
    let said = "cannot be used with";
    let words = ["inject", "--record", &good, "--source", "1", "--gpa", "0"];
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(2).expect_said(said);
    // What does not fit is refused all the same. The rest is written, and the guest, which is as strict as Linux, stops.
    inject(&scratch, &long, "1", &["--force"], 1);
    inject(&scratch, &wrong_length, "1", &["--force"], 0);
    let guest = story.running.finish();
    assert_eq!(guest.probe("failed").len(), 1, "{guest}");
    Ok(())
}
