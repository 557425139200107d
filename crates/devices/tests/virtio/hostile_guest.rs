//! A guest that writes anything to registers, rings, descriptors and headers: nothing panics, a reset always works, and a
//! read-only disk is not changed.
//!
//! `PROPTEST_CASES=100000 cargo test -p ghest-devices --test virtio hostile` makes it a long run.

use std::fs;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use devices::virtio_block::{Block, Disk, DiskOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

use crate::driver::*;

/// The memory that a guest writes to: small, so that writes overlap.
const ARENA: u64 = 0x6000;

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, data: Vec<u8> },
    Read { offset: u64, len: usize },
    Poke { at: u64, data: Vec<u8> },
    Descriptor { index: u16, start: u64, len: u32, flags: u16, next: u16 },
    Header { at: u64, kind: u32, sector: u64 },
    Start { features: u64 },
    Offer { head: u16 },
}

/// Values with a meaning, and any others.
fn register_value() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        0_u32..16,
        Just(DESCRIPTORS as u32),
        Just(AVAILABLE as u32),
        Just(USED as u32),
        any::<u32>(),
    ];
    prop_oneof![8 => word.prop_map(|word| word.to_le_bytes().to_vec()), 1 => vec(any::<u8>(), 0..9)]
}

fn step() -> impl Strategy<Value = Step> {
    let register = || prop_oneof![8 => (0_u64..0x44).prop_map(|register| 4 * register), 1 => 0_u64..0x1000];
    let address = || prop_oneof![4 => 0..ARENA, 1 => MEMORY - 600..MEMORY + 8, 1 => any::<u64>()];
    let len = prop_oneof![
        Just(1_u32),
        Just(16),
        Just(48),
        Just(512),
        Just(513),
        Just(0),
        0_u32..0x3000,
        any::<u32>()
    ];
    let small = prop_oneof![8 => 0_u16..20, 1 => any::<u16>()];
    let flags = prop_oneof![8 => 0_u16..8, 1 => any::<u16>()];
    let kind = prop_oneof![Just(0_u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()];
    let sector = prop_oneof![0_u64..20, any::<u64>()];
    let features = prop_oneof![Just(0), Just(EVENT_INDEX), Just(INDIRECT | EVENT_INDEX | 1 << 5)];
    prop_oneof![
        4 => (register(), register_value()).prop_map(|(offset, data)| Step::Write { offset, data }),
        2 => (register(), 0_usize..9).prop_map(|(offset, len)| Step::Read { offset, len }),
        2 => (0..ARENA - 64, vec(any::<u8>(), 1..64)).prop_map(|(at, data)| Step::Poke { at, data }),
        6 => (0_u16..16, address(), len, flags, small.clone()).prop_map(
            |(index, start, len, flags, next)| Step::Descriptor { index, start, len, flags, next }
        ),
        4 => (0..ARENA - 16, kind, sector).prop_map(|(at, kind, sector)| Step::Header { at, kind, sector }),
        2 => features.prop_map(|features| Step::Start { features }),
        5 => small.prop_map(|head| Step::Offer { head }),
    ]
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// A panic on the device's thread does not fail the test by itself.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("virtio-block")) {
                PANICKED.store(true, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

proptest! {
    #[test]
    fn nothing_panics(read_only in any::<bool>(), steps in vec(step(), 1..64)) {
        watch_for_panics();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        let content = vec![0x5a; 16 * 512];
        fs::write(&path, &content).expect("a file");
        let mut driver = Driver::new(Block::new(Disk::open(&path, DiskOptions { read_only, ..WRITABLE }).expect("a disk"), "virtio0"));
        for step in steps {
            match step {
                Step::Write { offset, data } => driver.transport.mmio_write(MmioAddress(0), offset, &data),
                Step::Read { offset, len } => {
                    driver.transport.mmio_read(MmioAddress(0), offset, &mut vec![0; len]);
                }
                Step::Poke { at, data } => {
                    driver.put(at, &data);
                }
                Step::Descriptor { index, start, len, flags, next } => {
                    driver.descriptor(DESCRIPTORS, index, start, len, flags, next);
                }
                Step::Header { at, kind, sector } => {
                    let bytes = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
                    driver.put(at, &bytes);
                }
                // VIRTIO_BLK_F_RO, or VIRTIO_BLK_F_FLUSH on a writable disk.
                Step::Start { features } if read_only => driver.start(features),
                Step::Start { features } => driver.start(features & !(1 << 5) | (features & 1 << 5) << 4),
                Step::Offer { head } => driver.offer(head),
            }
        }
        driver.write(STATUS, 0);
        prop_assert_eq!(driver.read(STATUS), 0);
        // The device works for a driver that follows the rules.
        driver.start(0);
        driver.put(BUFFERS, &[0; 16]);
        let buffers = [Buffer(BUFFERS, 16, false), Buffer(BUFFERS + 0x1000, 513, true)];
        driver.chain(DESCRIPTORS, &buffers);
        driver.offer(0);
        prop_assert_eq!(driver.used(), (0, 513));
        let byte = driver.byte(BUFFERS + 0x1000);
        let after = fs::read(&path).expect("the disk");
        prop_assert_eq!(byte, after[0]);
        drop(driver);
        prop_assert!(!PANICKED.load(Ordering::SeqCst));
        prop_assert_eq!(after.len(), content.len());
        prop_assert!(!read_only || after == content);
    }
}
