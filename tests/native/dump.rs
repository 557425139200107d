//! Dumps of a running machine.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::ghest::{GHEST, Running};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        gdb_reads_registers_and_memory,
        poisoned_pages_are_omitted,
        a_paused_machine_stays_paused,
        a_dump_that_cannot_be_written,
    ]
}

/// A machine that runs until it is stopped, and listens at `control`.
fn machine(scratch: &Scratch, boot: Ghest) -> Running {
    let mut running = boot.arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    running
}

fn profile(scratch: &Scratch) -> std::path::PathBuf {
    let text = "[machine]\nvcpus = 2\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n";
    scratch.profile(text).path
}

fn ctl(scratch: &Scratch, words: &[&str], status: i32) -> Value {
    let ctl = Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).args(words);
    ctl.directory(&scratch.path(".")).finish().expect(status).json()
}

fn stop(scratch: &Scratch, running: Running) {
    ctl(scratch, &["stop"], 0);
    running.finish().expect(0);
}

/// What gdb prints for these commands.
fn gdb(scratch: &Scratch, commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch"]).args(commands.iter().flat_map(|command| ["-ex", command]));
    let output = gdb.arg("--core").arg(scratch.path("core")).output().expect("gdb runs");
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

fn gdb_reads_registers_and_memory() -> Checked {
    needs::kvm()?;
    needs::works("gdb", Command::new("gdb").arg("--version"))?;
    let scratch = Scratch::new();
    let profile = profile(&scratch);
    let running = machine(&scratch, Ghest::new(["boot"]).arg(&profile));
    let dumped = ctl(&scratch, &["dump", "core"], 0);
    assert_eq!((&dumped["omitted"], &dumped["vmcoreinfo"]), (&json!([]), &Value::Null), "{dumped}");
    assert_eq!(dumped["bytes"].as_u64(), Some(fs::metadata(scratch.path("core")).expect("a dump").len()));
    assert_eq!(ctl(&scratch, &["status"], 0)["state"], "running");

    let tables = Ghest::new(["tables", "--json", "--out"]).arg(scratch.path("tables")).arg(&profile);
    let tables = tables.finish().expect(0).json();
    let tables = tables["tables"].as_array().expect("a list").iter();
    let table = tables.clone().find(|table| table["name"] == "xsdt").unwrap_or_else(|| panic!("{tables:?}"));
    let signature = format!("x/4cb {}", table["gpa"]);
    let printed = gdb(&scratch, &["info threads", "printf \"pc %d\\n\", $pc > 4096", "x/i $pc", &signature]);
    for expected in ["88 'X'\t83 'S'\t68 'D'\t84 'T'", "* 1    LWP 1", "  2    LWP 2", "pc 1\n"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    assert!(!printed.contains("Cannot access memory"), "{printed}");
    stop(&scratch, running);
    Ok(())
}

fn poisoned_pages_are_omitted() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch, Ghest::new(["boot"]).arg(profile(&scratch)));
    ctl(&scratch, &["inject", "--gpa", "0x2000000", "--kind", "ao"], 0);
    let dumped = ctl(&scratch, &["dump", "core"], 0);
    assert_eq!(dumped["omitted"], json!([{ "gpa": 0x200_0000, "span": 4096 }]));
    stop(&scratch, running);
    Ok(())
}

fn a_paused_machine_stays_paused() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch, Ghest::new(["boot"]).arg(profile(&scratch)));
    ctl(&scratch, &["pause"], 0);
    ctl(&scratch, &["dump", "core"], 0);
    assert_eq!(ctl(&scratch, &["status"], 0)["state"], "paused");
    assert_eq!(ctl(&scratch, &["resume"], 0)["state"], "running");
    stop(&scratch, running);
    Ok(())
}

/// By RLIMIT_FSIZE, as on a full disk: nothing is left of the dump, and the machine runs on.
fn a_dump_that_cannot_be_written() -> Checked {
    needs::kvm()?;
    needs::works("prlimit", Command::new("prlimit").arg("--version"))?;
    let scratch = Scratch::new();
    let mut prlimit = Command::new("prlimit");
    prlimit.args([&format!("--fsize={}", 1 << 20), GHEST, "boot"]);
    let running = machine(&scratch, Ghest::within(prlimit).arg(profile(&scratch)));
    let refusal = ctl(&scratch, &["dump", "core"], 1);
    let error = refusal["error"].as_str().expect("a reason");
    assert!(error.contains("File too large") && error.contains("is removed"), "{error}");
    assert!(!scratch.path("core").exists());
    let file = scratch.file("precious", "x");
    let refusal = ctl(&scratch, &["dump", "precious"], 1);
    assert!(refusal["error"].as_str().is_some_and(|it| it.contains("no file is overwritten")), "{refusal}");
    assert_eq!(fs::read_to_string(file).expect("the file"), "x");
    assert_eq!(ctl(&scratch, &["status"], 0)["state"], "running");
    stop(&scratch, running);
    Ok(())
}
