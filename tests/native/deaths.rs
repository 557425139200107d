//! Guests that die with a memory error that they have not acknowledged.

use std::time::Instant;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::ghest::{Outcome, TIME_LIMIT};
use crate::harness::machine_checks::{MachineCheckHandler, takes_a_machine_check};
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![in_a_machine_check, of_a_handled_error, reset_from_outside]
}

const POISONED: &str = "ar@0x2000000";

/// Boots a guest that does this in its machine check. Returns the event `guest-shutdown` without its time.
fn dies(handling: MachineCheckHandler, status: i32) -> (Outcome, Value) {
    let scratch = Scratch::new();
    scratch.file("kernel", takes_a_machine_check(0x200_0000, handling));
    let boot = Ghest::boot(&scratch.machine("kernel = \"kernel\"")).args(["--inject", POISONED]);
    let guest = boot.arg("--events").arg(scratch.path("events")).finish().expect(status);
    (guest, shutdown(&scratch))
}

fn shutdown(scratch: &Scratch) -> Value {
    let text = std::fs::read_to_string(scratch.path("events")).expect("an event file");
    let mut events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut event = events.find(|event| event["event"] == "guest-shutdown").expect("an end of the guest");
    event.as_object_mut().expect("an object").retain(|key, _| key != "t_ns" && key != "event");
    event
}

/// Which counts as acknowledged when it is ended. A power-off is no death.
fn in_a_machine_check() -> Checked {
    needs::kvm()?;
    let said = "; the guest had not acknowledged a memory error: 4 KiB at 0x2000000, consumed by vCPU 0";
    let reset = "ghest: the guest reset its machine by the ACPI reset register";
    let (guest, event) = dies(MachineCheckHandler::Resets, 0);
    guest.expect_last(&format!("{reset}{said}"));
    assert_eq!(event, json!({ "how": "reset", "after-error": 0x200_0000 }));
    let (guest, event) = dies(MachineCheckHandler::EndsAndResets, 0);
    guest.expect_last(reset);
    assert_eq!(event, json!({ "how": "reset" }));
    let (guest, event) = dies(MachineCheckHandler::PowersOff, 0);
    guest.expect_last("ghest: the guest switched its machine off");
    assert_eq!(event, json!({ "how": "power-off" }));
    let (guest, event) = dies(MachineCheckHandler::Crashes, 4);
    let last = guest.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("the guest crashed: vCPU 0: triple fault") && last.ends_with(said), "{guest}");
    assert_eq!(event, json!({ "how": "crash", "after-error": 0x200_0000 }));
    Ok(())
}

/// A guest that resets its machine after it has handled an error does not die of it, whatever the response.
fn of_a_handled_error() -> Checked {
    needs::kvm()?;
    for synchronous in ["mce", "nmi"] {
        let scratch = Scratch::new();
        let profile = scratch.profile(&format!(
            "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.touch=0x2000000 probe.exit=reset\"\n\n\
             [ras]\nsynchronous = \"{synchronous}\"\n"
        ));
        let boot = Ghest::boot(&profile).args(["--inject", POISONED]);
        let guest = boot.arg("--events").arg(scratch.path("events")).finish().expect(0);
        assert_eq!(guest.probe("error offlined"), ["0x2000000"], "{guest}");
        guest.expect_last("ghest: the guest reset its machine by the ACPI reset register");
        assert_eq!(shutdown(&scratch), json!({ "how": "reset" }));
    }
    Ok(())
}

/// An operator resets a guest that has not read the record of a detected error. The next boot starts with nothing.
fn reset_from_outside() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = scratch.profile(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n[ras]\nasynchronous = \"polled\"\n",
    );
    let mut running = Ghest::boot(&profile).arg("-v").arg("--control").arg(scratch.path("control")).start();
    let ctl = |words: &[&str]| {
        Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(0).json()
    };
    running.wait_for("probe: ok");
    ctl(&["inject", "--gpa", "0x2001000", "--kind", "ao"]);
    ctl(&["reset"]);
    running.wait_for_times("probe: ok", 2);
    let said =
        "reset by the control socket; the guest had not acknowledged a memory error: 4 KiB at 0x2001000";
    assert!(running.stderr.wait_for(said, 1, Instant::now() + TIME_LIMIT), "{said:?} was not said");
    ctl(&["reset"]);
    running.wait_for_times("probe: ok", 3);
    assert_eq!(ctl(&["metrics"])["deaths_after_error"], 1);
    running.signal(Signal::TERM);
    running.finish().expect(143).expect_last("ghest: stopped by signal SIGTERM");
    Ok(())
}
