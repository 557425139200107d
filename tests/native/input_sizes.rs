//! Inputs without an end are refused, and the costs of others grow with their length.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::harness::ghest::GHEST;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![endless_files, endless_pipes, ten_megabytes_of_newlines, costs_of_problems]
}

fn endless_files() -> Checked {
    let scratch = Scratch::new();
    let profile = scratch.profile("[machine]\n");
    let zeros = Path::new("/dev/zero");
    for command in ["check", "plan", "boot"] {
        let outcome = Ghest::new([command]).arg(zeros).finish().expect(2);
        outcome.expect_said("the profile has more than 1048576 bytes, the maximum");
    }
    let decode = Ghest::new(["decode"]).arg(zeros).finish().expect(2);
    decode.expect_last("ghest: /dev/zero: it has more than 16777216 bytes, the maximum");
    let plan = Ghest::new(["plan", "--host"]).arg(zeros).arg(&profile.path).finish().expect(2);
    plan.expect_last("ghest: /dev/zero: it has more than 65536 bytes, the maximum");
    Ok(())
}

/// A pipe that is written as long as it is read.
fn endless_pipes() -> Checked {
    for command in ["check", "decode"] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let running = Ghest::new([command]).arg("/dev/stdin").stdin(reader).start();
        while writer.write_all(&[b'\n'; 4096]).is_ok() {}
        running.finish().expect(2).expect_said("the maximum");
    }
    // What a shell's `<(...)` gives is a profile like any other.
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let running = Ghest::new(["check"]).arg("/dev/stdin").stdin(reader).start();
    writer.write_all(b"[machine]\n").expect("a reader");
    drop(writer);
    running.finish().expect(0);
    Ok(())
}

fn ten_megabytes_of_newlines() -> Checked {
    let scratch = Scratch::new();
    let path = scratch.file("newlines.toml", vec![b'\n'; 10 << 20]);
    Ghest::new(["check"]).arg(path).finish().expect(2).expect_said("the maximum");
    Ok(())
}

/// Instructions of `ghest check`.
fn instructions(profile: &Path) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(GHEST)
        .arg("check")
        .arg(profile);
    let output = valgrind.env_remove("RUST_LOG").output().expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().rev().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind counted nothing: {said}"))
}

/// A profile with this number of problems of one kind.
fn problems(kind: &str, count: usize) -> String {
    let mut text = match kind {
        "one line" => "machine = { ".to_owned(),
        _ => "[machine]\n".to_owned(),
    };
    for number in 0..count {
        match kind {
            "unknown keys" => writeln!(text, "unknown-key-{number} = 1"),
            "broken lines" => writeln!(text, "key-{number} = ="),
            "duplicate keys" => writeln!(text, "vcpus = 1"),
            "devices" => writeln!(text, "[[device]]\ntype = \"virtio-block\"\npath = \"disk-{number}\""),
            "one disk" => writeln!(text, "[[device]]\ntype = \"virtio-block\"\npath = \"disk\""),
            "one line" => write!(text, "\"ö{number}\" = 1, "),
            _ => unreachable!(),
        }
        .expect("a string");
    }
    if kind == "one line" {
        text.push_str("vcpus = 1 }\n");
    }
    text
}

/// Four times as many problems take four times as many instructions, or less.
fn costs_of_problems() -> Checked {
    needs::works("valgrind", Command::new("valgrind").arg("--version"))?;
    let scratch = Scratch::new();
    for kind in ["unknown keys", "broken lines", "duplicate keys", "devices", "one disk", "one line"] {
        let [few, many] = [200, 800].map(|count| {
            let path = scratch.file("problems.toml", problems(kind, count));
            assert_eq!(Ghest::new(["check"]).arg(&path).finish().expect(2).stdout, b"");
            instructions(&path)
        });
        assert!(many < 5 * few, "{kind}: {few} instructions for 200, {many} for 800");
    }
    Ok(())
}
