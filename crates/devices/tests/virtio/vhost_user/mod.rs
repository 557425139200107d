//! A device that another process serves: here a thread, with the protocol between.

mod back_end;

use std::path::PathBuf;
use std::sync::Arc;

use devices::vhost_user::{ConnectError, VhostUserBackend};
use devices::virtio_fs::Fs;
use guest_memory::{Backing, GuestRam};
use tempfile::TempDir;

use self::back_end::{BackEnd, Behaviour, GET_FEATURES, GET_VRING_BASE};
use crate::driver::*;

const BEHAVIOUR: Behaviour =
    Behaviour { features: VERSION_1 | INDIRECT, byte: 0x11, silent_at: None, dies_with: None };

struct Machine {
    driver: Driver,
    socket: PathBuf,
    _directory: TempDir,
}

fn machine(behaviour: Behaviour) -> (Machine, BackEnd) {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("fs.sock");
    let back_end = BackEnd::listen(&socket, behaviour);
    let backend = VhostUserBackend::connect(&socket, 2).expect("connected");
    let ram = GuestRam::allocate(&[(0, MEMORY), (4 * MEMORY, MEMORY)], Backing::Memfd).expect("memory");
    let driver = Driver::with_memory(Fs::new("share", Arc::new(backend)), ram);
    (Machine { driver, socket, _directory: directory }, back_end)
}

/// Makes a request of a buffer and returns the buffer's bytes.
fn request(driver: &mut Driver, at: u64) -> Vec<u8> {
    driver.put(at, &[0; 32]);
    driver.chain(DESCRIPTORS, &[Buffer(at, 16, true)]);
    driver.offer(0);
    assert_eq!(driver.used(), (0, 16));
    driver.bytes(at, 32)
}

fn filled(byte: u8) -> Vec<u8> {
    [[byte; 16], [0; 16]].concat()
}

#[test]
fn configuration_and_features() {
    let (Machine { mut driver, .. }, _back_end) = machine(BEHAVIOUR);
    assert_eq!(driver.read(8), 26);
    assert_eq!(driver.offered(), VERSION_1 | INDIRECT, "those of the rings that the back end offers");
    let mut config = [0xee; 44];
    vm_device::MutDeviceMmio::mmio_read(
        &mut driver.transport,
        vm_device::bus::MmioAddress(0),
        CONFIG,
        &mut config,
    );
    assert_eq!(config[..6], *b"share\0");
    assert_eq!(config[6..36], [0; 30]);
    assert_eq!(config[36..], [1, 0, 0, 0, 0, 0, 0, 0], "one request queue");
}

#[test]
fn requests_reach_the_back_end_and_notifications_the_driver() {
    let (Machine { mut driver, .. }, _back_end) = machine(BEHAVIOUR);
    driver.start(0);
    for index in 0..40 {
        assert_eq!(request(&mut driver, BUFFERS + 64 * index), filled(0x11));
    }
    assert_eq!(request(&mut driver, 4 * MEMORY + 0x100), filled(0x11), "the second region");
    driver.write(STATUS, 0);
    assert!(driver.edges.read().expect("raised") >= 1);
    assert_eq!(driver.read(INTERRUPT_STATUS), 0);
}

#[test]
fn a_reset_or_a_stopped_queue_keeps_the_connection() {
    let (Machine { mut driver, .. }, back_end) = machine(BEHAVIOUR);
    for _ in 0..3 {
        driver.start(0);
        assert_eq!(request(&mut driver, BUFFERS), filled(0x11));
        assert_eq!(request(&mut driver, BUFFERS), filled(0x11));
        driver.write(QUEUE_SEL, 0);
        driver.write(QUEUE_READY, 0);
        assert_eq!(back_end.received(GET_VRING_BASE), 0);
        driver.clear_queue();
        driver.write(QUEUE_READY, 1);
        assert_eq!(request(&mut driver, BUFFERS), filled(0x11), "the queue starts from its first element");
    }
    drop(driver);
    assert_eq!(back_end.received(GET_VRING_BASE), 0);
}

#[test]
fn requests_wait_for_the_next_back_end() {
    let dying = Behaviour { dies_with: Some(3), ..BEHAVIOUR };
    let (Machine { mut driver, socket, _directory }, back_end) = machine(dying);
    driver.start(0);
    assert_eq!(request(&mut driver, BUFFERS), filled(0x11));
    assert_eq!(request(&mut driver, BUFFERS), filled(0x11));
    driver.put(BUFFERS, &[0; 32]);
    driver.offer(0);
    drop(back_end);
    assert_eq!(driver.used_index(), 2, "the request waits");
    assert_eq!(driver.read(STATUS) & NEEDS_RESET, 0);

    let _back_end = BackEnd::listen(&socket, Behaviour { byte: 0x22, ..BEHAVIOUR });
    assert_eq!(driver.used(), (0, 16));
    assert_eq!(driver.bytes(BUFFERS, 32), filled(0x22));
    assert_eq!(request(&mut driver, BUFFERS), filled(0x22));
}

#[test]
fn a_back_end_that_is_gone_or_silent_does_not_stop_the_driver() {
    let silent = Behaviour { silent_at: Some(GET_VRING_BASE), ..BEHAVIOUR };
    let (Machine { mut driver, socket, _directory }, back_end) = machine(silent);
    driver.start(0);
    assert_eq!(request(&mut driver, BUFFERS), filled(0x11));
    driver.write(STATUS, 0);
    assert_eq!(driver.read(STATUS), 0, "the reset is done without an answer");
    driver.start(0);
    drop(back_end);
    driver.write(STATUS, 0);
    driver.start(0);
    let _back_end = BackEnd::listen(&socket, Behaviour { byte: 0x33, ..BEHAVIOUR });
    assert_eq!(request(&mut driver, BUFFERS), filled(0x33));
}

#[test]
fn a_back_end_that_cannot_serve_the_device_is_an_error() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("fs.sock");
    let refused = |behaviour, queues| {
        let _back_end = BackEnd::listen(&socket, behaviour);
        VhostUserBackend::connect(&socket, queues).expect_err("refused")
    };
    let error = refused(Behaviour { features: INDIRECT, ..BEHAVIOUR }, 2);
    assert_eq!(error.to_string(), "the back end does not offer the features 0x100000000");
    let error = refused(BEHAVIOUR, 5);
    assert_eq!(error.to_string(), "the back end serves 4 queues, and the device has 5");
    let error = refused(Behaviour { silent_at: Some(GET_FEATURES), ..BEHAVIOUR }, 2);
    assert!(error.to_string().starts_with("the vhost-user request GET_FEATURES failed: "), "{error}");
    let error = VhostUserBackend::connect(&directory.path().join("nobody"), 2).expect_err("nobody listens");
    assert!(matches!(error, ConnectError::Connect(_)), "{error}");
}
