//! Messages and chains that break the rules, and memory that cannot be accessed.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::poison_observer::{END, install_handler, truncate};

#[test]
fn malformed_messages_are_ignored() {
    let mut guest = Guest::with_ports();
    for buffer in [Buffer(TRANSMIT, 7, false), Buffer(TRANSMIT, 8, true), Buffer(MEMORY, 8, false)] {
        assert_eq!(guest.rings.request(CONTROL_TRANSMIT, &[buffer]), 0);
    }
    // Ports that do not exist, port 0 among them; events that are the device's, or nobody's; a driver that has failed.
    for port in [0, 3, 16, u32::MAX] {
        for event in [PORT_READY, PORT_OPEN] {
            guest.control(port, event, 1);
        }
    }
    for event in [PORT_ADD, 2, 4, 5, PORT_NAME, 8, u16::MAX] {
        guest.control(1, event, 1);
    }
    guest.control(NO_PORT, DEVICE_READY, 0);
    guest.control(NO_PORT, DEVICE_READY, 2);
    guest.assert_silence();
    let mut client = guest.connected(1);
    guest.write(1, b"works");
    assert_eq!(read(&mut client, 5), b"works");
}

/// Messages to the driver follow from the state of the ports: a flood of requests for them is answered with that many at most.
#[test]
fn a_flood_of_messages_is_answered_once() {
    let mut guest = Guest::named(Backing::Anonymous);
    for _ in 0..1000 {
        guest.control(NO_PORT, DEVICE_READY, 1);
        guest.control(1, PORT_READY, 1);
        guest.control(2, PORT_READY, 1);
    }
    guest.offer_receive_buffers(CONTROL_RECEIVE);
    let messages: Vec<_> = (0..4).map(|_| guest.message()).collect();
    let name = |port: u32| (port, PORT_NAME, 1, NAMES[port as usize - 1].as_bytes().to_vec());
    assert_eq!(messages, [message(1, PORT_ADD, 1), name(1), message(2, PORT_ADD, 1), name(2)]);
    guest.control(1, PORT_OPEN, 0);
    guest.assert_silence();
}

/// The last of the messages about a port that the device takes together counts: it serves the port once for all of them.
#[test]
fn messages_that_are_taken_together() {
    let mut guest = Guest::with_ports();
    let (receive, _) = queues(1);
    guest.offer_receive_buffers(receive);
    let mut client = guest.connected(1);
    client.write_all(b"input").expect("sent");
    let controls = |guest: &mut Guest, values: [u16; 2]| {
        guest.rings.driver.write(QUEUE_SEL, CONTROL_TRANSMIT);
        guest.rings.driver.write(QUEUE_READY, 0);
        guest.rings.set_up(CONTROL_TRANSMIT);
        guest.rings.driver.write(QUEUE_READY, 0);
        for (index, value) in (0..).zip(values) {
            let at = TRANSMIT + 8 * u64::from(index);
            guest.rings.driver.put(at, &[1, 0, 0, 0, PORT_OPEN as u8, 0, value as u8, 0]);
            guest.rings.driver.descriptor(part(CONTROL_TRANSMIT, 0), index, at, 8, 0, 0);
            guest.rings.offer(CONTROL_TRANSMIT, index);
        }
        guest.rings.driver.write(QUEUE_READY, 1);
        assert_eq!([0, 1].map(|_| guest.rings.used(CONTROL_TRANSMIT)), [(0, 0), (1, 0)]);
    };
    controls(&mut guest, [1, 0]);
    // The device has served the port before it takes the second one.
    guest.write(1, b"1");
    guest.write(1, b"2");
    assert!(!guest.rings.is_used(receive));
    controls(&mut guest, [0, 1]);
    assert_eq!(guest.received(receive), b"input");
}

#[test]
fn a_message_that_a_buffer_does_not_take_is_in_the_next_one() {
    let mut guest = Guest::named(Backing::Anonymous);
    for (index, at, len) in [(0, TRANSMIT, 7), (1, MEMORY - 4, 8), (2, TRANSMIT, 8)] {
        guest.rings.driver.descriptor(part(CONTROL_RECEIVE, 0), index, at, len, WRITE, 0);
        guest.rings.offer(CONTROL_RECEIVE, index);
    }
    guest.control(NO_PORT, DEVICE_READY, 1);
    let used: Vec<_> = (0..3).map(|_| guest.rings.used(CONTROL_RECEIVE)).collect();
    assert_eq!(used, [(0, 0), (1, 0), (2, 8)]);
    guest.offer_receive_buffers(CONTROL_RECEIVE);
    assert_eq!(guest.message(), message(2, PORT_ADD, 1));
}

/// Input that a buffer does not take is in the next one, and output that cannot be read is not passed on.
#[test]
fn malformed_chains_of_a_port() {
    let mut guest = Guest::with_ports();
    let (receive, transmit) = queues(1);
    guest.control(1, PORT_OPEN, 1);
    let mut client = guest.connected(1);
    guest.rings.driver.descriptor(part(receive, 0), 0, MEMORY - 2, 8, WRITE, 0);
    guest.rings.driver.descriptor(part(receive, 0), 1, TRANSMIT, 8, 0, 0);
    guest.rings.driver.descriptor(part(receive, 0), 2, receive_buffer(receive, 2), 3, WRITE, 0);
    (0..3).for_each(|index| guest.rings.offer(receive, index));
    client.write_all(b"123456").expect("sent");
    let used: Vec<_> = (0..3).map(|_| guest.rings.used(receive)).collect();
    assert_eq!(used, [(0, 0), (1, 0), (2, 3)]);
    assert_eq!(guest.rings.driver.bytes(receive_buffer(receive, 2), 3), b"123");
    guest.offer_receive_buffer(receive, 3);
    assert_eq!(guest.received(receive), b"456");

    // Nothing that the device could read, or less than it seems.
    guest.rings.driver.put(TRANSMIT, b"12345678");
    assert_eq!(guest.rings.request(transmit, &[Buffer(TRANSMIT, 8, true)]), 0);
    guest.write(1, b"?");
    assert_eq!(read(&mut client, 1), b"?");
    assert_eq!(guest.rings.request(transmit, &[Buffer(MEMORY - 2, 8, false)]), 0);
    // The stream would have a hole.
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    assert_eq!(guest.message(), message(1, PORT_OPEN, 0));

    let (mut guest, _) = Guest::console(Backing::Anonymous);
    let mut client = guest.client(0);
    guest.offer_receive_buffers(0);
    client.write_all(b"!").expect("sent");
    assert_eq!(guest.received(0), b"!");
    let chain = [Buffer(TRANSMIT, 2, false), Buffer(MEMORY - 2, 8, false), Buffer(TRANSMIT, 2, false)];
    guest.rings.driver.put(TRANSMIT, b"ab");
    assert_eq!(guest.rings.request(1, &chain), 0);
    guest.write(0, b"next");
    // What is copied together with what cannot be read is dropped too.
    assert_eq!(read(&mut client, 4), b"next");
}

/// A truncated memfd stands for poisoned memory, as in `poison_observer`.
#[test]
fn inaccessible_memory_drops_data_or_needs_a_reset() {
    install_handler();
    let mut guest = Guest::named(Backing::Memfd);
    guest.add_ports();
    let (receive, transmit) = queues(1);
    guest.control(1, PORT_OPEN, 1);
    let mut client = guest.connected(1);
    truncate(&guest.rings.driver.ram, END);
    // A buffer for input, and one for a message.
    guest.rings.driver.descriptor(part(receive, 0), 0, END, 100, WRITE, 0);
    guest.rings.offer(receive, 0);
    guest.offer_receive_buffer(receive, 1);
    client.write_all(b"whole").expect("sent");
    assert_eq!(guest.rings.used(receive), (0, 0));
    assert_eq!(guest.received(receive), b"whole");
    // What the guest has written.
    assert_eq!(guest.rings.request(transmit, &[Buffer(END, 4, false)]), 0);
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    assert_eq!(guest.message(), message(1, PORT_OPEN, 0));
    let mut client = guest.connected(1);
    guest.write(1, b"works");
    assert_eq!(read(&mut client, 5), b"works");
    assert_eq!(guest.rings.request(CONTROL_TRANSMIT, &[Buffer(END, 8, false)]), 0);

    // The ring.
    truncate(&guest.rings.driver.ram, MEMORY);
    guest.rings.driver.write(QUEUE_SEL, transmit);
    guest.rings.driver.write(QUEUE_READY, 0);
    guest.rings.driver.put(END, &[0; 0x1000]);
    guest.rings.driver.write_wide(QUEUE_DRIVER, END);
    guest.rings.driver.write(QUEUE_READY, 1);
    assert_eq!(guest.rings.driver.read(STATUS) & NEEDS_RESET, 0);
    truncate(&guest.rings.driver.ram, END);
    guest.rings.driver.write(QUEUE_NOTIFY, transmit);
    guest.rings.driver.await_status(NEEDS_RESET);
    truncate(&guest.rings.driver.ram, MEMORY);
    guest.start();
    guest.write(1, b"after the reset");
    assert_eq!(read(&mut client, 15), b"after the reset", "the client is still there");
}

#[derive(Clone, Debug)]
enum Step {
    Control { port: u32, event: u16, value: u16 },
    Descriptor { queue: u32, index: u16, at: u64, len: u32, flags: u16, next: u16 },
    Offer { queue: u32, head: u16 },
    Ready { queue: u32, ready: u32 },
    Connect(u32),
    Send(usize, Vec<u8>),
    Receive(usize),
    Leave(usize),
    Resize(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let queue = || 0_u32..8;
    let address =
        prop_oneof![6 => TRANSMIT..TRANSMIT + 0x2000, 1 => MEMORY - 600..MEMORY + 8, 1 => any::<u64>()];
    let len = prop_oneof![6 => 0_u32..2000, 1 => any::<u32>()];
    let head = || prop_oneof![8 => 0..SIZE, 1 => any::<u16>()];
    let flags = prop_oneof![8 => 0_u16..8, 1 => any::<u16>()];
    let port = prop_oneof![6 => 0_u32..4, 1 => any::<u32>()];
    let event = prop_oneof![8 => 0_u16..9, 1 => any::<u16>()];
    prop_oneof![
        6 => (port, event, 0_u16..3).prop_map(|(port, event, value)| Step::Control { port, event, value }),
        4 => (queue(), 0..SIZE, address, len, flags, head()).prop_map(
            |(queue, index, at, len, flags, next)| Step::Descriptor { queue, index, at, len, flags, next }
        ),
        4 => (queue(), head()).prop_map(|(queue, head)| Step::Offer { queue, head }),
        1 => (queue(), 0_u32..2).prop_map(|(queue, ready)| Step::Ready { queue, ready }),
        2 => (1_u32..3).prop_map(Step::Connect),
        2 => (0_usize..4, vec(any::<u8>(), 0..64)).prop_map(|(client, bytes)| Step::Send(client, bytes)),
        1 => (0_usize..4).prop_map(Step::Receive),
        1 => (0_usize..4).prop_map(Step::Leave),
        1 => any::<(u16, u16)>().prop_map(|(columns, rows)| Step::Resize(columns, rows)),
    ]
}

/// Each is a device with its thread: fewer than by default, unless PROPTEST_CASES says how many.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(64),
    }
}

fn break_rules(guest: &mut Guest, size: Option<&ConsoleSize>, steps: Vec<Step>) {
    let mut clients = Vec::new();
    for step in steps {
        match step {
            Step::Control { port, event, value } => {
                let bytes = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
                guest.rings.driver.put(TRANSMIT + 0x4000, &bytes);
                let buffer = [Buffer(TRANSMIT + 0x4000, 8, false)];
                guest.rings.driver.chain(part(CONTROL_TRANSMIT, 0), &buffer);
                guest.rings.offer(CONTROL_TRANSMIT, 0);
            }
            Step::Descriptor { queue, index, at, len, flags, next } => {
                guest.rings.driver.descriptor(part(queue, 0), index, at, len, flags, next);
            }
            Step::Offer { queue, head } => guest.rings.offer(queue, head),
            Step::Ready { queue, ready } => {
                guest.rings.driver.write(QUEUE_SEL, queue);
                guest.rings.driver.write(QUEUE_READY, ready);
            }
            // Port 1 of named ports has the socket of the console.
            Step::Connect(port) if port == 1 || size.is_none() => clients.push(guest.client(port)),
            Step::Connect(_) => {}
            Step::Send(client, bytes) => {
                if let Some(client) = clients.get_mut(client) {
                    let _ = client.write_all(&bytes);
                }
            }
            Step::Receive(client) => {
                if let Some(client) = clients.get_mut(client) {
                    client.set_nonblocking(true).expect("fcntl(2)");
                    let _ = client.read(&mut [0; 4096]);
                    client.set_nonblocking(false).expect("fcntl(2)");
                }
            }
            Step::Leave(client) => {
                if client < clients.len() {
                    drop(clients.swap_remove(client));
                }
            }
            Step::Resize(columns, rows) => {
                if let Some(size) = size {
                    size.set(columns, rows);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases())]
    /// Anything a guest may write to the rings, and any behaviour of clients: after a reset the device works.
    #[test]
    fn hostile_guests_and_clients(steps in vec(step(), 1..80)) {
        let mut guest = Guest::with_ports();
        break_rules(&mut guest, None, steps.clone());
        guest.start();
        guest.offer_receive_buffers(CONTROL_RECEIVE);
        guest.control(NO_PORT, DEVICE_READY, 1);
        guest.control(1, PORT_READY, 1);
        let mut client = guest.client(1);
        guest.until_received(1, &mut client);
        guest.control(1, PORT_OPEN, 1);
        let (receive, _) = queues(1);
        guest.offer_receive_buffers(receive);
        client.write_all(b"works").expect("sent");
        while guest.received(receive) != b"works" {
            // The end of an earlier client may have to be announced.
            if guest.rings.is_used(CONTROL_RECEIVE) {
                guest.message();
            }
        }

        let (mut guest, size) = Guest::console(Backing::Anonymous);
        break_rules(&mut guest, Some(&size), steps);
        guest.start();
        let mut client = guest.client(0);
        guest.offer_receive_buffers(0);
        client.write_all(b"works").expect("sent");
        while guest.received(0) != b"works" {}
        guest.write(0, b"works");
        prop_assert_eq!(read(&mut client, 5), b"works");
    }
}
