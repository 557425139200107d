//! A guest that writes anything to the rings, descriptors and packets of a network interface: nothing panics, a reset always works, and
//! what arrives at the other end are frames.
//!
//! `PROPTEST_CASES=100000 cargo test -p ghest-devices --test virtio hostile` makes it a long run.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_memory::Backing;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::*;
use crate::net::{Machine, TRANSMIT, frame};
use crate::rings::SIZE;

#[derive(Clone, Debug)]
enum Step {
    Descriptor { queue: usize, index: u16, start: u64, len: u32, flags: u16, next: u16 },
    Offer { queue: usize, head: u16 },
    Poke { at: u64, data: Vec<u8> },
    Ready { queue: u32, ready: u32 },
    Inject { len: usize },
    Start { features: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = || 0_usize..2;
    let address =
        prop_oneof![4 => BUFFERS..BUFFERS + 0x2000, 1 => MEMORY - 600..MEMORY + 8, 1 => any::<u64>()];
    let len = prop_oneof![4 => 0_u32..2000, 2 => 60_000_u32..70_000, 1 => any::<u32>()];
    let small = || prop_oneof![8 => 0..SIZE, 1 => any::<u16>()];
    let flags = prop_oneof![8 => 0_u16..8, 1 => any::<u16>()];
    let features = prop_oneof![Just(0), Just(1 << 15), Just(EVENT_INDEX | INDIRECT | 1 << 15)];
    prop_oneof![
        6 => (queue(), 0..SIZE, address, len, flags, small()).prop_map(
            |(queue, index, start, len, flags, next)| Step::Descriptor { queue, index, start, len, flags, next }
        ),
        6 => (queue(), small()).prop_map(|(queue, head)| Step::Offer { queue, head }),
        1 => (DESCRIPTORS..DESCRIPTORS + 0x2000, vec(any::<u8>(), 1..16)).prop_map(|(at, data)| Step::Poke { at, data }),
        2 => (BUFFERS..BUFFERS + 0x1000, vec(0_u8..3, 1..16)).prop_map(|(at, data)| Step::Poke { at, data }),
        1 => (0_u32..3, 0_u32..2).prop_map(|(queue, ready)| Step::Ready { queue, ready }),
        // All of them together have space in the socket.
        3 => (14_usize..1500).prop_map(|len| Step::Inject { len }),
        1 => features.prop_map(|features| Step::Start { features }),
    ]
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// A panic on the device's thread does not fail the test by itself.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some("virtio-net") {
                PANICKED.store(true, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

proptest! {
    #[test]
    fn nothing_panics(steps in vec(step(), 1..64)) {
        watch_for_panics();
        let mut machine = Machine::with(None, 1 << 15, Backing::Anonymous);
        for step in steps {
            match step {
                Step::Descriptor { queue, index, start, len, flags, next } => {
                    machine.driver.descriptor(machine.rings[queue].parts[0], index, start, len, flags, next);
                }
                Step::Offer { queue, head } => machine.rings[queue].offer_head(&mut machine.driver, head),
                Step::Poke { at, data } => machine.driver.put(at, &data),
                Step::Ready { queue, ready } => {
                    machine.driver.write(QUEUE_SEL, queue);
                    machine.driver.write(QUEUE_READY, ready);
                }
                Step::Inject { len } => machine.inject(&frame(len, 1)),
                Step::Start { features } => machine.start(features),
            }
        }
        // The device works for a driver that follows the rules, and no frame was torn.
        machine.start(0);
        let last = frame(77, 0x5a);
        machine.offer_packet(&[], &last);
        while machine.arrived() != last {}
        prop_assert_eq!(machine.used(TRANSMIT), (0, 0));
        drop(machine);
        prop_assert!(!PANICKED.load(Ordering::SeqCst));
    }
}
