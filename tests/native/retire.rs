//! Pages that are not retired, and why. That pages are retired takes a host with memory failure handling: see the lab's scenarios `retire-*`.

use std::process::Command;

use libtest_mimic::Trial;

use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![what_cannot_be_retired_is_refused_with_the_reason, the_trigger_counts_and_asks_each_machine]
}

fn what_cannot_be_retired_is_refused_with_the_reason() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.machine("cmdline = \"probe.exit=hang\"");
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    let ctl =
        |words: &[&str]| Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).args(words);
    ctl(&["inject", "--gpa", "0x2000000", "--kind", "ao"]).finish().expect(0);
    for (words, reason) in [
        (&["retire", "0x80000000"][..], "GPA 0x80000000 is not memory of this guest"),
        (&["retire", "0x2000123"], "GPA 0x2000000 is poisoned already"),
        (&["retire", "0x3800000"], "the host has no page for GPA 0x3800000 in its memory"),
    ] {
        let refusal = ctl(words).finish().expect(1).json();
        assert!(refusal["error"].as_str().is_some_and(|error| error.starts_with(reason)), "{refusal}");
    }
    // An address at which no host has memory.
    let refusal = ctl(&["retire", "--host-address", "0xf0000000000"]).finish().expect(1).json();
    let error = refusal["error"].as_str().expect("a reason");
    assert!(error.contains("CAP_SYS_ADMIN") || error.contains("no memory of this guest"), "{error}");
    ctl(&["retire"]).finish().expect(2);
    ctl(&["retire", "0x1000", "--host-address", "0x1000"]).finish().expect(2);
    ctl(&["stop"]).finish().expect(0);
    running.finish().expect(0);
    Ok(())
}

/// The example for rasdaemon, with a `ghest` that says what it was asked for.
fn the_trigger_counts_and_asks_each_machine() -> Checked {
    let scratch = Scratch::new();
    let trigger = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/retire-page");
    for name in ["one.sock", "two.sock"] {
        std::os::unix::net::UnixListener::bind(scratch.path(name)).expect("a socket");
    }
    let calls = scratch.path("calls");
    let ghest =
        format!("#!/bin/sh\necho \"$@\" >>{}\ncase $4 in *two*) exit 0 ;; esac\nexit 1\n", calls.display());
    std::fs::create_dir(scratch.path("bin")).expect("a directory");
    let program = scratch.file("bin/ghest", ghest);
    let chmod = Command::new("chmod").arg("755").arg(&program).status().expect("chmod runs");
    assert!(chmod.success());
    let run = |kind: &str, address: &str, count: &str, sockets: &str| {
        let mut sh = Command::new("sh");
        sh.arg(trigger).env_clear();
        sh.env("PATH", format!("{}:/usr/bin:/bin", scratch.path("bin").display()));
        sh.env("SOCKETS", scratch.path(sockets)).env("COUNTS", scratch.path("counts"));
        sh.env("SOFT_OFFLINE", scratch.path("soft_offline_page")).env("THRESHOLD", "3");
        let status =
            sh.env("TYPE", kind).env("ADDRESS", address).env("COUNT", count).status().expect("sh runs");
        assert!(status.success(), "{kind} {address}");
        std::fs::read_to_string(&calls).unwrap_or_default()
    };
    for (kind, address) in [("Uncorrected", "12345678"), ("Corrected", "0"), ("Corrected", "$(reboot)")] {
        assert_eq!(run(kind, address, "9", "*.sock"), "");
    }
    assert_eq!(run("Corrected", "12345678", "2", "*.sock"), "", "below the threshold");
    assert_eq!(run("Corrected", "12346000", "2", "*.sock"), "", "another page");
    let asked = run("Corrected", "12345fff", "1", "*.sock");
    let expected = ["one", "two"].map(|name| {
        let socket = scratch.path(&format!("{name}.sock"));
        format!("ctl --timeout 10s {} retire --host-address 0x12345fff\n", socket.display())
    });
    assert_eq!(asked, expected.concat());
    // No machine has it: the kernel is asked.
    run("Corrected", "7000", "3", "one.sock");
    assert_eq!(std::fs::read_to_string(scratch.path("soft_offline_page")).expect("written"), "0x7000\n");
    assert_eq!(run("Corrected", "12345fff", "1", "*.sock").lines().count(), 3, "counts begin anew");
    Ok(())
}
