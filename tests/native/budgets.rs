//! The error budget.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::ghest::Running;
use crate::harness::{Checked, Ghest, Scratch, kernels, needs, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        stopped_with_a_status_of_its_own,
        spent_by_the_error_that_ends_the_machine,
        distinct_pages_across_resets,
        a_larger_page,
        the_power_button
    ]
}

/// Boots a guest that waits, with this budget.
fn boot(scratch: &Scratch, budget: &str) -> Running {
    let profile = scratch.profile(&format!(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n[ras]\n\
         asynchronous = \"polled\"\n{budget}\n"
    ));
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(scratch.path("events")).start();
    running.wait_for("probe: ok");
    running
}

fn ctl(scratch: &Scratch, words: &[&str]) -> Value {
    Ghest::new(["ctl"]).arg(scratch.path("control")).args(words).finish().expect(0).json()
}

fn inject(scratch: &Scratch, gpa: &str, more: &[&str]) {
    ctl(scratch, &[&["inject", "--gpa", gpa, "--kind", "ao", "--via", "notice"], more].concat());
}

/// `pages` and `budget` of each event `evacuate`.
fn evacuations(scratch: &Scratch) -> Vec<(Value, Value)> {
    let text = std::fs::read_to_string(scratch.path("events")).expect("an event file");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let evacuations = events.filter(|event| event["event"] == "evacuate");
    evacuations.map(|event| (event["pages"].clone(), event["budget"].clone())).collect()
}

fn stopped_with_a_status_of_its_own() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = boot(&scratch, "budget = 2\non-budget = \"stop\"");
    inject(&scratch, "0x2000000", &[]);
    inject(&scratch, "0x2001000", &[]);
    running.finish().expect(12).expect_last(
        "ghest: stopped: 2 distinct pages of 4 KiB were poisoned, and the error budget is 2: \
         start the machine on another host",
    );
    assert_eq!(evacuations(&scratch), [(json!(2), json!(2))]);
    Ok(())
}

/// The machine has ended before it looks at its budget for the next time, and does not boot again on this host.
fn spent_by_the_error_that_ends_the_machine() -> Checked {
    needs::kvm()?;
    for action in ["stop", "power-button"] {
        let scratch = Scratch::new();
        let profile = scratch.profile(&format!(
            "[machine]\nmemory = \"64MiB\"\non-reboot = \"restart\"\n\n[boot]\ncmdline = \"probe.exit=hang\"\n\n[ras]\n\
             asynchronous = \"stop\"\nbudget = 1\non-budget = \"{action}\"\n"
        ));
        let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
        let mut running = boot.arg("--events").arg(scratch.path("events")).start();
        running.wait_for("probe: ok");
        inject(&scratch, "0x2000000", &[]);
        running.finish().expect(12);
        assert_eq!(evacuations(&scratch), [(json!(1), json!(1))]);
    }
    Ok(())
}

/// A page that is poisoned again counts once, and the count of a machine goes on after a reset, which repairs.
fn distinct_pages_across_resets() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let mut running = boot(&scratch, "budget = 3");
    let pages = || {
        let metrics = ctl(&scratch, &["metrics"]);
        ["poisoned_pages", "poisoned_pages_last_hour", "last_error_gpa"].map(|key| metrics[key].as_u64())
    };
    assert_eq!(pages(), [Some(0), Some(0), Some(0)]);
    inject(&scratch, "0x2000000", &[]);
    inject(&scratch, "0x2001000", &[]);
    inject(&scratch, "0x2000000", &[]);
    assert_eq!(pages(), [Some(2), Some(2), Some(0x200_0000)]);
    ctl(&scratch, &["reset"]);
    running.wait_for_times("probe: ok", 2);
    inject(&scratch, "0x2001000", &[]);
    assert_eq!((pages()[0], evacuations(&scratch)), (Some(2), vec![]));
    inject(&scratch, "0x2002000", &[]);
    inject(&scratch, "0x2003000", &[]);
    assert_eq!(pages(), [Some(4), Some(4), Some(0x200_3000)]);
    ctl(&scratch, &["stop"]);
    running.finish().expect(0).expect_said("the error budget of 3 is spent");
    // The main thread looks from time to time: both pages may have been there.
    let evacuations = evacuations(&scratch);
    assert!(matches!(&evacuations[..], [(pages, _)] if *pages == 3 || *pages == 4), "{evacuations:?}");
    Ok(())
}

/// A page of 2 MiB is 512 pages of 4 KiB.
fn a_larger_page() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    let running = boot(&scratch, "budget = 513\non-budget = \"stop\"");
    inject(&scratch, "0x2000000", &["--span", "2MiB"]);
    assert_eq!(ctl(&scratch, &["metrics"])["poisoned_pages"], 512);
    inject(&scratch, "0x2200000", &[]);
    running.finish().expect(12);
    assert_eq!(evacuations(&scratch), [(json!(513), json!(513))]);
    Ok(())
}

/// It is pressed, and the guest switches its machine off as it likes.
fn the_power_button() -> Checked {
    needs::kvm()?;
    let scratch = Scratch::new();
    scratch.file("kernel", kernels::waits_for_its_power_button());
    let profile = scratch.profile(
        "[machine]\nmemory = \"64MiB\"\n\n[boot]\nkernel = \"kernel\"\n\n[ras]\nbudget = 1\non-budget = \"power-button\"\n",
    );
    let boot = Ghest::boot(&profile).arg("--control").arg(scratch.path("control"));
    let mut running = boot.arg("--events").arg(scratch.path("events")).start();
    running.wait_for("w");
    inject(&scratch, "0x2000000", &[]);
    running.finish().expect(0).expect_last("ghest: the guest switched its machine off");
    assert_eq!(evacuations(&scratch), [(json!(1), json!(1))]);
    Ok(())
}
