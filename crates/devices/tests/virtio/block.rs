//! Requests of a disk's driver, and what becomes of the file.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use devices::virtio_block::{Block, Disk};
use tempfile::TempDir;
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;
use vm_memory::{Bytes, GuestAddress};

use crate::driver::*;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const SECTORS: u64 = 64;
const HEADER: u64 = BUFFERS;
const STATUS_BYTE: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;

/// A disk whose every sector is filled with its number.
struct Machine {
    driver: Driver,
    path: PathBuf,
    _directory: TempDir,
}

impl Machine {
    fn new(read_only: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        fs::write(&path, content()).expect("a file");
        let disk = Disk::open(&path, read_only).expect("a disk");
        let mut driver = Driver::new(Block::new(disk, "virtio7"));
        driver.start(if read_only { 0 } else { 1 << 9 });
        Machine { driver, path, _directory: directory }
    }

    fn header(&self, kind: u32, sector: u64) {
        let bytes = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.driver.memory.write_slice(&bytes, GuestAddress(HEADER)).expect("memory");
        self.driver.memory.write_obj(0xee_u8, GuestAddress(STATUS_BYTE)).expect("memory");
    }

    /// A request with these buffers of data: its status, and the bytes that the device says it wrote.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        self.header(kind, sector);
        let all = [&[Buffer(HEADER, 16, false)], data, &[Buffer(STATUS_BYTE, 1, true)]].concat();
        self.driver.chain(DESCRIPTORS, &all);
        self.finish()
    }

    fn finish(&mut self) -> (u8, u32) {
        self.driver.offer(0);
        let (head, written) = self.driver.used();
        assert_eq!(head, 0);
        (self.driver.memory.read_obj(GuestAddress(STATUS_BYTE)).expect("memory"), written)
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.driver.memory.read_slice(&mut bytes, GuestAddress(at)).expect("memory");
        bytes
    }

    fn file(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the disk")
    }
}

fn content() -> Vec<u8> {
    (0..SECTORS).flat_map(|sector| [sector as u8; 512]).collect()
}

#[test]
fn configuration() {
    let mut machine = Machine::new(false);
    let mut config = [0xee; 20];
    machine.driver.transport.mmio_read(MmioAddress(0), CONFIG, &mut config);
    let expected = [&SECTORS.to_le_bytes()[..], &[0; 4], &254_u32.to_le_bytes(), &[0; 4]].concat();
    assert_eq!(config[..], expected);
    let mut beyond = [0xee; 8];
    machine.driver.transport.mmio_read(MmioAddress(0), CONFIG + 0xe00, &mut beyond);
    assert_eq!(beyond, [0; 8]);
    assert_eq!(machine.driver.offered() & 0xff_ffff, 1 << 2 | 1 << 9);
    assert_eq!(Machine::new(true).driver.offered() & 0xff_ffff, 1 << 2 | 1 << 5);
}

#[test]
fn reads() {
    let mut machine = Machine::new(true);
    assert_eq!(machine.request(IN, 5, &[Buffer(DATA, 1024, true)]), (OK, 1025));
    assert_eq!(machine.bytes(DATA, 1024), [[5; 512], [6; 512]].concat());
    // The last sector, and more than is copied at a time.
    assert_eq!(machine.request(IN, SECTORS - 1, &[Buffer(DATA, 512, true)]), (OK, 513));
    assert_eq!(machine.request(IN, 3, &[]), (OK, 1));
}

#[test]
fn buffers_of_any_shape() {
    let mut machine = Machine::new(false);
    // The header in three parts, an empty buffer, data that stops in the middle of sectors, the status at its end.
    machine.header(IN, 1);
    let parts = [
        Buffer(HEADER, 7, false),
        Buffer(HEADER + 7, 0, false),
        Buffer(HEADER + 7, 9, false),
        Buffer(DATA, 100, true),
        Buffer(DATA + 0x800, 0, true),
        Buffer(DATA + 100, 413, true),
    ];
    machine.driver.chain(DESCRIPTORS, &parts);
    machine.driver.offer(0);
    assert_eq!(machine.driver.used(), (0, 513));
    assert_eq!(machine.bytes(DATA, 513), [&[1; 512][..], &[OK]].concat());
    // Header and data of a write in one buffer.
    machine.header(OUT, 2);
    machine.driver.memory.write_slice(&[0xaa; 512], GuestAddress(HEADER + 16)).expect("memory");
    machine.driver.chain(DESCRIPTORS, &[Buffer(HEADER, 528, false), Buffer(DATA, 1, true)]);
    machine.driver.offer(0);
    assert_eq!(machine.driver.used(), (0, 1));
    assert_eq!(machine.bytes(DATA, 1), [OK]);
    assert_eq!(machine.file()[1024..1536], [0xaa; 512]);
}

#[test]
fn a_request_larger_than_a_piece() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    let content: Vec<u8> = (0..200 << 10).map(|at: u32| (at / 7) as u8).collect();
    fs::write(&path, &content).expect("a file");
    let driver = Driver::new(Block::new(Disk::open(&path, false).expect("a disk"), "virtio0"));
    let mut machine = Machine { driver, path, _directory: directory };
    machine.driver.start(0);
    let len = content.len() as u32;
    assert_eq!(
        machine.request(IN, 0, &[Buffer(DATA, 70_001, true), Buffer(DATA + 70_001, len - 70_001, true)]),
        (OK, len + 1)
    );
    assert!(machine.bytes(DATA, content.len()) == content);
    let reversed: Vec<u8> = content.iter().rev().copied().collect();
    machine.driver.memory.write_slice(&reversed, GuestAddress(DATA)).expect("memory");
    assert_eq!(machine.request(OUT, 0, &[Buffer(DATA, len, false)]), (OK, 1));
    assert!(machine.file() == reversed);
}

#[test]
fn writes_and_flushes() {
    let mut machine = Machine::new(false);
    machine.driver.memory.write_slice(&[0x55; 1024], GuestAddress(DATA)).expect("memory");
    assert_eq!(machine.request(OUT, 10, &[Buffer(DATA, 1024, false)]), (OK, 1));
    assert_eq!(machine.request(FLUSH, 0, &[]), (OK, 1));
    let mut expected = content();
    expected[10 * 512..12 * 512].fill(0x55);
    assert!(machine.file() == expected);
}

#[test]
fn identification() {
    let mut machine = Machine::new(false);
    assert_eq!(machine.request(GET_ID, 0, &[Buffer(DATA, 20, true)]), (OK, 21));
    assert_eq!(machine.bytes(DATA, 20), *b"virtio7\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn requests_that_can_not_be() {
    let mut machine = Machine::new(false);
    let sector = [Buffer(DATA, 512, true)];
    let from = [Buffer(DATA, 512, false)];
    let past = [Buffer(DATA, 1024, true)];
    let cases: [(u32, u64, &[Buffer], u8); 13] = [
        (IN, SECTORS, &sector, IOERR),
        (IN, SECTORS - 1, &past, IOERR),
        (IN, u64::MAX, &sector, IOERR),
        (IN, u64::MAX / 512, &sector, IOERR),
        (OUT, SECTORS, &from, IOERR),
        (IN, 0, &[Buffer(DATA, 511, true)], IOERR),
        (OUT, 0, &[Buffer(DATA, 513, false)], IOERR),
        (IN, 0, &[Buffer(MEMORY - 256, 512, true)], IOERR),
        (OUT, 0, &[Buffer(MEMORY, 512, false)], IOERR),
        (IN, 0, &[Buffer(u64::MAX - 100, 512, true)], IOERR),
        (GET_ID, 0, &[Buffer(DATA, 19, true)], IOERR),
        (2, 0, &sector, UNSUPP),
        (u32::MAX, 0, &[], UNSUPP),
    ];
    for (kind, at, data, expected) in cases {
        let (status, written) = machine.request(kind, at, data);
        assert_eq!(status, expected, "{kind} at {at} with {data:x?}");
        assert!(written <= 20, "{kind} at {at} with {data:x?}");
    }
    assert!(machine.file() == content());
    assert_eq!(machine.request(IN, 0, &sector), (OK, 513), "the device goes on");
}

#[test]
fn chains_that_make_no_request() {
    let mut machine = Machine::new(false);
    let chain = |machine: &mut Machine, buffers: &[Buffer]| {
        machine.header(IN, 0);
        machine.driver.chain(DESCRIPTORS, buffers);
        machine.finish()
    };
    let (header, status) = (Buffer(HEADER, 16, false), Buffer(STATUS_BYTE, 1, true));
    assert_eq!(chain(&mut machine, &[header]), (0xee, 0), "no room for a status");
    assert_eq!(chain(&mut machine, &[Buffer(HEADER, 15, false), status]).0, IOERR, "half a header");
    assert_eq!(chain(&mut machine, &[status]).0, IOERR, "no header");
    assert_eq!(chain(&mut machine, &[Buffer(DATA, 512, true), header, status]).0, IOERR, "in disorder");
    assert_eq!(
        chain(&mut machine, &[header, Buffer(u64::MAX, 9, true)]),
        (0xee, 0),
        "a status beyond all addresses"
    );
    // Round in circles; and to a descriptor that the table has not.
    for next in [0, 16, u16::MAX] {
        machine.header(IN, 0);
        machine.driver.descriptor(DESCRIPTORS, 0, HEADER, 16, NEXT, 1);
        machine.driver.descriptor(DESCRIPTORS, 1, STATUS_BYTE, 1, WRITE | NEXT, next);
        assert_eq!(machine.finish().0, IOERR, "next is {next}");
    }
    // More than 4 GiB.
    let large = Buffer(DATA, u32::MAX, true);
    assert_eq!(chain(&mut machine, &[header, status, large, status]).0, IOERR);
    assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513), "the device goes on");
}

#[test]
fn indirect_tables() {
    let mut machine = Machine::new(false);
    let table = BUFFERS + 0x8000;
    machine.header(IN, 9);
    let buffers = [Buffer(HEADER, 16, false), Buffer(DATA, 512, true), Buffer(STATUS_BYTE, 1, true)];
    machine.driver.chain(table, &buffers);
    machine.driver.descriptor(DESCRIPTORS, 0, table, 48, INDIRECT_TABLE, 0);
    assert_eq!(machine.finish(), (OK, 513));
    assert_eq!(machine.bytes(DATA, 512), [9; 512]);
    // A table in a table, one of no whole elements, one that is not memory: nothing says where a status would go.
    for (start, len) in [(DESCRIPTORS, 16), (table, 47), (MEMORY, 48), (table, 0)] {
        machine.driver.descriptor(DESCRIPTORS, 0, start, len, INDIRECT_TABLE, 0);
        assert_eq!(machine.finish().1, 0, "{len} bytes at {start:#x}");
    }
}

#[test]
fn a_disk_that_may_only_be_read() {
    let mut machine = Machine::new(true);
    assert_eq!(machine.request(OUT, 0, &[Buffer(DATA, 512, false)]), (IOERR, 1));
    assert!(machine.file() == content());
    assert_eq!(machine.request(IN, 1, &[Buffer(DATA, 512, true)]), (OK, 513));
}

/// Also what a file does that the host cannot read.
#[test]
fn a_disk_that_was_cut_short() {
    let mut machine = Machine::new(false);
    File::options().write(true).open(&machine.path).expect("the disk").set_len(512).expect("shorter");
    assert_eq!(machine.request(IN, 8, &[Buffer(DATA, 512, true)]), (IOERR, 0));
    assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513));
}

#[test]
fn rings_that_make_no_sense() {
    let mut machine = Machine::new(false);
    // More chains than the ring has elements; a chain that begins beyond the table.
    for (index, head) in [(17_u16, 0_u16), (1, 16)] {
        machine.driver.start(0);
        machine.driver.memory.write_obj(head, GuestAddress(AVAILABLE + 4)).expect("memory");
        machine.driver.memory.write_obj(index, GuestAddress(AVAILABLE + 2)).expect("memory");
        machine.driver.write(QUEUE_NOTIFY, 0);
        machine.driver.await_status(NEEDS_RESET);
        assert_eq!(machine.driver.read(INTERRUPT_STATUS), 2);
        assert_eq!(machine.driver.used_index(), 0);
    }
    machine.driver.start(0);
    assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513), "a reset helps");
}

#[test]
fn the_ring_goes_round() {
    let mut machine = Machine::new(false);
    for round in 0..1000 {
        let sector = round % SECTORS;
        assert_eq!(machine.request(IN, sector, &[Buffer(DATA, 512, true)]), (OK, 513));
        assert_eq!(machine.bytes(DATA, 512), [sector as u8; 512]);
    }
    assert!(machine.driver.edges.read().expect("raised") >= 999, "an interrupt for each");
}

#[test]
fn drivers_choose_when_they_are_interrupted() {
    let mut machine = Machine::new(false);
    machine.driver.start(EVENT_INDEX);
    // used_event: after the third (VIRTIO 1.2, 2.7.7).
    machine.driver.memory.write_obj(2_u16, GuestAddress(AVAILABLE + 4 + 2 * 16)).expect("memory");
    let mut edges = vec![];
    for _ in 0..5 {
        machine.request(IN, 0, &[Buffer(DATA, 512, true)]);
        // The next request is served after the interrupt for this one was raised, or not.
        machine.request(IN, 0, &[Buffer(DATA, 512, true)]);
        edges.push(machine.driver.edges.read().is_ok());
    }
    assert_eq!(edges.iter().filter(|raised| **raised).count(), 1, "{edges:?}");
}

#[test]
fn a_reset_does_not_wait_for_a_long_request() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    File::create(&path).and_then(|file| file.set_len(8 << 30)).expect("a sparse file");
    let disk = Disk::open(&path, true).expect("a disk");
    let mut machine =
        Machine { driver: Driver::new(Block::new(disk, "virtio0")), path, _directory: directory };
    machine.driver.start(0);
    // All of memory behind the table again and again: 3 GiB.
    let table = BUFFERS + 0x1000;
    let (start, len) = (0x4_0000, 0xc_0000);
    let mut buffers = vec![Buffer(HEADER, 16, false)];
    buffers.extend(vec![Buffer(start, len, true); 4096]);
    buffers.push(Buffer(STATUS_BYTE, 1, true));
    machine.header(IN, 0);
    machine.driver.chain(table, &buffers);
    machine.driver.descriptor(DESCRIPTORS, 0, table, 16 * buffers.len() as u32, INDIRECT_TABLE, 0);
    machine.driver.memory.write_obj(0xee_u8, GuestAddress(start)).expect("memory");
    machine.driver.offer(0);
    while machine.bytes(start, 1) == [0xee] {
        std::thread::sleep(Duration::from_micros(50));
    }
    let begun = Instant::now();
    machine.driver.write(STATUS, 0);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(machine.driver.used_index(), 0, "the request was not finished");
    machine.driver.memory.write_slice(&[0xee; 64], GuestAddress(start)).expect("memory");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(machine.bytes(start, 64), [0xee; 64], "memory is the driver's again");
}
