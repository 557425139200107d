//! A disk whose driver's memory becomes inaccessible. A truncated memfd stands for poisoned memory: the signal is the same but
//! for its code.

use std::fs;
use std::sync::Once;

use devices::virtio_block::{Block, Disk};
use guest_memory::{Backing, GuestRam, sigbus};
use tempfile::TempDir;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::driver::*;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const IOERR: u8 = 1;

pub(crate) const HEADER: u64 = BUFFERS;
const STATUS_BYTE: u64 = BUFFERS + 0x100;
/// End of the memory that is left when memory is truncated.
pub(crate) const END: u64 = 0x8_0000;

pub(crate) fn machine() -> (Driver, TempDir) {
    install_handler();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    fs::write(&path, [7; 64 * 512]).expect("a file");
    let disk = Disk::open(&path, WRITABLE).expect("a disk");
    let mut driver = Driver::in_memory(Block::new(disk, "virtio0"), Backing::Memfd);
    driver.start(0);
    (driver, directory)
}

#[expect(unsafe_code, reason = "a signal handler is installed")]
pub(crate) fn install_handler() {
    static INSTALLED: Once = Once::new();
    // SAFETY: the function only returns a number.
    INSTALLED.call_once(|| unsafe { sigbus::install(|_| 99) }.expect("a handler"));
}

/// Changes the length of the memory's file: pages past it raise SIGBUS.
pub(crate) fn truncate(ram: &GuestRam, len: u64) {
    ram.memory().iter().for_each(|region| {
        region.file_offset().expect("a file").file().set_len(len).expect("a length");
    });
}

/// Makes a request of 512 bytes. Returns its status, 0xee if it was not written, and the number of written bytes.
pub(crate) fn request(driver: &mut Driver, kind: u32, header: u64, data: u64) -> (u8, u32) {
    put_header(driver, kind, header);
    let buffers = [Buffer(header, 16, false), Buffer(data, 512, kind == IN), Buffer(STATUS_BYTE, 1, true)];
    driver.chain(DESCRIPTORS, &buffers);
    driver.offer(0);
    let (_, written) = driver.used();
    (driver.byte(STATUS_BYTE), written)
}

fn put_header(driver: &Driver, kind: u32, header: u64) {
    let bytes = [&kind.to_le_bytes()[..], &[0; 12]].concat();
    // Fails if the header is inaccessible.
    let _ = driver.ram.write(header, &bytes);
    driver.put(STATUS_BYTE, &0xee_u8.to_le_bytes());
}

#[test]
fn requests_on_inaccessible_memory_fail_and_the_device_continues() {
    let (mut driver, _directory) = machine();
    truncate(&driver.ram, END);
    assert_eq!(request(&mut driver, IN, HEADER, END), (IOERR, 0));
    assert_eq!(request(&mut driver, IN, HEADER, END - 100).0, IOERR, "in part");
    assert_eq!(driver.byte(END - 1), 7, "accessible bytes are written");
    assert_eq!(request(&mut driver, OUT, HEADER, END).0, IOERR);
    assert_eq!(request(&mut driver, OUT, END + 0x1000, BUFFERS + 0x800).0, IOERR, "its header");
    assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "the device continues");
    // A request whose status cannot be written is used nevertheless.
    put_header(&driver, IN, HEADER);
    driver.chain(
        DESCRIPTORS,
        &[Buffer(HEADER, 16, false), Buffer(BUFFERS + 0x800, 512, true), Buffer(END, 1, true)],
    );
    driver.offer(0);
    assert_eq!(driver.used().1, 512);
    assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0);
    assert!(driver.reported.touched.lock().expect("no panic").is_empty(), "nothing is poisoned");
}

#[test]
fn an_inaccessible_indirect_table_needs_a_reset() {
    let (mut driver, _directory) = machine();
    truncate(&driver.ram, END);
    put_header(&driver, IN, HEADER);
    driver.descriptor(DESCRIPTORS, 0, END, 48, INDIRECT_TABLE, 0);
    driver.offer(0);
    driver.await_status(NEEDS_RESET);
    assert_eq!(driver.used_index(), 0);
    driver.start(0);
    assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "after a reset it works again");
}

#[test]
fn an_inaccessible_queue_needs_a_reset() {
    let parts = [DESCRIPTORS, AVAILABLE, USED];
    for inaccessible in 0..parts.len() {
        let (mut driver, _directory) = machine();
        driver.write(STATUS, 0);
        assert!(driver.agree(VERSION_1));
        let mut parts = parts;
        parts[inaccessible] = END;
        driver.set_up_queue(16, parts);
        driver.go();
        put_header(&driver, IN, HEADER);
        let buffers =
            [Buffer(HEADER, 16, false), Buffer(BUFFERS + 0x800, 512, true), Buffer(STATUS_BYTE, 1, true)];
        driver.chain(DESCRIPTORS, &buffers);
        truncate(&driver.ram, END);
        driver.offer(0);
        driver.await_status(NEEDS_RESET);
        driver.write(QUEUE_NOTIFY, 0);
        driver.start(0);
        assert_eq!(
            request(&mut driver, IN, HEADER, BUFFERS + 0x800),
            (0, 513),
            "after a reset it works again"
        );
    }
}
