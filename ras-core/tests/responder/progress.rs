//! vCPUs that make no progress, and access patterns that only resemble them.

use ras_core::Response;
use ras_core::request::TableSet;

use crate::machine::{Machine, SECOND, USER, arm};

/// Accesses these pages in turn with vCPU 0, one every `every_ns` nanoseconds, until the VM is stopped. Returns after how many nanoseconds
/// that was; `None` if it is not stopped within `max` accesses.
fn time_until_stopped(pages: &[u64], every_ns: u64, max: u32) -> Option<u64> {
    let mut machine =
        Machine::new(&arm(), TableSet::Devicetree, Some(Response::Abort), Some(Response::Ignore));
    let start = machine.now;
    (0..max).zip(pages.iter().cycle()).find_map(|(_, page)| {
        machine.now += every_ns;
        let done = machine.consumed(*page, 12, 0, USER);
        (done[0] == "handled stop").then(|| {
            assert_eq!(done, ["handled stop", "stop NoProgress"]);
            machine.now - start
        })
    })
}

#[test]
fn a_vcpu_that_makes_no_progress_stops_the_vm() {
    for pages in [&[0x8000_1000][..], &[0x8000_1000, 0x8000_5000]] {
        for every_ns in [SECOND / 30, SECOND / 1_000, SECOND / 100_000] {
            let after = time_until_stopped(pages, every_ns, 1_200_000).unwrap();
            assert!((10 * SECOND..=12 * SECOND).contains(&after), "{pages:x?} {every_ns} {after}");
        }
    }
}

#[test]
fn processes_that_are_killed_by_one_page_repeatedly_do_not_stop_the_vm() {
    // A service that is restarted 100 ms after each crash, and one that is restarted each second.
    assert_eq!(time_until_stopped(&[0x8000_1000], SECOND / 10, 10_000), None);
    assert_eq!(time_until_stopped(&[0x8000_1000], SECOND, 10_000), None);
    // A hundred processes that share a page are killed within a moment, again after a pause, and again.
    let mut machine =
        Machine::new(&arm(), TableSet::Devicetree, Some(Response::Abort), Some(Response::Ignore));
    for pause in [0, 11 * SECOND, 3_600 * SECOND] {
        machine.now += pause;
        for _ in 0..100 {
            machine.now += SECOND / 1_000;
            assert_eq!(machine.consumed(0x8000_1000, 12, 0, USER)[1], "handled abort");
        }
    }
    // A kernel that reads a large poisoned span, page by page, as fast as it can.
    let pages: Vec<u64> = (0..50_000).map(|page| 0x8000_0000 + (page << 12)).collect();
    assert_eq!(time_until_stopped(&pages, SECOND / 1_000, 50_000), None);
}
