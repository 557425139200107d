//! The rate limit of a network interface.

use std::io::{ErrorKind, Read};

use guest_memory::Backing;
use machine_profile::device_kind::RateLimits;

use crate::driver::*;
use crate::net::{HEADER_LEN, Machine, RECEIVE, TRANSMIT, frame};
use crate::rings::Ring;

fn limited(bandwidth: Option<u64>, operations: Option<u32>) -> Machine {
    Machine::limited(None, 0, Backing::Anonymous, Some(RateLimits { bandwidth, operations }))
}

/// With 600 bytes a second, the longest frame leaves a debt of two minutes. What waits for it does so for the whole test.
const MINUTES_OF_DEBT: usize = 65_550;

/// A machine with queues of one element and 600 bytes a second, or 60 at once.
fn slow() -> Machine {
    let mut machine = limited(Some(600), None);
    machine.rings = [Ring::at(0, DESCRIPTORS).of_size(1), Ring::at(1, DESCRIPTORS + 0x1000).of_size(1)];
    machine.start(0);
    machine
}

/// Receives two of the shortest frames. The device takes one chain of such a queue in a call: at the end of the first call it has also
/// looked at transmitq.
fn receive_two(machine: &mut Machine) {
    for seed in 0..2 {
        machine.offer(RECEIVE, 0, &[Buffer(BUFFERS + 0x4_0000, 2048, true)]);
        machine.inject(&frame(14, seed));
        assert_eq!(machine.used(RECEIVE), (0, 26));
        assert_eq!(machine.driver.bytes(BUFFERS + 0x4_000c, 14), frame(14, seed));
    }
}

/// Sends two of the shortest frames: at the beginning of the second call, the device has looked at receiveq.
fn send_two(machine: &mut Machine) {
    for seed in 0..2 {
        machine.send(&[], &frame(14, seed));
        assert_eq!(machine.arrived(), frame(14, seed));
    }
}

#[test]
fn packets_wait_for_the_rate_limit_of_their_direction() {
    let mut machine = slow();
    machine.send(&[], &frame(MINUTES_OF_DEBT, 1));
    assert!(machine.arrived() == frame(MINUTES_OF_DEBT, 1), "the first one need not wait");
    // The limit survives a reset, which abandons what waits.
    for seed in [2, 3] {
        machine.offer_packet(&[], &frame(100, seed));
        receive_two(&mut machine);
        assert!(!machine.rings[TRANSMIT].has_used(&machine.driver), "frame {seed}");
        machine.start(0);
    }
    machine.peer.set_nonblocking(true).expect("a socket");
    let nothing = machine.peer.read(&mut [0]).expect_err("nothing has arrived");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);

    let mut machine = slow();
    let long = [Buffer(BUFFERS + 0x4_0000, 0x1_1000, true)];
    machine.offer(RECEIVE, 0, &long);
    machine.inject(&frame(MINUTES_OF_DEBT, 1));
    assert_eq!(machine.used(RECEIVE), (0, (HEADER_LEN + MINUTES_OF_DEBT) as u32));
    for seed in [2, 3] {
        machine.offer(RECEIVE, 0, &long);
        machine.inject(&frame(100, seed));
        send_two(&mut machine);
        assert!(!machine.rings[RECEIVE].has_used(&machine.driver), "frame {seed}");
        machine.start(0);
    }
}

#[test]
fn packets_that_wait_for_the_rate_limit_pass_later() {
    // More than the 100 that pass at once.
    let mut machine = limited(None, Some(1000));
    for seed in 0..150 {
        machine.send(&[], &frame(100, seed));
        assert_eq!(machine.arrived(), frame(100, seed));
    }
    (0..150).for_each(|seed| machine.inject(&frame(100, seed)));
    for seed in 0..150 {
        machine.offer(RECEIVE, 0, &[Buffer(BUFFERS, 2048, true)]);
        assert_eq!(machine.used(RECEIVE), (0, 112));
        assert_eq!(machine.driver.bytes(BUFFERS + HEADER_LEN as u64, 100), frame(100, seed));
    }
}

/// A gigabyte would be a debt of a quarter of an hour.
#[test]
fn a_chain_that_is_no_packet_takes_no_more_of_the_rate_limit_than_a_packet() {
    let mut machine = limited(Some(1 << 20), None);
    machine.offer(TRANSMIT, 0, &[Buffer(BUFFERS, 1 << 30, false)]);
    assert_eq!(machine.used(TRANSMIT), (0, 0));
    machine.send(&[], &frame(100, 1));
    assert_eq!(machine.arrived(), frame(100, 1));
}
