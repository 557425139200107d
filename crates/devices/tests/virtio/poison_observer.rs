//! A disk whose driver's memory is not there any more. A memfd that is cut short stands for poisoned memory; on hosts that can
//! lose a page on request, one is lost.

use std::fs;
use std::sync::Once;

use devices::virtio::block::{Block, Disk};
use guest_memory::{Backing, sigbus};
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::driver::*;

const IN: u32 = 0;
const OUT: u32 = 1;
const IOERR: u8 = 1;

const HEADER: u64 = BUFFERS;
const STATUS_BYTE: u64 = BUFFERS + 0x100;
/// Behind this all is gone when memory is cut.
const END: u64 = 0x8_0000;

#[expect(unsafe_code, reason = "a signal handler is installed")]
fn machine() -> (Driver<Block>, TempDir) {
    static INSTALLED: Once = Once::new();
    // SAFETY: the function only returns a number.
    INSTALLED.call_once(|| unsafe { sigbus::install(|_| 99) }.expect("a handler"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    fs::write(&path, [7; 64 * 512]).expect("a file");
    let disk = Disk::open(&path, false).expect("a disk");
    let mut driver = Driver::in_memory(Block::new(disk, "virtio0"), Backing::Memfd);
    driver.start(0);
    (driver, directory)
}

fn cut(driver: &Driver<Block>, len: u64) {
    driver.ram.memory().iter().for_each(|region| {
        region.file_offset().expect("a file").file().set_len(len).expect("a length");
    });
}

/// A request of 512 bytes: its status, 0xee where it was not written, and the bytes that the device says it wrote.
fn request(driver: &mut Driver<Block>, kind: u32, header: u64, data: u64) -> (u8, u32) {
    put_header(driver, kind, header);
    let buffers = [Buffer(header, 16, false), Buffer(data, 512, kind == IN), Buffer(STATUS_BYTE, 1, true)];
    driver.chain(DESCRIPTORS, &buffers);
    driver.offer(0);
    let (_, written) = driver.used();
    (driver.memory.read_obj(GuestAddress(STATUS_BYTE)).expect("memory"), written)
}

fn put_header(driver: &Driver<Block>, kind: u32, header: u64) {
    let bytes = [&kind.to_le_bytes()[..], &[0; 12]].concat();
    // Where it is gone there is nothing to put.
    let _ = driver.ram.write(header, &bytes);
    driver.memory.write_obj(0xee_u8, GuestAddress(STATUS_BYTE)).expect("memory");
}

#[test]
fn requests_on_memory_that_is_gone_fail_and_the_device_goes_on() {
    let (mut driver, _directory) = machine();
    cut(&driver, END);
    assert_eq!(request(&mut driver, IN, HEADER, END), (IOERR, 0));
    assert_eq!(request(&mut driver, IN, HEADER, END - 100).0, IOERR, "in part");
    assert_eq!(
        driver.memory.read_obj::<u8>(GuestAddress(END - 1)).expect("memory"),
        7,
        "what is there is written"
    );
    assert_eq!(request(&mut driver, OUT, HEADER, END).0, IOERR);
    assert_eq!(request(&mut driver, OUT, END + 0x1000, BUFFERS + 0x800).0, IOERR, "its header");
    assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "the device goes on");
    // A status that cannot be written: the request ends all the same.
    put_header(&driver, IN, HEADER);
    driver.chain(
        DESCRIPTORS,
        &[Buffer(HEADER, 16, false), Buffer(BUFFERS + 0x800, 512, true), Buffer(END, 1, true)],
    );
    driver.offer(0);
    assert_eq!(driver.used().1, 512);
    assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0);
    assert!(driver.told.0.lock().expect("no panic").is_empty(), "the host has lost nothing");
}

#[test]
fn a_table_that_is_gone_stops_the_queue() {
    let (mut driver, _directory) = machine();
    cut(&driver, END);
    put_header(&driver, IN, HEADER);
    driver.descriptor(DESCRIPTORS, 0, END, 48, INDIRECT_TABLE, 0);
    driver.offer(0);
    driver.await_status(NEEDS_RESET);
    assert_eq!(driver.used_index(), 0);
    driver.start(0);
    assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "a reset helps");
}

#[test]
fn a_queue_that_is_gone_stands_still() {
    let parts = [DESCRIPTORS, AVAILABLE, USED];
    for gone in 0..parts.len() {
        let (mut driver, _directory) = machine();
        driver.write(STATUS, 0);
        assert!(driver.agree(VERSION_1));
        let mut parts = parts;
        parts[gone] = END;
        driver.set_up_queue(16, parts);
        driver.go();
        cut(&driver, END);
        driver.write(QUEUE_NOTIFY, 0);
        driver.await_status(NEEDS_RESET);
        driver.write(QUEUE_NOTIFY, 0);
        driver.start(0);
        assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "a reset helps");
    }
}

#[test]
fn lost_pages_are_told_of() {
    let (mut driver, _directory) = machine();
    let page = rustix::param::page_size() as u64;
    let log2_page = page.trailing_zeros() as u8;
    let data = END + page;
    driver.ram.write(data, &[1; 512]).expect("memory");
    if let Err(error) = lose(&driver, data) {
        eprintln!("SKIPPED, this machine lacks pages that can be lost (MADV_HWPOISON): {error}");
        return;
    }
    assert_eq!(request(&mut driver, IN, HEADER, data - 100).0, IOERR);
    assert_eq!(request(&mut driver, OUT, HEADER, data + 8).0, IOERR);
    assert_eq!(request(&mut driver, IN, data, BUFFERS + 0x800).0, IOERR);
    assert_eq!(request(&mut driver, IN, HEADER, BUFFERS + 0x800), (0, 513), "the device goes on");
    let told = std::mem::take(&mut *driver.told.0.lock().expect("no panic"));
    assert_eq!(told, [(data, log2_page), (data + 8, log2_page), (data, log2_page)]);

    driver.descriptor(DESCRIPTORS, 0, data, 48, INDIRECT_TABLE, 0);
    driver.offer(0);
    driver.await_status(NEEDS_RESET);
    driver.ram.replace_pages(data, 512).expect("repaired");
    driver.start(0);
    assert_eq!(request(&mut driver, IN, HEADER, data), (0, 513), "repaired");

    lose(&driver, AVAILABLE).expect("lost before");
    driver.write(QUEUE_NOTIFY, 0);
    driver.await_status(NEEDS_RESET);
    driver.ram.replace_pages(AVAILABLE, 1).expect("repaired");
    driver.start(0);
    assert_eq!(request(&mut driver, IN, HEADER, data), (0, 513), "repaired");
    let told = driver.told.0.lock().expect("no panic").clone();
    assert_eq!(told, [(data, log2_page), (AVAILABLE, log2_page)]);
}

/// Has the host lose the page at a GPA. The signal for it comes to this thread.
#[expect(unsafe_code, reason = "madvise(2) is called")]
fn lose(driver: &Driver<Block>, gpa: u64) -> std::io::Result<()> {
    let hva = driver.ram.host_address(gpa).expect("memory");
    let outcome = sigbus::capture_action_required(|| {
        // SAFETY: a page of guest memory, which nothing here has references to.
        match unsafe { libc::madvise(hva as *mut libc::c_void, 1, libc::MADV_HWPOISON) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    while sigbus::take_fault().is_some() {}
    outcome
}
