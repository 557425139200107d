//! A reset of a machine whose poisoned pages are never repaired: the next boot does not use them.

use std::fs;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::ghest::{Outcome, Running};
use crate::harness::{Checked, Ghest, Profile, Scratch, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_page_that_was_consumed,
        a_page_that_nobody_has_consumed,
        pages_that_are_replaced_are_usable,
        a_page_of_the_kernel,
        very_many_pages,
    ]
}

fn profile(scratch: &Scratch, cmdline: &str, ras: &str) -> Profile {
    scratch.profile(&format!(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.timeout=20000 {cmdline} probe.exit=hang\"\n\n[ras]\n{ras}\n"
    ))
}

fn start(scratch: &Scratch, profile: &Profile) -> Ghest {
    let boot = Ghest::boot(profile).arg("--events").arg(scratch.path("events"));
    boot.arg("--control").arg(scratch.path("control"))
}

fn ctl(scratch: &Scratch, words: &[&str]) -> Outcome {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish()
}

/// Waits until the guest hangs, boots it again, and ends it when it hangs again.
fn twice(scratch: &Scratch, mut running: Running) -> Outcome {
    running.wait_for("probe: ok");
    ctl(scratch, &["reset"]).expect(0);
    running.wait_for_times("probe: ok", 2);
    running.signal(Signal::TERM);
    running.finish().expect(143)
}

fn unusable(guest: &Outcome) -> Vec<String> {
    let memory = guest.probe("memory").into_iter();
    memory.filter_map(|region| Some(region.strip_suffix(" unusable")?.to_owned())).collect()
}

fn events(scratch: &Scratch, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(scratch.path("events")).expect("an event file");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|event| event["event"] == name).collect()
}

fn a_page_that_was_consumed() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    // The guest of the second boot does not know of the page: it accesses it in spite of its memory map, and consumes the error again.
    let profile = profile(&scratch, "probe.touch=0x2000000", "repair = \"never\"");
    let running = start(&scratch, &profile).args(["--inject", "ar@0x2000000,when=probe: touching"]).start();
    let guest = twice(&scratch, running);
    assert_eq!(unusable(&guest), ["0x2000000-0x2001000"], "{guest}");
    assert_eq!(events(&scratch, "unusable").len(), 1);
    // Nobody was notified of it but by that access: one error for each.
    assert_eq!(events(&scratch, "memory-error").len(), 2);
    Ok(())
}

/// Injected by the guest, by EINJ, and never accessed: no record of it was ever written.
fn a_page_that_nobody_has_consumed() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "probe.inject-only=0x2000008", "repair = \"never\"\ninjection = true");
    let guest = twice(&scratch, start(&scratch, &profile).start());
    assert_eq!(unusable(&guest), ["0x2000000-0x2001000"], "{guest}");
    assert_eq!(events(&scratch, "memory-error"), [] as [Value; 0]);
    Ok(())
}

fn pages_that_are_replaced_are_usable() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "probe.inject-only=0x2000008", "injection = true");
    let guest = twice(&scratch, start(&scratch, &profile).start());
    assert_eq!(unusable(&guest), [] as [String; 0], "{guest}");
    assert_eq!(events(&scratch, "unusable"), [] as [Value; 0]);
    Ok(())
}

/// The built-in guest has a fixed place.
fn a_page_of_the_kernel() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "", "repair = \"never\"");
    let mut running = start(&scratch, &profile).start();
    running.wait_for("probe: ok");
    ctl(&scratch, &["inject", "--gpa", "0x100000", "--kind", "ar"]).expect(0);
    ctl(&scratch, &["reset"]).expect(0);
    let guest = running.finish().expect(10);
    guest
        .expect_said(
            "where the page at 0x100000 is poisoned and not repaired, and it cannot be loaded elsewhere",
        )
        .expect_said("stopped: the machine cannot start again");
    Ok(())
}

/// More than the memory map of a boot protocol has entries for: the guest has enough memory all the same.
fn very_many_pages() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let profile = profile(&scratch, "", "repair = \"never\"");
    let pages = (0..80_u64).map(|index| format!("ar@{:#x}", 0x200_0000 + index * 0x2000));
    let specs = pages.flat_map(|spec| ["--inject".to_owned(), spec]);
    let running = start(&scratch, &profile).args(specs).start();
    let guest = twice(&scratch, running);
    let ranges = unusable(&guest);
    assert!((1..60).contains(&ranges.len()), "{ranges:?}");
    assert!(ranges[0].starts_with("0x2000000-"), "{ranges:?}");
    Ok(())
}
