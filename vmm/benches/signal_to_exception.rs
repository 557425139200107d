//! The time from the signal to the KVM_RUN that delivers the exception, relative to one round trip through KVM in the same run:
//! absolute times vary between machines and runs, ratios much less. `cargo bench -p ghest`.
#![cfg_attr(not(target_arch = "x86_64"), expect(unused, reason = "the guest's code is for x86_64"))]

#[cfg(target_arch = "x86_64")]
#[path = "../tests/rig/mod.rs"]
mod rig;

const ROUNDS: usize = 2000;

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("SKIPPED: the guest's code is for x86_64");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    let rounds = match rig::rounds(ROUNDS, || 0) {
        Ok(rounds) => rounds,
        Err(why) => return println!("SKIPPED, this machine has no KVM: {why}"),
    };
    let percentiles = |value: fn(&rig::Round) -> u64| {
        let mut values: Vec<u64> = rounds.iter().map(value).collect();
        values.sort_unstable();
        let at = |part: usize| values[(values.len() - 1) * part / 100] as f64 / 1e3;
        (at(0), at(50), at(99))
    };
    let bare = percentiles(|round| round.bare);
    println!(
        "us, of {ROUNDS} rounds                           minimum    median  99th perc.   median / first"
    );
    for (what, (minimum, median, high)) in [
        ("one exit and entry (a port)", bare),
        ("signal to NMI, with its record", percentiles(|round| round.signalled + round.answered)),
        ("  the signal and its handler", percentiles(|round| round.signalled)),
        ("  the response: record, NMI, events", percentiles(|round| round.answered)),
        ("a simulated access, abandoned in between", percentiles(|round| round.undone)),
        ("NMI to acknowledged record, with the exit", percentiles(|round| round.acknowledged)),
    ] {
        println!("{what:44} {minimum:9.1} {median:9.1} {high:9.1} {:12.2}", median / bare.1);
    }
}
