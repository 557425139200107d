//! Rings that become inaccessible at any moment: the device needs a reset or a request fails, the process continues, and after
//! the driver's reset the device works again.
//!
//! A truncated memfd stands for poisoned memory, as in `poison_observer`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devices::virtio::{QueueHandler, Request, StopFlag, per_request};
use devices::virtio_block::{Block, Disk};
use guest_memory::{AccessError, Backing, GuestRam};

use crate::driver::*;
use crate::poison_observer::{END, install_handler, machine, request, truncate};
use crate::served::Served;

const ROUNDS: usize = 200;
const SIZE: u16 = 16;
const IOERR: u8 = 1;

/// What a round places in the memory that becomes inaccessible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Descriptors,
    Available,
    Used,
    IndirectTables,
    Data,
}

const TARGETS: [Target; 5] =
    [Target::Descriptors, Target::Available, Target::Used, Target::IndirectTables, Target::Data];

/// A driver that keeps a disk's queue full. Each of its accesses to memory may fail.
struct Load {
    parts: [u64; 3],
    tables: u64,
    data: u64,
    event_index: bool,
    available: u16,
    used: u16,
}

const REQUESTS: u16 = 4;
const HEADERS: u64 = BUFFERS;
const STATUS_BYTES: u64 = BUFFERS + 0x1000;

impl Load {
    fn new(target: Target, event_index: bool) -> Self {
        let place = |of, low| if target == of { END } else { low };
        Load {
            parts: [
                place(Target::Descriptors, DESCRIPTORS),
                place(Target::Available, AVAILABLE),
                place(Target::Used, USED),
            ],
            tables: place(Target::IndirectTables, BUFFERS + 0x2000),
            data: place(Target::Data, BUFFERS + 0x4000),
            event_index,
            available: 0,
            used: 0,
        }
    }

    fn start(&self, driver: &mut Driver) {
        driver.write(STATUS, 0);
        assert!(driver.agree(VERSION_1 | INDIRECT | if self.event_index { EVENT_INDEX } else { 0 }));
        self.parts.iter().for_each(|&part| driver.put(part, &[0; 0x400]));
        for request in 0..REQUESTS {
            let [header, status, data, table] = self.places(request);
            driver.put(header, &[0; 16]);
            driver
                .chain(table, &[Buffer(header, 16, false), Buffer(data, 512, true), Buffer(status, 1, true)]);
            driver.descriptor(self.parts[0], request, table, 48, INDIRECT_TABLE, 0);
        }
        driver.set_up_queue(SIZE.into(), self.parts);
        driver.go();
    }

    /// GPAs of a request's header, status, data and indirect table.
    fn places(&self, request: u16) -> [u64; 4] {
        let request = u64::from(request);
        [
            HEADERS + 16 * request,
            STATUS_BYTES + request,
            self.data + 512 * request,
            self.tables + 48 * request,
        ]
    }

    /// Makes one more request available.
    fn offer(&mut self, driver: &mut Driver) -> Result<(), AccessError> {
        let (available, head) = (self.parts[1], self.available % REQUESTS);
        driver.put(self.places(head)[1], &[0xee]);
        driver.ram.store_u16(available + 4 + 2 * u64::from(self.available % SIZE), head)?;
        self.available = self.available.wrapping_add(1);
        driver.ram.store_u16(available + 2, self.available)
    }

    /// Makes requests available until the queue has [`REQUESTS`] of them, and takes back those that were used. Returns whether
    /// one of these failed.
    fn step(&mut self, driver: &mut Driver) -> Result<bool, AccessError> {
        let used = self.parts[2];
        let mut failed = false;
        let index = driver.ram.load_u16(used + 2)?;
        while self.used != index {
            let mut id = [0; 4];
            driver.ram.read(used + 4 + 8 * u64::from(self.used % SIZE), &mut id)?;
            let [_, status, ..] = self.places(u32::from_le_bytes(id) as u16 % REQUESTS);
            failed |= driver.byte(status) == IOERR;
            self.used = self.used.wrapping_add(1);
        }
        while self.available.wrapping_sub(self.used) < REQUESTS {
            self.offer(driver)?;
        }
        driver.write(QUEUE_NOTIFY, 0);
        Ok(failed)
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).expect("random bytes");
    u32::from_ne_bytes(bytes)
}

#[test]
fn rings_that_become_inaccessible_under_load_never_end_the_process() {
    let (mut driver, _directory) = machine();
    let (mut resets, mut failures, mut loads) = (0, 0, 0);
    for round in 0..ROUNDS {
        let target = TARGETS[round % TARGETS.len()];
        let mut load = Load::new(target, random() & 1 != 0);
        load.start(&mut driver);
        let delay = Duration::from_micros(u64::from(random() % 3000));
        let (ram, truncated) = (driver.ram.clone(), AtomicBool::new(false));
        let needs_reset = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(delay);
                truncate(&ram, END);
                truncated.store(true, Ordering::SeqCst);
            });
            let until = Instant::now() + Duration::from_secs(20);
            let mut is_last_offered = false;
            loop {
                let is_truncated = truncated.load(Ordering::SeqCst);
                if is_truncated && !is_last_offered {
                    // The device may have been idle: one more request makes it access every part.
                    let _ = load.offer(&mut driver);
                    driver.write(QUEUE_NOTIFY, 0);
                    is_last_offered = true;
                }
                let failed = load.step(&mut driver).unwrap_or(false);
                if driver.read(STATUS) & NEEDS_RESET != 0 {
                    return true;
                }
                if is_truncated && failed {
                    return false;
                }
                assert!(Instant::now() < until, "{target:?}: neither a reset is needed nor a request failed");
            }
        });
        assert_eq!(needs_reset, target != Target::Data, "{target:?}");
        assert!(
            !needs_reset || driver.read(INTERRUPT_STATUS) & 2 != 0,
            "a configuration change notification"
        );
        resets += usize::from(needs_reset);
        failures += usize::from(!needs_reset);
        loads += usize::from(load.used);
        truncate(&driver.ram, MEMORY);
        driver.start(0);
        assert_eq!(request(&mut driver, 0, HEADERS, BUFFERS + 0x800), (0, 513), "{target:?}: it works again");
    }
    assert_eq!((resets, failures), (ROUNDS * 4 / 5, ROUNDS / 5));
    assert_eq!(driver.reported.resets_needed.load(Ordering::SeqCst), resets, "reported once each");
    assert!(loads > ROUNDS, "{loads} requests before the rings became inaccessible");
}

/// Truncates memory: between the access that takes a request and the one that returns it.
struct TruncatingHandler(GuestRam);

impl QueueHandler for TruncatingHandler {
    fn handle(&mut self, _: Request<'_>, _: &StopFlag) -> u32 {
        truncate(&self.0, END);
        0
    }
}

#[test]
fn a_ring_that_becomes_inaccessible_during_a_request_needs_a_reset() {
    install_handler();
    for (inaccessible, features) in [(1, 0), (1, EVENT_INDEX), (2, 0), (2, EVENT_INDEX)] {
        let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Memfd).expect("memory");
        let memory = ram.clone();
        let device = Served::new(move || vec![per_request(0, TruncatingHandler(memory.clone()))]);
        let mut driver = Driver::with_memory(device, ram);
        assert!(driver.agree(VERSION_1 | features));
        let mut parts = [DESCRIPTORS, AVAILABLE, USED];
        parts[inaccessible] = END;
        driver.set_up_queue(SIZE.into(), parts);
        driver.go();
        driver.chain(DESCRIPTORS, &[Buffer(BUFFERS, 1, true)]);
        driver.put(parts[1], &[0, 0, 1, 0, 0, 0]);
        driver.write(QUEUE_NOTIFY, 0);
        driver.await_status(NEEDS_RESET);
        assert_eq!(driver.read(INTERRUPT_STATUS), 2);
        driver.write(STATUS, 0);
        assert_eq!(driver.read(STATUS), 0);
    }
}

/// Memory that is inaccessible when the queue is made ready.
#[test]
fn a_ring_that_is_inaccessible_at_driver_ok_needs_a_reset() {
    install_handler();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    std::fs::write(&path, [0; 512]).expect("a file");
    for inaccessible in 0..3 {
        let disk = Disk::open(&path, READ_ONLY).expect("a disk");
        let mut driver = Driver::in_memory(Block::new(disk, "virtio0"), Backing::Memfd);
        assert!(driver.agree(VERSION_1));
        let mut parts = [DESCRIPTORS, AVAILABLE, USED];
        parts[inaccessible] = END;
        driver.set_up_queue(SIZE.into(), parts);
        truncate(&driver.ram, END);
        driver.go();
        assert_ne!(driver.read(STATUS) & NEEDS_RESET, 0);
        truncate(&driver.ram, MEMORY);
        driver.start(0);
        assert_eq!(request(&mut driver, 0, HEADERS, BUFFERS + 0x800), (0, 513));
    }
}
