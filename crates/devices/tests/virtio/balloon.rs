//! The balloon: a driver that gives pages back.

use std::time::{Duration, Instant};

use devices::virtio_balloon::{Balloon, BalloonConfig, BalloonControl};
use guest_memory::Backing;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::*;
use crate::rings::{Ring, Rings, part};

const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const STATISTICS: u32 = 2;
const PAGE: u64 = 4096;

const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;

/// Page numbers and statistics, and the pages that are given back.
const REQUEST: u64 = 0x6_0000;
const PAGES: u64 = 0x8_0000;

fn config() -> BalloonConfig {
    BalloonConfig { size: 0, deflate_on_oom: true, free_page_reporting: true }
}

fn balloon(features: u64, queues: u32) -> (Rings, BalloonControl) {
    let control = BalloonControl::new(10 * PAGE + 1).expect("an eventfd");
    let mut rings = Rings::new(Balloon::new(control.clone(), config()));
    rings.start(features, queues);
    (rings, control)
}

/// Fills the pages, and makes a request of these page numbers.
fn request(rings: &mut Rings, queue: u32, pages: &[u64]) {
    let numbers: Vec<u8> = pages.iter().flat_map(|gpa| ((gpa / PAGE) as u32).to_le_bytes()).collect();
    rings.driver.put(REQUEST, &numbers);
    assert_eq!(rings.request(queue, &[Buffer(REQUEST, numbers.len() as u32, false)]), 0);
}

fn fill(rings: &Rings) {
    rings.driver.put(PAGES, &[0x5a; 16 * PAGE as usize]);
}

/// The pages of [`PAGES`] that are zero.
fn zero(rings: &Rings) -> Vec<u64> {
    let is_zero = |page: &u64| rings.driver.byte(PAGES + page * PAGE) == 0;
    (0..16).filter(is_zero).collect()
}

/// The ranges, in pages from [`PAGES`] on, that the observer was notified of since the last call.
fn discarded(rings: &Rings) -> Vec<(u64, u64)> {
    let ranges = std::mem::take(&mut *rings.driver.reported.discarded.lock().expect("no panic"));
    ranges.into_iter().map(|(gpa, len)| ((gpa - PAGES) / PAGE, len / PAGE)).collect()
}

fn await_condition(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn features_follow_the_configuration() {
    let of = |config| {
        let control = BalloonControl::new(0).expect("an eventfd");
        Driver::new(Balloon::new(control, config)).offered() & 0xff_ffff
    };
    assert_eq!(of(config()), STATS_VQ | DEFLATE_ON_OOM | REPORTING);
    assert_eq!(of(BalloonConfig { deflate_on_oom: false, ..config() }), STATS_VQ | REPORTING);
    assert_eq!(of(BalloonConfig { free_page_reporting: false, ..config() }), STATS_VQ | DEFLATE_ON_OOM);
}

#[test]
fn inflated_pages_are_given_back_and_return_as_zeros() {
    let (mut rings, control) = balloon(0, 2);
    fill(&rings);
    // Ascending, descending, alone, and twice.
    request(&mut rings, INFLATE, &[1, 2, 3, 6, 5, 9, 9].map(|page| PAGES + page * PAGE));
    assert_eq!(zero(&rings), [1, 2, 3, 5, 6, 9]);
    assert_eq!(discarded(&rings), [(1, 3), (5, 2), (9, 1), (9, 1)]);
    rings.driver.write(CONFIG + 4, 6);
    assert_eq!(control.actual(), 6 * PAGE);
    request(&mut rings, DEFLATE, &[PAGES + PAGE]);
    rings.driver.put(PAGES + PAGE, &[1]);
    assert_eq!(zero(&rings), [2, 3, 5, 6, 9], "it is memory as before");
    assert_eq!(discarded(&rings), []);
}

#[test]
fn reported_pages_are_given_back() {
    // As Linux numbers the queues, with and without statistics; and as VIRTIO does.
    for (features, queue) in [(REPORTING, 2), (STATS_VQ | REPORTING, 3), (STATS_VQ | REPORTING, 4)] {
        let (mut rings, _) = balloon(features, queue + 1);
        fill(&rings);
        let pages = |from: u64, count: u32| Buffer(PAGES + from * PAGE, count * PAGE as u32, true);
        // Whole pages only; device-readable buffers are no reports.
        let buffers = [
            Buffer(PAGES + 12 * PAGE, PAGE as u32, false),
            pages(1, 2),
            Buffer(PAGES + 8 * PAGE + 100, 2 * PAGE as u32, true),
            pages(14, 2),
        ];
        assert_eq!(rings.request(queue, &buffers), 0);
        assert_eq!(zero(&rings), [1, 2, 9, 14, 15], "queue {queue}");
        assert_eq!(discarded(&rings), [(1, 2), (9, 1), (14, 2)]);
    }
}

#[test]
fn the_target_is_announced_and_survives_a_reset() {
    let (mut rings, control) = balloon(0, 2);
    assert_eq!((rings.driver.read(CONFIG), rings.driver.read(CONFIG + 4)), (10, 0));
    let generation = rings.driver.read(CONFIG_GENERATION);
    control.set_target(20 * PAGE + 5);
    await_condition("no notification of the new target", || {
        rings.driver.read(CONFIG_GENERATION) != generation
    });
    assert_eq!(rings.driver.read(INTERRUPT_STATUS) & 2, 2);
    assert_eq!((rings.driver.read(CONFIG), control.target()), (20, 20 * PAGE));
    // The guest changes `actual` only.
    rings.driver.write(CONFIG, 7);
    rings.driver.write(CONFIG + 4, 3);
    assert_eq!((rings.driver.read(CONFIG), rings.driver.read(CONFIG + 4)), (20, 3));
    rings.start(0, 2);
    assert_eq!((rings.driver.read(CONFIG), rings.driver.read(CONFIG + 4)), (20, 0));
    // Without a driver, it is what the next one finds.
    rings.driver.write(STATUS, 0);
    control.set_target(u64::MAX);
    assert_eq!(rings.driver.read(CONFIG), u32::MAX);
}

#[test]
fn statistics_are_sent_when_they_are_requested() {
    let (mut rings, control) = balloon(STATS_VQ, 3);
    assert_eq!(control.statistics(), None);
    let send = |rings: &mut Rings, stats: &[(u16, u64)]| {
        let bytes: Vec<u8> = stats
            .iter()
            .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat())
            .collect();
        rings.driver.put(REQUEST, &bytes);
        rings.driver.chain(part(STATISTICS, 0), &[Buffer(REQUEST, bytes.len() as u32, false)]);
        rings.offer(STATISTICS, 0);
    };
    // An unknown one is ignored.
    send(&mut rings, &[(5, 512 << 20), (77, 1), (4, 100 << 20)]);
    await_condition("no statistics", || control.statistics().is_some());
    let statistics = control.statistics().expect("statistics");
    assert_eq!(
        (statistics.total, statistics.free, statistics.swap_in),
        (Some(512 << 20), Some(100 << 20), None)
    );
    // The device keeps the buffer until the next request.
    assert!(!rings.is_used(STATISTICS));
    for free in [1, 2] {
        control.request_statistics();
        assert_eq!(rings.used(STATISTICS), (0, 0));
        send(&mut rings, &[(4, free)]);
        await_condition("no new statistics", || control.statistics().and_then(|new| new.free) == Some(free));
    }
    // Another queue is stopped and started: the buffer is still there.
    rings.driver.write(QUEUE_SEL, INFLATE);
    rings.driver.write(QUEUE_READY, 0);
    control.request_statistics();
    assert_eq!(rings.used(STATISTICS), (0, 0));
    rings.driver.write(STATUS, 0);
    assert_eq!(control.statistics(), None, "they are of the driver");
}

/// A call of the device takes one chain of such a queue: what it does after that one happens in another call.
#[test]
fn a_statistics_queue_of_one_element_is_served_again_and_again() {
    for features in [0, EVENT_INDEX] {
        let control = BalloonControl::new(0).expect("an eventfd");
        let mut driver = Driver::new(Balloon::new(control.clone(), config()));
        assert!(driver.agree(VERSION_1 | STATS_VQ | features));
        let mut ring = Ring::at(STATISTICS as u16, part(STATISTICS, 0)).of_size(1);
        ring.set_up(&mut driver);
        driver.go();
        for round in 0_u16..4 {
            let [_, _, used] = ring.parts;
            await_condition("no notification of the next statistics is wanted", || {
                let load = |at| driver.ram.load_u16(at).expect("memory");
                // avail_event, or VIRTQ_USED_F_NO_NOTIFY (VIRTIO 1.2, 2.7.8).
                if features == 0 { load(used) & 1 == 0 } else { load(used + 4 + 8) == round }
            });
            let free = u64::from(round) + 1;
            driver.put(REQUEST, &[&4_u16.to_le_bytes()[..], &free.to_le_bytes()].concat());
            ring.offer(&mut driver, 0, &[Buffer(REQUEST, 10, false)]);
            await_condition("no statistics", || {
                control.statistics().and_then(|statistics| statistics.free) == Some(free)
            });
            control.request_statistics();
            assert_eq!(ring.used(&driver), (0, 0));
        }
        assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0);
    }
}

#[test]
fn malformed_requests_give_back_what_is_memory() {
    let (mut rings, _) = balloon(REPORTING, 3);
    fill(&rings);
    request(&mut rings, INFLATE, &[MEMORY, u64::from(u32::MAX) * PAGE, PAGES + PAGE]);
    // A part of a number, a buffer of the wrong direction, one that is not memory.
    assert_eq!(rings.request(INFLATE, &[Buffer(REQUEST, 3, false)]), 0);
    assert_eq!(rings.request(INFLATE, &[Buffer(REQUEST, 4, true)]), 0);
    assert_eq!(rings.request(INFLATE, &[Buffer(MEMORY, 4, false)]), 0);
    let beyond = [
        Buffer(MEMORY, PAGE as u32, true),
        Buffer(u64::MAX - 1, 9, true),
        Buffer(PAGES + 2 * PAGE, PAGE as u32, true),
    ];
    assert_eq!(rings.request(2, &beyond), 0);
    assert_eq!(zero(&rings), [1, 2]);
    assert_eq!(rings.driver.read(STATUS) & NEEDS_RESET, 0);
}

#[test]
fn pages_of_a_memfd_are_given_back() {
    let control = BalloonControl::new(0).expect("an eventfd");
    let driver = Driver::in_memory(Balloon::new(control, config()), Backing::Memfd);
    let mut rings = Rings::of(driver);
    rings.start(0, 2);
    fill(&rings);
    request(&mut rings, INFLATE, &[PAGES, PAGES + PAGE]);
    assert_eq!(zero(&rings), [0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any requests: the device works for a driver that follows the rules.
    #[test]
    fn hostile_balloon_drivers(steps in vec((0_u32..5, vec((any::<bool>(), 0_u64..0x12_0000, 0_u32..0x3000), 1..5), vec(any::<u32>(), 0..20)), 1..20)) {
        let (mut rings, _) = balloon(STATS_VQ | REPORTING, 5);
        for (queue, buffers, numbers) in steps {
            // Rings and requests stay: the guest's own memory is its own to give.
            let numbers: Vec<u8> = numbers.iter().flat_map(|number| ((number % 0x120) | 0x80).to_le_bytes()).collect();
            rings.driver.put(REQUEST, &numbers);
            let mut buffers: Vec<_> = buffers.into_iter().map(|(is_writable, at, len)| Buffer(at.max(0x7_0000), len, is_writable)).collect();
            buffers.push(Buffer(REQUEST, numbers.len() as u32, false));
            rings.driver.chain(part(queue, 0), &buffers);
            rings.offer(queue, 0);
            if queue != STATISTICS {
                rings.used(queue);
            }
        }
        prop_assert_eq!(rings.driver.read(STATUS) & NEEDS_RESET, 0);
        rings.start(0, 2);
        fill(&rings);
        request(&mut rings, INFLATE, &[PAGES + PAGE]);
        prop_assert_eq!(zero(&rings), [1]);
    }
}
