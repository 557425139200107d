//! From the signal to the exception that answers it, beside one bare round trip through KVM, in the same run: machines are noisy,
//! ratios are not. `cargo bench -p ghest`.
#![cfg_attr(not(target_arch = "x86_64"), expect(unused, reason = "the guest's code is x86_64's"))]

#[cfg(target_arch = "x86_64")]
#[path = "../tests/rig/mod.rs"]
mod rig;

const ROUNDS: usize = 2000;

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("SKIPPED: the guest's code is x86_64's");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    let rounds = match rig::rounds(ROUNDS, || 0) {
        Ok(rounds) => rounds,
        Err(why) => return println!("SKIPPED, this machine lacks KVM: {why}"),
    };
    let column = |value: fn(&rig::Round) -> u64| {
        let mut values: Vec<u64> = rounds.iter().map(value).collect();
        values.sort_unstable();
        let at = |part: usize| values[(values.len() - 1) * part / 100] as f64 / 1e3;
        (at(0), at(50), at(99))
    };
    let bare = column(|round| round.bare);
    println!(
        "us, of {ROUNDS} rounds                             least    median  99 of 100   median to bare"
    );
    for (what, (least, median, most)) in [
        ("one exit and entry (a port)", bare),
        ("signal to NMI, with its record", column(|round| round.signalled + round.answered)),
        ("  the signal and its handler", column(|round| round.signalled)),
        ("  the answer: record and injection", column(|round| round.answered)),
        ("a simulated access, undone in between", column(|round| round.undone)),
        ("NMI to acknowledged record, exit included", column(|round| round.acknowledged)),
    ] {
        println!("{what:44} {least:9.1} {median:9.1} {most:9.1} {:12.2}", median / bare.1);
    }
}
