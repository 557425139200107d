//! The network interface, with a socket of the test in place of passt.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use devices::virtio_net::{LinkConfig, MacAddress, Net, NetConfig};
use guest_memory::Backing;
use machine_profile::device_kind::RateLimits;
use tempfile::TempDir;
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

use crate::driver::*;
use crate::poison_observer::{END, install_handler, truncate};
use crate::rings::{Ring, SIZE, until};

const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const MERGEABLE: u64 = 1 << 15;
const LINK_STATUS: u64 = 1 << 16;
/// VIRTIO_NET_F_CSUM and the others for whose work passt has no place.
const OFFLOADS: u64 = 0x7f83 | 1 << 22 | 1 << 56;

pub(crate) const HEADER_LEN: usize = 12;
pub(crate) const RECEIVE: usize = 0;
pub(crate) const TRANSMIT: usize = 1;
const ADDRESS: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);

/// A driver, and the other end of its connection.
pub(crate) struct Machine {
    pub(crate) driver: Driver,
    pub(crate) rings: [Ring; 2],
    listener: UnixListener,
    pub(crate) peer: UnixStream,
    directory: TempDir,
}

impl Machine {
    fn new(features: u64) -> Self {
        Machine::with(None, features, Backing::Anonymous)
    }

    pub(crate) fn with(mtu: Option<u16>, features: u64, backing: Backing) -> Self {
        Machine::limited(mtu, features, backing, None)
    }

    pub(crate) fn limited(
        mtu: Option<u16>,
        features: u64,
        backing: Backing,
        rate_limit: Option<RateLimits>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passt.socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let link = LinkConfig::Socket(path);
        let config = NetConfig { link, mac: ADDRESS, mtu, queue_pairs: 1, vhost: false, rate_limit };
        let driver = Driver::in_memory(Net::new(config.open().expect("a connection")), backing);
        let (peer, _) = listener.accept().expect("a connection");
        let rings = [Ring::at(0, DESCRIPTORS), Ring::at(1, DESCRIPTORS + 0x1000)];
        let mut machine = Machine { driver, rings, listener, peer, directory };
        machine.start(features);
        machine
    }

    /// Every step from a reset up to DRIVER_OK.
    pub(crate) fn start(&mut self, features: u64) {
        self.driver.write(STATUS, 0);
        assert!(self.driver.agree(VERSION_1 | features));
        self.rings.iter_mut().for_each(|ring| ring.set_up(&mut self.driver));
        self.driver.go();
        assert_eq!(self.driver.read(STATUS) & NEEDS_RESET, 0);
    }

    pub(crate) fn offer(&mut self, queue: usize, first: u16, buffers: &[Buffer]) {
        self.rings[queue].offer(&mut self.driver, first, buffers);
    }

    pub(crate) fn used(&mut self, queue: usize) -> (u32, u32) {
        self.rings[queue].used(&self.driver)
    }

    /// Makes a frame behind a header of these first bytes available, in one buffer.
    pub(crate) fn offer_packet(&mut self, header: &[u8], frame: &[u8]) {
        let mut packet = [&[0; HEADER_LEN], frame].concat();
        packet[..header.len()].copy_from_slice(header);
        self.driver.put(BUFFERS, &packet);
        self.offer(TRANSMIT, 0, &[Buffer(BUFFERS, packet.len() as u32, false)]);
    }

    pub(crate) fn send(&mut self, header: &[u8], frame: &[u8]) {
        self.offer_packet(header, frame);
        assert_eq!(self.used(TRANSMIT), (0, 0));
    }

    /// The next frame that arrives at the other end.
    pub(crate) fn arrived(&mut self) -> Vec<u8> {
        self.peer.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut len = [0; 4];
        self.peer.read_exact(&mut len).expect("a frame");
        let len = u32::from_be_bytes(len) as usize;
        assert!((14..=65_550).contains(&len), "a frame of {len} bytes");
        let mut frame = vec![0; len];
        self.peer.read_exact(&mut frame).expect("a frame");
        frame
    }

    /// Sends a frame from the other end.
    pub(crate) fn inject(&mut self, frame: &[u8]) {
        let len = (frame.len() as u32).to_be_bytes();
        self.peer.write_all(&[&len, frame].concat()).expect("space in the socket");
    }

    fn link_status(&mut self) -> u16 {
        let mut status = [0; 2];
        self.driver.transport.mmio_read(MmioAddress(0), CONFIG + 6, &mut status);
        u16::from_le_bytes(status)
    }
}

pub(crate) fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect()
}

#[test]
fn configuration_and_features() {
    let mut machine = Machine::with(Some(1400), 0, Backing::Anonymous);
    let offered = machine.driver.offered();
    assert_eq!(offered & (MTU | MAC | MERGEABLE | LINK_STATUS), MTU | MAC | MERGEABLE | LINK_STATUS);
    assert_eq!(offered & OFFLOADS, 0);
    let mut config = [0xee; 14];
    machine.driver.transport.mmio_read(MmioAddress(0), CONFIG, &mut config);
    assert_eq!(config, [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0x78, 0x05, 0, 0]);
    assert_eq!(Machine::new(0).driver.offered() & MTU, 0);
}

#[test]
fn packets_are_sent_whatever_the_parts_that_they_are_in() {
    let mut machine = Machine::new(0);
    for len in [14, 1514, 65_550] {
        let frame = frame(len, 1);
        machine.send(&[], &frame);
        assert!(machine.arrived() == frame, "{len} bytes");
    }
    let frame = frame(100, 2);
    machine.driver.put(BUFFERS, &[&[0; HEADER_LEN][..], &frame].concat());
    let parts = [(0, 5), (5, 7), (12, 0), (12, 1), (13, 99)];
    let parts = parts.map(|(at, len)| Buffer(BUFFERS + at, len, false));
    machine.offer(TRANSMIT, 3, &parts);
    assert_eq!(machine.used(TRANSMIT), (3, 0));
    assert_eq!(machine.arrived(), frame);
}

#[test]
fn what_is_no_packet_is_dropped_and_the_next_one_is_sent() {
    let mut machine = Machine::new(0);
    let packet = |len: usize| Buffer(BUFFERS, len as u32, false);
    let beyond = Buffer(MEMORY - 6, 100, false);
    let chains: [&[Buffer]; 8] = [
        &[Buffer(BUFFERS, 0, false)],
        &[packet(HEADER_LEN - 1)],
        &[packet(HEADER_LEN + 13)],
        &[packet(HEADER_LEN + 65_551)],
        &[Buffer(BUFFERS, u32::MAX, false)],
        &[packet(100), Buffer(BUFFERS + 200, 1, true)],
        &[Buffer(BUFFERS, 100, true)],
        &[packet(HEADER_LEN), beyond],
    ];
    machine.driver.put(BUFFERS, &[0; HEADER_LEN]);
    for chain in chains {
        machine.offer(TRANSMIT, 0, chain);
        assert_eq!(machine.used(TRANSMIT), (0, 0), "{chain:?}");
    }
    // A loop.
    machine.driver.descriptor(machine.rings[TRANSMIT].parts[0], 0, BUFFERS, 64, NEXT, 0);
    machine.rings[TRANSMIT].offer_head(&mut machine.driver, 0);
    assert_eq!(machine.used(TRANSMIT), (0, 0));
    // Headers that need an offload: VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4.
    machine.send(&[1, 0], &frame(100, 1));
    machine.send(&[0, 1], &frame(100, 2));
    machine.send(&[], &frame(100, 3));
    assert_eq!(machine.arrived(), frame(100, 3), "the first one to arrive");
}

#[test]
fn received_packets_have_a_header_without_offloads() {
    for (features, buffers) in [(0, 0), (MERGEABLE, 1)] {
        let mut machine = Machine::new(features);
        for (index, len) in [14, 1514, 65_550].into_iter().enumerate() {
            machine.driver.put(BUFFERS, &[0xee; 0x1_1000]);
            let parts = [Buffer(BUFFERS, 5, true), Buffer(BUFFERS + 5, 0x1_0ffb, true)];
            machine.offer(RECEIVE, 2 * index as u16, &parts);
            let frame = frame(len, 7);
            machine.inject(&frame);
            assert_eq!(machine.used(RECEIVE), (2 * index as u32, (HEADER_LEN + len) as u32));
            let header = machine.driver.bytes(BUFFERS, HEADER_LEN);
            // A driver that does not negotiate VIRTIO_NET_F_MRG_RXBUF sees 1 as well.
            assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "{buffers}");
            assert!(machine.driver.bytes(BUFFERS + HEADER_LEN as u64, len) == frame, "{len} bytes");
            assert_eq!(machine.driver.byte(BUFFERS + (HEADER_LEN + len) as u64), 0xee);
        }
    }
}

#[test]
fn packets_wait_until_the_driver_has_buffers() {
    for features in [0, EVENT_INDEX] {
        let mut machine = Machine::new(features);
        for seed in 0..50 {
            machine.inject(&frame(600, seed));
        }
        for seed in 0..50 {
            machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 2048, true)]);
            assert_eq!(machine.used(RECEIVE), (0, 612));
            assert_eq!(machine.driver.bytes(BUFFERS + HEADER_LEN as u64, 600), frame(600, seed));
        }
    }
}

#[test]
fn a_packet_takes_several_buffers_if_the_driver_merges_them() {
    let mut machine = Machine::new(MERGEABLE);
    let frame = frame(1000, 5);
    machine.inject(&frame);
    // Too few for now: none of them is used.
    for index in 0..2 {
        machine.offer(RECEIVE, index, &[Buffer(BUFFERS + 0x1000 * u64::from(index), 400, true)]);
    }
    machine.offer(RECEIVE, 2, &[Buffer(BUFFERS + 0x2000, 100, true), Buffer(BUFFERS + 0x2800, 900, true)]);
    let used = [0; 3].map(|_| machine.used(RECEIVE));
    assert_eq!(used, [(0, 400), (1, 400), (2, 212)]);
    assert_eq!(machine.driver.bytes(BUFFERS, HEADER_LEN), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    let parts = [(12, 388), (0x1000, 400), (0x2000, 100), (0x2800, 112)];
    let bytes = parts.map(|(at, len)| machine.driver.bytes(BUFFERS + at, len)).concat();
    assert_eq!(bytes, frame);
}

#[test]
fn a_packet_that_the_buffers_are_too_short_for_is_dropped() {
    // One buffer for a packet, or all buffers of the queue.
    for (features, count) in [(0, 1), (MERGEABLE, SIZE)] {
        let mut machine = Machine::new(features);
        for index in 0..count {
            machine.offer(RECEIVE, index, &[Buffer(BUFFERS + 0x100 * u64::from(index), 60, true)]);
        }
        machine.inject(&frame(1000, 1));
        machine.inject(&frame(48, 2));
        assert_eq!(machine.used(RECEIVE), (0, 60));
        assert_eq!(machine.driver.bytes(BUFFERS + HEADER_LEN as u64, 48), frame(48, 2));
    }
}

#[test]
fn buffers_of_the_wrong_direction_return_empty() {
    for features in [0, MERGEABLE] {
        let mut machine = Machine::new(features);
        machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 2048, false)]);
        machine.offer(RECEIVE, 1, &[Buffer(BUFFERS, 20, false), Buffer(BUFFERS + 20, 2048, true)]);
        machine.offer(RECEIVE, 3, &[Buffer(MEMORY - 100, 2048, true)]);
        machine.offer(RECEIVE, 4, &[Buffer(BUFFERS, 2048, true)]);
        for seed in 1..=4 {
            machine.inject(&frame(500, seed));
        }
        let used = [0; 4].map(|_| machine.used(RECEIVE));
        assert_eq!(used, [(0, 0), (1, 0), (3, 0), (4, 512)]);
        assert_eq!(machine.driver.bytes(BUFFERS + HEADER_LEN as u64, 500), frame(500, 4));
    }
}

/// A truncated memfd stands for poisoned memory, as in `poison_observer`.
#[test]
fn a_buffer_that_is_inaccessible_fails_its_packet_only() {
    install_handler();
    let mut machine = Machine::with(None, MERGEABLE, Backing::Memfd);
    truncate(&machine.driver.ram, END);
    machine.driver.put(BUFFERS, &[0; HEADER_LEN]);
    machine.offer(TRANSMIT, 0, &[Buffer(BUFFERS, HEADER_LEN as u32, false), Buffer(END, 100, false)]);
    assert_eq!(machine.used(TRANSMIT), (0, 0));
    machine.send(&[], &frame(80, 1));
    assert_eq!(machine.arrived(), frame(80, 1), "the first one to arrive");
    machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 100, true)]);
    machine.offer(RECEIVE, 1, &[Buffer(END, 2048, true)]);
    machine.offer(RECEIVE, 2, &[Buffer(BUFFERS, 2048, true)]);
    machine.inject(&frame(500, 1));
    machine.inject(&frame(500, 2));
    let used = [0; 3].map(|_| machine.used(RECEIVE));
    assert_eq!(used, [(0, 0), (1, 0), (2, 512)]);
    assert_eq!(machine.driver.bytes(BUFFERS + HEADER_LEN as u64, 500), frame(500, 2));
    assert_eq!(machine.driver.read(STATUS) & NEEDS_RESET, 0);
}

#[test]
fn a_ring_that_is_broken_needs_a_reset_and_the_connection_survives_it() {
    let mut machine = Machine::new(0);
    machine.inject(&frame(300, 1));
    // More chains than the queue has elements.
    machine.driver.ram.store_u16(machine.rings[TRANSMIT].parts[1] + 2, SIZE + 1).expect("memory");
    machine.driver.write(QUEUE_NOTIFY, TRANSMIT as u32);
    machine.driver.await_status(NEEDS_RESET);
    machine.start(0);
    machine.send(&[], &frame(80, 2));
    assert_eq!(machine.arrived(), frame(80, 2));
    machine.inject(&frame(301, 3));
    // The first one was in a buffer of the device that the reset has dropped, or was not received yet.
    machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 2048, true)]);
    let (_, first) = machine.used(RECEIVE);
    if first == 312 {
        machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 2048, true)]);
        assert_eq!(machine.used(RECEIVE), (0, 313));
    } else {
        assert_eq!(first, 313);
    }
}

#[test]
fn the_driver_waits_while_the_other_side_does_not_read() {
    let mut machine = Machine::new(0);
    let packet = [vec![0; HEADER_LEN], frame(60_000, 9)].concat();
    machine.driver.put(BUFFERS, &packet);
    // More than the socket holds.
    let offer_all = |machine: &mut Machine| {
        for index in 0..SIZE {
            machine.offer(TRANSMIT, index, &[Buffer(BUFFERS, packet.len() as u32, false)]);
        }
    };
    offer_all(&mut machine);
    for _ in 0..SIZE {
        assert!(machine.arrived() == frame(60_000, 9));
        machine.used(TRANSMIT);
    }
    offer_all(&mut machine);
    // A reset does not wait for the reader, and tears no frame.
    machine.start(0);
    machine.driver.put(BUFFERS, &[0; HEADER_LEN + 100]);
    machine.offer(TRANSMIT, 0, &[Buffer(BUFFERS, HEADER_LEN as u32 + 100, false)]);
    loop {
        let arrived = machine.arrived();
        if arrived.len() == 100 {
            break;
        }
        assert!(arrived == frame(60_000, 9));
    }
}

#[test]
fn the_link_is_down_until_the_other_side_is_back() {
    let mut machine = Machine::new(LINK_STATUS);
    assert_eq!(machine.link_status(), 1);
    machine.peer.shutdown(std::net::Shutdown::Both).expect("a socket");
    until(|| machine.link_status() == 0);
    until(|| machine.driver.read(INTERRUPT_STATUS) & 2 != 0);
    // The driver's packets go nowhere.
    machine.send(&[], &frame(100, 1));
    let (peer, _) = machine.listener.accept().expect("a connection");
    machine.peer = peer;
    until(|| machine.link_status() == 1);
    machine.send(&[], &frame(100, 2));
    assert_eq!(machine.arrived(), frame(100, 2), "the first one to arrive");
    machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 2048, true)]);
    machine.inject(&frame(200, 3));
    assert_eq!(machine.used(RECEIVE), (0, 212));
    // What is not a frame is the end of the connection, too.
    machine.peer.write_all(&[0xff; 100]).expect("space in the socket");
    until(|| machine.link_status() == 0);
    assert!(machine.directory.path().exists());
}
