//! Several queues, and queues that wait for a rate limit.

use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use devices::rate_limit::RateLimit;
use devices::virtio_block::{Block, Disk, EngineKind};
use machine_profile::device_kind::RateLimits;
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

use crate::driver::*;
use crate::machine::*;

/// The parts of each queue.
pub(crate) fn parts(queue: u64) -> [u64; 3] {
    [0x2_0000, 0x2_1000, 0x2_2000].map(|part| part + 0x4000 * queue)
}

pub(crate) fn several_queues(engine: EngineKind) {
    const QUEUES: u64 = 4;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    let content: Vec<u8> = (0..QUEUES as u8).flat_map(|sector| [sector + 1; 512]).collect();
    fs::write(&path, &content).expect("a file");
    let disk = Disk::open(&path, WRITABLE).expect("a disk");
    let mut driver = Driver::new(Block::new(disk, "virtio0").queues(QUEUES as u16).engine(engine));
    assert_ne!(driver.offered() & 1 << 12, 0, "VIRTIO_BLK_F_MQ");
    let mut count = [0; 2];
    driver.transport.mmio_read(MmioAddress(0), CONFIG + 34, &mut count);
    assert_eq!(u64::from(u16::from_le_bytes(count)), QUEUES);
    assert!(driver.agree(VERSION_1 | F_FLUSH | 1 << 12));
    for queue in 0..QUEUES {
        driver.write(QUEUE_SEL, queue as u32);
        for (register, part) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts(queue))
        {
            driver.write_wide(register, part);
        }
        driver.write(QUEUE_READY, 1);
    }
    driver.write(QUEUE_SEL, QUEUES as u32);
    assert_eq!(driver.read(QUEUE_SIZE_MAX), 0, "no more queues");
    driver.go();
    // The queues are served at the same time, in any order, and each by itself: the first of them is stopped.
    driver.write(QUEUE_SEL, 0);
    driver.write(QUEUE_READY, 0);
    for queue in (0..QUEUES).rev() {
        let (header, data) = (BUFFERS + 0x1000 * queue, BUFFERS + 0x1000 * queue + 0x100);
        driver.put(header, &[&IN.to_le_bytes()[..], &[0; 4], &queue.to_le_bytes()].concat());
        let [descriptors, available, _] = parts(queue);
        driver.chain(descriptors, &[Buffer(header, 16, false), Buffer(data, 513, true)]);
        driver.put(available, &[0, 0, 1, 0, 0, 0]);
        driver.write(QUEUE_NOTIFY, queue as u32);
    }
    let until = Instant::now() + Duration::from_secs(20);
    for queue in 1..QUEUES {
        while driver.bytes(parts(queue)[2] + 2, 2) != [1, 0] {
            assert!(Instant::now() < until, "queue {queue} is not served");
            sleep(Duration::from_micros(50));
        }
        let data = BUFFERS + 0x1000 * queue + 0x100;
        assert_eq!(driver.bytes(data, 513), [&[queue as u8 + 1; 512][..], &[OK]].concat());
    }
    assert_eq!(driver.bytes(parts(0)[2] + 2, 2), [0, 0], "a stopped queue was served");
}

pub(crate) fn requests_wait_for_the_rate_limit(engine: EngineKind) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("disk"), vec![0; 1 << 20]).expect("a file");
    let limits = RateLimits { bandwidth: None, operations: Some(1000) };
    let limit = Some(Arc::new(RateLimit::new(limits)));
    let mut machine = Machine::open(directory, WRITABLE, |block| block.engine(engine).rate_limit(limit));
    let start = Instant::now();
    for _ in 0..10 {
        (0..SLOTS).for_each(|slot| machine.offer(slot, IN, u64::from(slot), 512));
        (0..SLOTS).for_each(|_| assert_eq!(machine.used().1, OK));
    }
    // A burst of 100, and one a millisecond from then on. It may take longer, and never less.
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    // A request that waits is abandoned as any other.
    (0..SLOTS).for_each(|slot| machine.offer(slot, IN, u64::from(slot), 512));
    machine.driver.write(STATUS, 0);
    machine.driver.start(F_FLUSH | INDIRECT);
    assert_eq!(machine.request(IN, 0, 512), OK);
}
