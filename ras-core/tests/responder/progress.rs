//! vCPUs that get nowhere, and programs that only look so.

use ras_core::request::{Asynchronous, Synchronous, TableSet};

use crate::machine::{Machine, SECOND, USER, arm};

/// Touches these pages in turn with vCPU 0, every so many nanoseconds, until the VM is stopped; then says after how long.
fn touch_until_stopped(pages: &[u64], every_ns: u64, most: u32) -> Option<u64> {
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Abort, Asynchronous::Ignore);
    let start = machine.now;
    (0..most).zip(pages.iter().cycle()).find_map(|(_, page)| {
        machine.now += every_ns;
        let done = machine.consumed(*page, 12, 0, USER);
        (done[0] == "answered stop").then(|| {
            assert_eq!(done, ["answered stop", "stop 10 NoProgress"]);
            machine.now - start
        })
    })
}

#[test]
fn a_vcpu_that_gets_nowhere_stops_the_vm() {
    for pages in [&[0x8000_1000][..], &[0x8000_1000, 0x8000_5000]] {
        for every_ns in [SECOND / 30, SECOND / 1_000, SECOND / 100_000] {
            let after = touch_until_stopped(pages, every_ns, 1_200_000).unwrap();
            assert!((10 * SECOND..=12 * SECOND).contains(&after), "{pages:x?} {every_ns} {after}");
        }
    }
}

#[test]
fn programs_that_die_of_one_page_again_and_again_do_not_stop_the_vm() {
    // A service that is started anew 100 ms after each death, and one that is started anew each second.
    assert_eq!(touch_until_stopped(&[0x8000_1000], SECOND / 10, 10_000), None);
    assert_eq!(touch_until_stopped(&[0x8000_1000], SECOND, 10_000), None);
    // A hundred processes that share a page die in a moment; then nothing, then one more.
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Abort, Asynchronous::Ignore);
    for pause in [0, 11 * SECOND, 3_600 * SECOND] {
        machine.now += pause;
        for _ in 0..100 {
            machine.now += SECOND / 1_000;
            assert_eq!(machine.consumed(0x8000_1000, 12, 0, USER)[1], "answered abort");
        }
    }
    // A kernel that walks over a large loss, page by page, as fast as it can.
    let pages: Vec<u64> = (0..50_000).map(|page| 0x8000_0000 + (page << 12)).collect();
    assert_eq!(touch_until_stopped(&pages, SECOND / 1_000, 50_000), None);
}
