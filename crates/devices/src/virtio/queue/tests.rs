use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};

use guest_memory::{Backing, GuestRam, sigbus};
use proptest::collection::vec;
use proptest::prelude::*;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::PoisonObserver;
use crate::virtio::Request;

const MEMORY: u64 = 0x1_0000;
const LAYOUT: QueueLayout = QueueLayout { size: 4, descriptors: 0x1000, available: 0x2002, used: 0x3004 };
const MAX_SIZE: u16 = 256;
/// `used_event` and `avail_event` of [`LAYOUT`].
const USED_EVENT: u64 = 0x2002 + 4 + 2 * 4;
const AVAIL_EVENT: u64 = 0x3004 + 4 + 8 * 4;

struct Ignore;

impl PoisonObserver for Ignore {
    fn touched(&self, _: u64, _: u8) {}
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn ram() -> GuestRam {
    static INSTALLED: Once = Once::new();
    // SAFETY: the function only returns a number.
    INSTALLED.call_once(|| unsafe { sigbus::install(|_| 99) }.expect("a handler"));
    GuestRam::allocate(&[(0, MEMORY)], Backing::Memfd).expect("memory")
}

fn memory(ram: &GuestRam) -> DeviceMemory {
    DeviceMemory::new(ram.clone(), Arc::new(Ignore))
}

fn features(event_index: bool) -> u64 {
    if event_index { 1 << VIRTIO_RING_F_EVENT_IDX } else { 0 }
}

fn queue(ram: &GuestRam, event_index: bool) -> Queue {
    Queue::new(memory(ram), LAYOUT, MAX_SIZE, features(event_index)).expect("a queue")
}

/// The driver's side: makes chains available.
struct Driver<'a> {
    ram: &'a GuestRam,
    available: u16,
}

impl Driver<'_> {
    fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % 4);
        self.ram.store_u16(LAYOUT.available + 4 + 2 * slot, head).expect("memory");
        self.available = self.available.wrapping_add(1);
        self.ram.store_u16(LAYOUT.available + 2, self.available).expect("memory");
    }
}

fn u16_at(ram: &GuestRam, gpa: u64) -> u16 {
    ram.load_u16(gpa).expect("memory")
}

fn u32_at(ram: &GuestRam, gpa: u64) -> u32 {
    u32::from(u16_at(ram, gpa)) | u32::from(u16_at(ram, gpa + 2)) << 16
}

#[test]
fn sizes_alignments_and_ranges_are_checked() {
    let ram = ram();
    let check = |layout| Queue::new(memory(&ram), layout, MAX_SIZE, features(false)).map(drop);
    assert_eq!(check(LAYOUT), Ok(()));
    for size in [0, 3, 5, 512, 1 << 16, 1 << 16 | 4, u32::MAX] {
        assert_eq!(check(QueueLayout { size, ..LAYOUT }), Err(QueueError::Size { size, max: MAX_SIZE }));
    }
    for size in [1, 2, 256] {
        assert_eq!(check(QueueLayout { size, ..LAYOUT }), Ok(()));
    }
    let unaligned = [
        (QueueLayout { descriptors: 0x1008, ..LAYOUT }, 16),
        (QueueLayout { available: 0x2001, ..LAYOUT }, 2),
        (QueueLayout { used: 0x3002, ..LAYOUT }, 4),
    ];
    for (layout, expected) in unaligned {
        match check(layout) {
            Err(QueueError::Unaligned { alignment, .. }) => assert_eq!(alignment, expected),
            other => panic!("{other:?}"),
        }
    }
    // Each part just inside, and just outside; and around the end of all addresses.
    let (descriptors, available, used) = (MEMORY - 64, MEMORY - 14, MEMORY - 40);
    assert_eq!(check(QueueLayout { descriptors, ..LAYOUT }), Ok(()));
    assert_eq!(check(QueueLayout { available, ..LAYOUT }), Ok(()));
    assert_eq!(check(QueueLayout { used, ..LAYOUT }), Ok(()));
    for layout in [
        QueueLayout { descriptors: descriptors + 16, ..LAYOUT },
        QueueLayout { available: available + 2, ..LAYOUT },
        QueueLayout { used: used + 4, ..LAYOUT },
        QueueLayout { descriptors: !15, ..LAYOUT },
        QueueLayout { available: !1, ..LAYOUT },
        QueueLayout { used: !3, ..LAYOUT },
    ] {
        assert!(
            matches!(check(layout), Err(QueueError::Memory(AccessError::NotMemory { .. }))),
            "{layout:x?}"
        );
    }
}

#[test]
fn chains_are_taken_and_returned_in_order_while_the_indices_wrap() {
    let ram = ram();
    let mut queue = queue(&ram, false);
    let mut driver = Driver { ram: &ram, available: 0 };
    for round in 0..70_000_u32 {
        let heads = [(round % 4) as u16, (round / 4 % 4) as u16];
        heads.iter().for_each(|&head| driver.offer(head));
        for (which, head) in (0..).zip(heads) {
            assert_eq!(queue.pop(), Ok(Some(head)));
            let used = u64::from(driver.available.wrapping_sub(2).wrapping_add(which) % 4);
            queue.add_used(head, round + u32::from(which)).expect("memory");
            let element = LAYOUT.used + 4 + 8 * used;
            assert_eq!(u32_at(&ram, element), u32::from(head));
            assert_eq!(u32_at(&ram, element + 4), round + u32::from(which));
        }
        assert_eq!(queue.pop(), Ok(None));
        assert_eq!(u16_at(&ram, LAYOUT.used + 2), driver.available);
    }
}

#[test]
fn a_full_queue_is_valid_and_more_is_an_error() {
    let ram = ram();
    let mut full = queue(&ram, false);
    ram.store_u16(LAYOUT.available + 2, 4).expect("memory");
    for _ in 0..4 {
        assert_eq!(full.pop(), Ok(Some(0)));
    }
    assert_eq!(full.pop(), Ok(None));
    for index in [9, 3, 0xffff] {
        ram.store_u16(LAYOUT.available + 2, index).expect("memory");
        assert_eq!(full.pop(), Err(QueueError::AvailableIndex { index, next: 4, size: 4 }), "{index}");
    }
}

#[test]
fn a_head_past_the_table_is_an_error() {
    let ram = ram();
    for head in [4, 5, 0xffff] {
        let mut queue = queue(&ram, false);
        Driver { ram: &ram, available: 0 }.offer(head);
        assert_eq!(queue.pop(), Err(QueueError::Head { head, size: 4 }));
    }
}

#[test]
fn flags_suppress_interrupts_without_event_index() {
    let ram = ram();
    let mut queue = queue(&ram, false);
    assert_eq!(queue.needs_interrupt(), Ok(false), "nothing was used");
    for (flags, expected) in [(0, true), (NO_INTERRUPT, false), (0xfffe, true), (0xffff, false), (0, true)] {
        ram.store_u16(LAYOUT.available, flags).expect("memory");
        // Has no meaning without VIRTIO_F_EVENT_IDX.
        ram.store_u16(USED_EVENT, 0x55).expect("memory");
        queue.add_used(0, 0).expect("memory");
        assert_eq!(queue.needs_interrupt(), Ok(expected), "{flags:#x}");
    }
}

#[test]
fn used_event_suppresses_interrupts_with_event_index() {
    let ram = ram();
    let mut queue = queue(&ram, true);
    // Has no meaning with VIRTIO_F_EVENT_IDX (2.7.7.2).
    ram.store_u16(LAYOUT.available, NO_INTERRUPT).expect("memory");
    ram.store_u16(USED_EVENT, 2).expect("memory");
    let mut raised = vec![];
    for used in 1..=10_u16 {
        queue.add_used(0, 0).expect("memory");
        if queue.needs_interrupt() == Ok(true) {
            raised.push(used);
        }
        if used == 6 {
            ram.store_u16(USED_EVENT, 8).expect("memory");
        }
    }
    assert_eq!(raised, [3, 9]);
    // Several at once: the event is passed by any of them.
    ram.store_u16(USED_EVENT, 12).expect("memory");
    for _ in 0..5 {
        queue.add_used(0, 0).expect("memory");
    }
    assert_eq!(queue.needs_interrupt(), Ok(true));
    assert_eq!(queue.needs_interrupt(), Ok(false), "once");
}

#[test]
fn events_are_passed_across_the_wrap() {
    for (event, now, before, expected) in [
        (0, 1, 0, true),
        (1, 1, 0, false),
        (0xffff, 0, 0xffff, true),
        (0xfffe, 0, 0xffff, false),
        (0xffff, 3, 0xfffe, true),
        (2, 3, 0xfffe, true),
        (3, 3, 0xfffe, false),
        (0, 0, 0, false),
    ] {
        assert_eq!(is_event_passed(event, now, before), expected, "{event:#x}: {before:#x} to {now:#x}");
    }
}

#[test]
fn notifications_are_suppressed_by_flags_or_by_avail_event() {
    for event_index in [false, true] {
        let ram = ram();
        ram.store_u16(LAYOUT.used, 0xffff).expect("memory");
        let mut queue = queue(&ram, event_index);
        let mut driver = Driver { ram: &ram, available: 0 };
        queue.suppress_notifications().expect("memory");
        assert_eq!(u16_at(&ram, LAYOUT.used), if event_index { 0 } else { NO_NOTIFY });
        driver.offer(2);
        assert_eq!(queue.request_notifications(), Ok(true), "the driver sent none for this one");
        assert_eq!(queue.pop(), Ok(Some(2)));
        assert_eq!(queue.request_notifications(), Ok(false));
        assert_eq!(u16_at(&ram, LAYOUT.used), 0);
        assert_eq!(u16_at(&ram, AVAIL_EVENT), u16::from(event_index));
    }
}

#[test]
fn every_access_to_an_inaccessible_part_is_an_error() {
    const END: u64 = 0x8000;
    for event_index in [false, true] {
        for layout in [
            QueueLayout { descriptors: END, ..LAYOUT },
            QueueLayout { available: END, ..LAYOUT },
            QueueLayout { used: END, ..LAYOUT },
        ] {
            let ram = ram();
            let mut queue =
                Queue::new(memory(&ram), layout, MAX_SIZE, features(event_index)).expect("a queue");
            ram.store_u16(layout.available + 2, 1).expect("memory");
            let region = ram.memory().iter().next().expect("a region");
            region.file_offset().expect("a file").file().set_len(END).expect("shorter");

            let available = layout.available == END;
            let used = layout.used == END;
            assert_eq!(is_inaccessible(queue.pop()), available);
            assert_eq!(is_inaccessible(queue.add_used(0, 0)), used);
            queue.next_used += 1;
            assert_eq!(is_inaccessible(queue.needs_interrupt()), available);
            assert_eq!(is_inaccessible(queue.suppress_notifications()), used && !event_index);
            assert_eq!(is_inaccessible(queue.request_notifications()), used || available);
            let request = Request::read(&queue.memory, &queue, 0).map(drop);
            assert_eq!(is_inaccessible(request.map_err(QueueError::from)), layout.descriptors == END);
            let again = Queue::new(memory(&ram), layout, MAX_SIZE, features(event_index)).map(drop);
            assert!(is_inaccessible(again), "{layout:x?}");
        }
    }
}

fn is_inaccessible<T>(outcome: Result<T, QueueError>) -> bool {
    matches!(outcome, Err(QueueError::Memory(AccessError::Host { .. })))
}

/// A driver and a device on two threads, which sleep whenever the other one has promised to notify them: neither sleeps for
/// ever.
#[test]
fn no_notification_is_lost() {
    const CHAINS: u16 = 20_000;
    for event_index in [false, true] {
        let ram = ram();
        let mut queue = queue(&ram, event_index);
        let (notify, interrupt) = (EventFd::new(0).expect("eventfd"), EventFd::new(0).expect("eventfd"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut returned = 0;
                while returned < CHAINS {
                    notify.read().expect("a notification");
                    let mut more = true;
                    while more {
                        queue.suppress_notifications().expect("memory");
                        while let Some(head) = queue.pop().expect("a valid ring") {
                            queue.add_used(head, 0).expect("memory");
                            returned += 1;
                            if queue.needs_interrupt().expect("memory") {
                                interrupt.write(1).expect("eventfd");
                            }
                        }
                        more = queue.request_notifications().expect("memory");
                    }
                }
            });
            let mut driver = Driver { ram: &ram, available: 0 };
            let mut seen = 0;
            while seen < CHAINS {
                while driver.available < CHAINS && driver.available - seen < 4 {
                    let before = driver.available;
                    driver.offer(before % 4);
                    fence(Ordering::SeqCst);
                    let wanted = if event_index {
                        is_event_passed(u16_at(&ram, AVAIL_EVENT), driver.available, before)
                    } else {
                        u16_at(&ram, LAYOUT.used) & NO_NOTIFY == 0
                    };
                    if wanted {
                        notify.write(1).expect("eventfd");
                    }
                }
                // Sleeps until one more is used.
                if event_index {
                    ram.store_u16(USED_EVENT, seen).expect("memory");
                } else {
                    ram.store_u16(LAYOUT.available, 0).expect("memory");
                }
                fence(Ordering::SeqCst);
                if u16_at(&ram, LAYOUT.used + 2) == seen {
                    interrupt.read().expect("an interrupt");
                }
                if !event_index {
                    ram.store_u16(LAYOUT.available, NO_INTERRUPT).expect("memory");
                }
                seen = u16_at(&ram, LAYOUT.used + 2);
            }
        });
    }
}

/// A driver that writes to its rings while the device uses them.
#[test]
fn rings_that_change_at_any_time_are_errors_or_chains() {
    let ram = ram();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 0_u16;
            while !done.load(Ordering::Relaxed) {
                for offset in 0..8 {
                    value = value.wrapping_mul(31).wrapping_add(7);
                    ram.store_u16(LAYOUT.available + 2 * offset, value % 6).expect("memory");
                }
            }
        });
        for round in 0..2000 {
            let mut queue = queue(&ram, round % 2 == 0);
            while let Ok(Some(head)) = queue.pop() {
                assert!(head < 4);
                queue.add_used(head, 0).expect("memory");
                queue.needs_interrupt().expect("memory");
                if queue.next_used > 1000 {
                    break;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, value: u16 },
    Offer { head: u16 },
    Pop,
    Used { head: u16, written: u32 },
    Interrupt,
    Suppress,
    Request,
}

fn step() -> impl Strategy<Value = Step> {
    let value = || prop_oneof![4 => 0_u16..8, 1 => any::<u16>()];
    prop_oneof![
        2 => (0x1000..0x1040_u64, value()).prop_map(|(at, value)| Step::Write { at: at & !1, value }),
        2 => (0x2002..0x2010_u64, value()).prop_map(|(at, value)| Step::Write { at: at & !1, value }),
        1 => (0x3004..0x302c_u64, value()).prop_map(|(at, value)| Step::Write { at: at & !1, value }),
        4 => (0_u16..5).prop_map(|head| Step::Offer { head }),
        4 => Just(Step::Pop),
        2 => (any::<u16>(), any::<u32>()).prop_map(|(head, written)| Step::Used { head, written }),
        1 => Just(Step::Interrupt),
        1 => Just(Step::Suppress),
        1 => Just(Step::Request),
    ]
}

proptest! {
    /// Nothing panics, only the used ring is written, and chains stay within the table.
    #[test]
    fn hostile_rings(event_index in any::<bool>(), steps in vec(step(), 1..100)) {
        let ram = ram();
        let mut queue = queue(&ram, event_index);
        let mut driver = Driver { ram: &ram, available: 0 };
        let mut expected = vec![0; MEMORY as usize];
        let used = LAYOUT.used as usize..AVAIL_EVENT as usize + 2;
        for step in steps {
            match step {
                Step::Write { at, value } => ram.store_u16(at, value).expect("memory"),
                Step::Offer { head } => driver.offer(head),
                _ => {}
            }
            ram.read(0, &mut expected).expect("memory");
            match step {
                Step::Pop => {
                    let before = queue.next_available;
                    match queue.pop() {
                        Ok(Some(head)) => {
                            prop_assert!(head < 4);
                            prop_assert_eq!(queue.next_available, before.wrapping_add(1));
                            let request = Request::read(&queue.memory, &queue, head).expect("memory");
                            prop_assert!(request.readable.len() + request.writable.len() <= u64::from(u32::MAX));
                        }
                        _ => prop_assert_eq!(queue.next_available, before),
                    }
                }
                Step::Used { head, written } => queue.add_used(head, written).expect("memory"),
                Step::Interrupt => drop(queue.needs_interrupt().expect("memory")),
                Step::Suppress => queue.suppress_notifications().expect("memory"),
                Step::Request => drop(queue.request_notifications().expect("memory")),
                Step::Write { .. } | Step::Offer { .. } => {}
            }
            let mut after = vec![0; MEMORY as usize];
            ram.read(0, &mut after).expect("memory");
            prop_assert!(after[..used.start] == expected[..used.start]);
            prop_assert!(after[used.end..] == expected[used.end..]);
        }
    }
}
