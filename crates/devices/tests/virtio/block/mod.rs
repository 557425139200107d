//! Requests of a disk's driver, and their effect on the file.

mod queue;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use devices::virtio_block::{Block, Disk, DiskOptions};
use tempfile::TempDir;
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

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
        let disk = Disk::open(&path, DiskOptions { read_only, ..WRITABLE }).expect("a disk");
        let mut driver = Driver::new(Block::new(disk, "virtio7"));
        driver.start(if read_only { 0 } else { 1 << 9 });
        Machine { driver, path, _directory: directory }
    }

    fn header(&self, kind: u32, sector: u64) {
        let bytes = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.driver.put(HEADER, &bytes);
        self.driver.put(STATUS_BYTE, &0xee_u8.to_le_bytes());
    }

    /// Makes a request with these data buffers. Returns its status and the number of written bytes.
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
        (self.driver.byte(STATUS_BYTE), written)
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        self.driver.bytes(at, len)
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
    // VIRTIO 1.2, 5.2.4.
    let fields = |writable: bool| {
        let discard = |value: u32| if writable { value.to_le_bytes() } else { [0; 4] };
        [
            &SECTORS.to_le_bytes()[..],
            &[0; 4],
            &254_u32.to_le_bytes(),
            &[0; 4],
            &512_u32.to_le_bytes(),
            // Physical blocks of 4 KiB; nothing is known about the rest.
            &[3, 0, 0, 0, 0, 0, 0, 0],
            // Writeback if the driver flushes, and one queue.
            &[writable.into(), 0, 1, 0],
            &discard(1 << 21),
            &discard(32),
            &discard(8),
            &discard(1 << 21),
            &discard(32),
            &discard(1),
            &[0; 8],
        ]
        .concat()
    };
    let mut config = [0xee; 68];
    for writable in [true, false] {
        let mut machine = Machine::new(!writable);
        machine.driver.transport.mmio_read(MmioAddress(0), CONFIG, &mut config);
        assert_eq!(config[..], fields(writable));
    }
    let mut beyond = [0xee; 8];
    machine.driver.transport.mmio_read(MmioAddress(0), CONFIG + 0xe00, &mut beyond);
    assert_eq!(beyond, [0; 8]);
    let always = 1 << 2 | 1 << 6 | 1 << 10;
    assert_eq!(machine.driver.offered() & 0xff_ffff, always | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14);
    assert_eq!(Machine::new(true).driver.offered() & 0xff_ffff, always | 1 << 5);
}

#[test]
fn reads() {
    let mut machine = Machine::new(true);
    assert_eq!(machine.request(IN, 5, &[Buffer(DATA, 1024, true)]), (OK, 1025));
    assert_eq!(machine.bytes(DATA, 1024), [[5; 512], [6; 512]].concat());
    // The last sector, and no data.
    assert_eq!(machine.request(IN, SECTORS - 1, &[Buffer(DATA, 512, true)]), (OK, 513));
    assert_eq!(machine.request(IN, 3, &[]), (OK, 1));
}

#[test]
fn buffers_of_any_shape() {
    let mut machine = Machine::new(false);
    // The header in three parts, an empty buffer, data split inside a sector, the status in the last data buffer.
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
    machine.driver.put(HEADER + 16, &[0xaa; 512]);
    machine.driver.chain(DESCRIPTORS, &[Buffer(HEADER, 528, false), Buffer(DATA, 1, true)]);
    machine.driver.offer(0);
    assert_eq!(machine.driver.used(), (0, 1));
    assert_eq!(machine.bytes(DATA, 1), [OK]);
    assert_eq!(machine.file()[1024..1536], [0xaa; 512]);
}

#[test]
fn a_request_larger_than_a_chunk() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    let content: Vec<u8> = (0..200 << 10).map(|at: u32| (at / 7) as u8).collect();
    fs::write(&path, &content).expect("a file");
    let driver = Driver::new(Block::new(Disk::open(&path, WRITABLE).expect("a disk"), "virtio0"));
    let mut machine = Machine { driver, path, _directory: directory };
    machine.driver.start(0);
    let len = content.len() as u32;
    assert_eq!(
        machine.request(IN, 0, &[Buffer(DATA, 70_001, true), Buffer(DATA + 70_001, len - 70_001, true)]),
        (OK, len + 1)
    );
    assert!(machine.bytes(DATA, content.len()) == content);
    let reversed: Vec<u8> = content.iter().rev().copied().collect();
    machine.driver.put(DATA, &reversed);
    assert_eq!(machine.request(OUT, 0, &[Buffer(DATA, len, false)]), (OK, 1));
    assert!(machine.file() == reversed);
}

#[test]
fn writes_and_flushes() {
    let mut machine = Machine::new(false);
    machine.driver.put(DATA, &[0x55; 1024]);
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
    // What the section's `serial` becomes: 20 bytes at most.
    let Machine { driver, path, _directory } = machine;
    drop(driver);
    let mut driver = Driver::new(Block::new(Disk::open(&path, READ_ONLY).expect("a disk"), SERIAL));
    driver.start(0);
    let mut machine = Machine { driver, path, _directory };
    assert_eq!(machine.request(GET_ID, 0, &[Buffer(DATA, 20, true)]), (OK, 21));
    assert_eq!(machine.bytes(DATA, 20), SERIAL.as_bytes()[..20]);
}

const SERIAL: &str = "0123456789abcdefghijk";

#[test]
fn invalid_requests_fail_and_the_device_continues() {
    let mut machine = Machine::new(false);
    let sector = [Buffer(DATA, 512, true)];
    let from = [Buffer(DATA, 512, false)];
    let past = [Buffer(DATA, 1024, true)];
    let cases: [(u32, u64, &[Buffer], u8); 14] = [
        (IN, SECTORS, &sector, IOERR),
        (IN, SECTORS - 1, &past, IOERR),
        (IN, u64::MAX, &sector, IOERR),
        (IN, u64::MAX / 512, &sector, IOERR),
        (IN, 1 << 55, &sector, IOERR),
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
    assert_eq!(machine.request(IN, 0, &sector), (OK, 513), "the device continues");
}

#[test]
fn malformed_chains_fail_and_the_device_continues() {
    let mut machine = Machine::new(false);
    let chain = |machine: &mut Machine, buffers: &[Buffer]| {
        machine.header(IN, 0);
        machine.driver.chain(DESCRIPTORS, buffers);
        machine.finish()
    };
    let (header, status) = (Buffer(HEADER, 16, false), Buffer(STATUS_BYTE, 1, true));
    assert_eq!(chain(&mut machine, &[header]), (0xee, 0), "no status byte");
    assert_eq!(chain(&mut machine, &[Buffer(HEADER, 15, false), status]).0, IOERR, "half a header");
    assert_eq!(chain(&mut machine, &[status]).0, IOERR, "no header");
    assert_eq!(chain(&mut machine, &[Buffer(DATA, 512, true), header, status]).0, IOERR, "the wrong order");
    assert_eq!(
        chain(&mut machine, &[header, Buffer(u64::MAX, 9, true)]),
        (0xee, 0),
        "a status past the last address"
    );
    // A loop; and descriptors past the table.
    for next in [0, 16, u16::MAX] {
        machine.header(IN, 0);
        machine.driver.descriptor(DESCRIPTORS, 0, HEADER, 16, NEXT, 1);
        machine.driver.descriptor(DESCRIPTORS, 1, STATUS_BYTE, 1, WRITE | NEXT, next);
        assert_eq!(machine.finish().0, IOERR, "next is {next}");
    }
    // More than 4 GiB.
    let large = Buffer(DATA, u32::MAX, true);
    assert_eq!(chain(&mut machine, &[header, status, large, status]).0, IOERR);
    assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513), "the device continues");
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
    // A table in a table, one with a partial element, one that is not memory: where a status would go is unknown.
    for (start, len) in [(DESCRIPTORS, 16), (table, 47), (MEMORY, 48), (table, 0)] {
        machine.driver.descriptor(DESCRIPTORS, 0, start, len, INDIRECT_TABLE, 0);
        assert_eq!(machine.finish().1, 0, "{len} bytes at {start:#x}");
    }
    // The longest table, and a longer one.
    for (elements, expected) in [(1024, (OK, 513)), (1025, (0xee, 0))] {
        machine.header(IN, 9);
        let mut buffers = vec![Buffer(HEADER, 16, false), Buffer(DATA, 512, true)];
        buffers.extend(vec![Buffer(DATA, 0, true); elements - 3]);
        buffers.push(Buffer(STATUS_BYTE, 1, true));
        machine.driver.chain(table, &buffers);
        machine.driver.descriptor(DESCRIPTORS, 0, table, 16 * elements as u32, INDIRECT_TABLE, 0);
        assert_eq!(machine.finish(), expected, "{elements} elements");
    }
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let mut machine = Machine::new(true);
    assert_eq!(machine.request(OUT, 0, &[Buffer(DATA, 512, false)]), (IOERR, 1));
    assert!(machine.file() == content());
    assert_eq!(machine.request(IN, 1, &[Buffer(DATA, 512, true)]), (OK, 513));
}

/// As any failure of the host to read the file.
#[test]
fn sectors_past_the_end_of_a_truncated_file_fail() {
    let mut machine = Machine::new(false);
    File::options().write(true).open(&machine.path).expect("the disk").set_len(512).expect("shorter");
    assert_eq!(machine.request(IN, 8, &[Buffer(DATA, 512, true)]), (IOERR, 0));
    assert_eq!(machine.request(IN, 0, &[Buffer(DATA, 512, true)]), (OK, 513));
}

#[test]
fn data_of_the_wrong_direction_is_an_error() {
    let mut machine = Machine::new(false);
    let readable = Buffer(DATA, 512, false);
    let writable = Buffer(DATA + 0x1000, 512, true);
    let cases: [(u32, &[Buffer]); 6] = [
        (IN, &[readable]),
        (IN, &[readable, writable]),
        (OUT, &[writable]),
        (OUT, &[readable, writable]),
        (GET_ID, &[readable]),
        (GET_ID, &[readable, writable]),
    ];
    for (kind, data) in cases {
        machine.driver.put(DATA, &[0xaa; 0x1200]);
        assert_eq!(machine.request(kind, 0, data).0, IOERR, "{kind} with {data:x?}");
        assert_eq!(machine.bytes(DATA, 0x1200), [0xaa; 0x1200], "{kind} with {data:x?}");
    }
    assert!(machine.file() == content(), "nothing is written");
    assert_eq!(machine.request(IN, 0, &[writable]), (OK, 513), "the device continues");
}

#[test]
fn the_configuration_is_read_only_but_for_the_cache_mode() {
    let mut machine = Machine::new(false);
    for data in [&[0xff_u8; 1][..], &[0xff; 2], &[0xff; 4], &[0xff; 8]] {
        machine.driver.transport.mmio_write(MmioAddress(0), CONFIG, data);
    }
    let mut capacity = [0; 8];
    machine.driver.transport.mmio_read(MmioAddress(0), CONFIG, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), SECTORS);
    assert_eq!(machine.driver.read(CONFIG_GENERATION), 0, "nothing has changed");
    // `writeback`, by an access of its width. `disk_engines` tests its effect.
    machine.driver.start(1 << 9 | 1 << 11);
    let mut mode = [0xee];
    for written in [0, 1, 0] {
        machine.driver.transport.mmio_write(MmioAddress(0), CONFIG + 32, &[written]);
        machine.driver.transport.mmio_read(MmioAddress(0), CONFIG + 32, &mut mode);
        assert_eq!(mode, [written]);
    }
    machine.driver.transport.mmio_write(MmioAddress(0), CONFIG + 32, &[1, 1]);
    machine.driver.start(0);
    machine.driver.write(STATUS, 0);
    machine.driver.transport.mmio_read(MmioAddress(0), CONFIG + 32, &mut mode);
    assert_eq!(mode, [1], "after a reset");
}
