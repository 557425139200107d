//! The record of the error that ended a boot, in the memory of the next one (BERT).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::Running;
use crate::harness::machine_checks::{MachineCheckHandler, takes_a_machine_check};
use crate::harness::{Checked, Ghest, Profile, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![of_a_guest_that_dies, of_a_stop, of_a_detected_error, of_nothing, without_the_table]
}

/// A guest that reads a page again and again, and does this in its machine check.
fn profile(scratch: &Scratch, handling: MachineCheckHandler, ras: &str) -> Profile {
    scratch.file("kernel", takes_a_machine_check(0x200_0000, handling));
    scratch.profile(&format!(
        "[machine]\nmemory = \"64MiB\"\non-reboot = \"restart\"\n\n[boot]\nkernel = \"kernel\"\n\n[ras]\n{ras}\n"
    ))
}

fn boot(scratch: &Scratch, profile: &Profile) -> Running {
    let boot = Ghest::boot(profile).args(["--inject", "ar@0x2000000"]).arg("-v");
    boot.arg("--control").arg(scratch.path("control")).arg("--events").arg(scratch.path("events")).start()
}

fn ctl(scratch: &Scratch, command: &str) -> Value {
    Ghest::new(["ctl"]).arg(scratch.path("control")).arg(command).finish().expect(0).json()
}

/// Waits until the machine has booted that number of times. vCPUs enter the guest after its memory is loaded.
fn wait_for_boots(running: &Running, scratch: &Scratch, boots: usize) {
    let deadline = std::time::Instant::now() + crate::harness::ghest::TIME_LIMIT;
    assert!(
        running.stderr.wait_for("the machine boots again", boots - 1, deadline),
        "it does not boot again"
    );
    let started = || {
        let events = fs::read_to_string(scratch.path("events")).unwrap_or_default();
        events.matches(r#""event":"vcpu-started""#).count()
    };
    while started() < boots {
        assert!(std::time::Instant::now() < deadline, "it does not start");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The boot error region, at the address in the table.
fn region(scratch: &Scratch, profile: &Profile, running: &Running) -> Vec<u8> {
    Ghest::new(["tables", "--out"]).arg(scratch.path("tables")).arg(&profile.path).finish().expect(0);
    let table = fs::read(scratch.path("tables").join("bert.aml")).expect("a BERT");
    let (len, gpa) = (table[36..40].try_into().expect("4 bytes"), table[40..48].try_into().expect("8 bytes"));
    let map = ctl(scratch, "memory-map");
    let hva = map["slots"][0]["hva"].as_u64().expect("an address") + u64::from_le_bytes(gpa);
    let memory = File::open(format!("/proc/{}/mem", running.pid())).expect("a child's memory");
    let mut region = vec![0; u32::from_le_bytes(len) as usize];
    memory.read_exact_at(&mut region, hva).expect("guest memory");
    region
}

/// What `ghest decode` prints of the region, or nothing if it is zero.
fn record(scratch: &Scratch, profile: &Profile, running: &Running) -> String {
    let region = region(scratch, profile, running);
    if region.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    Ghest::new(["decode"]).arg(scratch.file("region", region)).finish().expect(0).stdout()
}

#[track_caller]
fn expect_fatal(record: &str) {
    for text in ["fatal", "0x2000000", "ghest mem #1"] {
        assert!(record.contains(text), "{text:?} is missing\n{record}");
    }
    assert_eq!(record.matches("0x2000000").count(), 1, "{record}");
}

/// The next boot finds it, and the one after that does not.
fn of_a_guest_that_dies() -> Checked {
    needs::kvm()?;
    for handling in [MachineCheckHandler::Resets, MachineCheckHandler::Crashes] {
        let scratch = Scratch::new();
        let profile = profile(&scratch, handling, "");
        let running = boot(&scratch, &profile);
        wait_for_boots(&running, &scratch, 2);
        expect_fatal(&record(&scratch, &profile, &running));
        ctl(&scratch, "reset");
        wait_for_boots(&running, &scratch, 3);
        assert_eq!(record(&scratch, &profile, &running), "");
        running.signal(Signal::TERM);
        running.finish().expect(143);
    }
    Ok(())
}

/// A stop is a reset, if the machine is to boot again.
fn of_a_stop() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, MachineCheckHandler::Hangs, "synchronous = \"stop\"");
    let running = boot(&scratch, &profile);
    wait_for_boots(&running, &scratch, 2);
    expect_fatal(&record(&scratch, &profile, &running));
    running.signal(Signal::TERM);
    running.finish().expect(143).expect_said("stopped: the profile's response to a memory error is to stop");
    let exits = Ghest::boot(&profile).args(["--inject", "ar@0x2000000", "--set", "machine.on-reboot=exit"]);
    exits.finish().expect(10);
    Ok(())
}

/// The guest has not read its record when an operator resets the machine: nothing was fatal.
fn of_a_detected_error() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n[ras]\nasynchronous = \"polled\"\n",
    );
    let boot = Ghest::boot(&profile).arg("-v").arg("--control").arg(scratch.path("control"));
    let mut running = boot.start();
    running.wait_for("probe: ok");
    let inject = ["inject", "--gpa", "0x2001000", "--kind", "ao", "--via", "notice"];
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(inject).finish().expect(0);
    ctl(&scratch, "reset");
    running.wait_for_times("probe: ok", 2);
    let record = record(&scratch, &profile, &running);
    assert!(
        record.contains("0x2001000") && record.contains("recoverable") && !record.contains("fatal"),
        "{record}"
    );
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ok(())
}

/// A guest that has acknowledged its error and is reset, and one that crashes without an error, which does not boot again.
fn of_nothing() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let first = profile(&scratch, MachineCheckHandler::EndsAndResets, "");
    let running = boot(&scratch, &first);
    wait_for_boots(&running, &scratch, 2);
    assert_eq!(record(&scratch, &first, &running), "");
    running.signal(Signal::TERM);
    running.finish().expect(143);
    scratch.file("kernel", kernels::bz_image(&[0x0f, 0x0b]));
    Ghest::boot(&first).finish().expect(4);
    Ok(())
}

/// A machine without the table boots again all the same.
fn without_the_table() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, MachineCheckHandler::Resets, "boot-record = false");
    let running = boot(&scratch, &profile);
    wait_for_boots(&running, &scratch, 2);
    running.signal(Signal::TERM);
    running.finish().expect(143);
    Ghest::new(["tables", "--out"]).arg(scratch.path("tables")).arg(&profile.path).finish().expect(0);
    assert!(!scratch.path("tables").join("bert.aml").exists());
    Ok(())
}
