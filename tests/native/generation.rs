//! The generation id: what is in guest memory, from the first start of a machine to its end.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use libtest_mimic::Trial;
use platform::x86_64::GENERATION_ID;
use serde_json::Value;

use crate::harness::ghest::Running;
use crate::harness::{Checked, Ghest, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![changes_by_request_and_not_by_a_reset, needs_tables_that_describe_it]
}

/// A machine that runs until it is stopped, and listens at `control`.
fn machine(scratch: &Scratch, firmware: &str) -> Running {
    let profile = scratch.profile(&format!(
        "[machine]\nmemory = \"64MiB\"\nfirmware = \"{firmware}\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n"
    ));
    let mut running = Ghest::boot(&profile).arg("--control").arg(scratch.path("control")).start();
    running.wait_for("probe: ok");
    running
}

fn ctl(scratch: &Scratch, command: &str, status: i32) -> Value {
    let client = Ghest::new(["ctl", "--timeout", "20s"]).arg(scratch.path("control")).arg(command);
    client.finish().expect(status).json()
}

/// The id in the memory of a running guest.
fn id(scratch: &Scratch, running: &Running) -> [u8; 16] {
    let slots = ctl(scratch, "memory-map", 0);
    let slots = slots["slots"].as_array().expect("slots").iter();
    let field = |slot: &Value, name| slot[name].as_u64().expect("a number");
    let offset_of = |slot: &Value| GENERATION_ID.start.checked_sub(field(slot, "gpa"));
    let mut holding = slots.filter(|slot| offset_of(slot).is_some_and(|offset| offset < field(slot, "len")));
    let slot = holding.next().expect("guest memory");
    let mut id = [0; 16];
    let memory = File::open(format!("/proc/{}/mem", running.pid())).expect("a child's memory");
    let at = field(slot, "hva") + offset_of(slot).expect("within it");
    memory.read_exact_at(&mut id, at).expect("guest memory");
    id
}

fn changes_by_request_and_not_by_a_reset() -> Checked {
    needs::kvm()?;
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let scratch = Scratch::new();
        let mut running = machine(&scratch, "acpi");
        assert!(seen.insert(id(&scratch, &running)), "a start has an id of its own");
        ctl(&scratch, "new-generation", 0);
        let new = id(&scratch, &running);
        assert!(seen.insert(new), "a request makes an id");
        ctl(&scratch, "reset", 0);
        running.wait_for_times("probe: ok", 2);
        assert_eq!(id(&scratch, &running), new);
        ctl(&scratch, "stop", 0);
        running.finish().expect(0);
    }
    assert!(!seen.contains(&[0; 16]));
    Ok(())
}

fn needs_tables_that_describe_it() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = machine(&scratch, "mptable");
    let refusal = ctl(&scratch, "new-generation", 1);
    let reason = "this machine has no generation id: an MP table cannot describe one";
    assert_eq!(refusal["error"], reason, "{refusal}");
    ctl(&scratch, "stop", 0);
    running.finish().expect(0);
    Ok(())
}
