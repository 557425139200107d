//! `ghest encode`. What it makes of descriptions is tested in `ras-core` (`records`).

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use libtest_mimic::Trial;

use crate::decode::{ADDRESS, block, record};
use crate::harness::{Checked, Ghest, Scratch, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![records_are_encoded_as_they_were, a_description_by_hand, descriptions_with_errors]
}

fn records_are_encoded_as_they_were() -> Checked {
    let scratch = Scratch::new();
    let two = [block(0x1000), block(0x2000)].concat();
    for (number, bytes) in
        [record(), block(0x4567_8000), record()[128..].to_vec(), two].into_iter().enumerate()
    {
        let decoded =
            Ghest::new(["decode", "--json"]).arg(scratch.file("records", &bytes)).finish().expect(0);
        let json = scratch.file("description", &decoded.stdout);
        let encoded = Ghest::new(["encode"]).arg(&json).finish().expect(0);
        assert_eq!(encoded.stdout, bytes, "{number}");
        let out = scratch.path("out");
        Ghest::new(["encode", "--out"]).arg(&out).arg(&json).finish().expect(0);
        assert_eq!(fs::read(&out).expect("a file"), bytes, "{number}");
        // From standard input.
        let mut running = Ghest::new(["encode", "-"]).stdin(Stdio::piped()).start();
        running.take_stdin().write_all(&decoded.stdout).expect("a reader");
        assert_eq!(running.finish().expect(0).stdout, bytes, "{number}");
    }
    Ok(())
}

fn a_description_by_hand() -> Checked {
    let scratch = Scratch::new();
    let json = format!(
        r#"{{"section": [{{"severity": "fatal", "memory_error": {{"physical_address": "{ADDRESS}"}}}}]}}"#
    );
    let out = scratch.path("out");
    Ghest::new(["encode", "--out"]).arg(&out).arg(scratch.file("description", &json)).finish().expect(0);
    let decoded = Ghest::new(["decode"]).arg(&out).finish().expect(0).stdout();
    assert!(decoded.contains(ADDRESS) && decoded.contains("record length          280"), "{decoded}");
    Ok(())
}

fn descriptions_with_errors() -> Checked {
    let scratch = Scratch::new();
    for (json, said) in [
        ("", "it is empty"),
        ("[]", "it is no description in JSON: invalid type: sequence, expected an object at line 1 column 0"),
        ("{\"entry\": true}", "line 1 column 14"),
        (
            r#"{"entry": [{"severity": "bad", "memory_error": {}}]}"#,
            "`entry[0].severity` is `bad`, expected `recoverable`, `fatal`, `corrected`, `informational`, or a number",
        ),
        (r#"{"entry": [], "unknown": 1}"#, "`unknown` is not a key of this object: correct or remove it"),
    ] {
        let file = scratch.file("description", json);
        let outcome = Ghest::new(["encode"]).arg(&file).finish().expect(2).expect_said(said);
        assert!(outcome.stderr.contains(&*file.to_string_lossy()), "{outcome}");
        assert_eq!(outcome.stdout, b"", "{outcome}");
    }
    let file = scratch.file("description", r#"{"entry": []}"#);
    let missing = scratch.path("missing").join("out");
    Ghest::new(["encode", "--out"])
        .arg(missing)
        .arg(file)
        .finish()
        .expect(1)
        .expect_said("open(2): No such file");
    Ok(())
}
