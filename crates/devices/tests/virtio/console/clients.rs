//! Clients that come, wait, do not read, and go away.

use devices::virtio_console::MAX_UNREAD;

use super::*;

/// Blocks of 64 KiB: more than a socket and the queue of its client hold.
const BLOCKS: usize = 2 * (MAX_UNREAD + (1 << 20)) / 0x1_0000;

#[test]
fn a_console_does_not_wait_for_a_client_that_does_not_read() {
    let (mut guest, _) = Guest::console(Backing::Anonymous);
    let mut client = guest.client(0);
    guest.offer_receive_buffers(0);
    client.write_all(b"!").expect("sent");
    assert_eq!(guest.received(0), b"!");
    for _ in 0..BLOCKS {
        guest.write_much(0, b'x');
        assert_eq!(guest.rings.used(1), (0, 0));
    }
    // What it gets has an end, and what is written after that comes behind it.
    client.write_all(b"?").expect("sent");
    assert_eq!(guest.received(0), b"?", "input is not affected");
    assert!(read(&mut client, MAX_UNREAD).iter().all(|byte| *byte == b'x'));
    let mut got = vec![0; 0x1_0000];
    let mut len = 0;
    while !got[..len].contains(&b'.') {
        guest.write(0, b".");
        len = client.read(&mut got).expect("bytes");
    }
}

#[test]
fn a_terminal_is_waited_for_and_stays_across_resets() {
    let (mut guest, mut vmm) = Guest::terminal();
    for boot in 0..2_u8 {
        guest.offer_receive_buffers(0);
        vmm.write_all(b"keys").expect("sent");
        assert_eq!(guest.received(0), b"keys");
        let mut written = 0;
        for block in 0..BLOCKS as u8 {
            guest.write_much(0, block);
            written += 1;
            // The socket is full, and the device holds no more. It would have answered by now: it answers input.
            vmm.write_all(b"!").expect("sent");
            assert_eq!(guest.received(0), b"!");
            if !guest.rings.is_used(1) {
                break;
            }
            guest.rings.used(1);
        }
        assert!(written < BLOCKS, "the guest never waits");
        let got = read(&mut vmm, written * 0x1_0000);
        assert_eq!(guest.rings.used(1), (0, 0));
        for (block, byte) in got.chunks(0x1_0000).zip(0_u8..).take(written) {
            assert!(block.iter().all(|got| *got == byte), "block {byte}");
        }
        guest.write(0, &[b'a' + boot]);
        assert_eq!(read(&mut vmm, 1), [b'a' + boot]);
        guest.start();
    }
}

#[test]
fn a_port_waits_for_its_client_and_no_other_port_does() {
    let mut guest = Guest::with_ports();
    let (mut slow, mut other) = (guest.connected(1), guest.connected(2));
    let (_, transmit) = queues(1);
    let mut written = 0;
    for byte in 0..BLOCKS as u8 {
        guest.write_much(1, byte);
        written += 1;
        // Taken after all that it was before: the other port is served behind it.
        guest.write(2, b"another port");
        assert_eq!(read(&mut other, 12), b"another port");
        guest.write(2, b"is served");
        assert_eq!(read(&mut other, 9), b"is served");
        if !guest.rings.is_used(transmit) {
            break;
        }
        guest.rings.used(transmit);
    }
    assert!(written < BLOCKS, "the guest never waits");
    let got = read(&mut slow, written * 0x1_0000);
    assert_eq!(guest.rings.used(transmit), (0, 0));
    for (block, byte) in got.chunks(0x1_0000).zip(0_u8..).take(written) {
        assert!(block.iter().all(|got| *got == byte), "block {byte}");
    }
    guest.write(1, b"the end");
    assert_eq!(read(&mut slow, 7), b"the end");
}

/// A chain that is longer than what is kept for a client.
#[test]
fn a_long_chain_is_delivered_once_and_abandoned_when_its_queue_is_stopped() {
    let mut guest = Guest::with_ports();
    let mut client = guest.connected(1);
    let (_, transmit) = queues(1);
    let block: Vec<u8> = (0..0x1_0000_u32).map(|at| (at % 251) as u8).collect();
    guest.rings.driver.put(MUCH, &block);
    let buffers = [Buffer(MUCH, 0x1_0000, false); 16];
    for _ in 0..2 {
        guest.rings.driver.chain(part(transmit, 0), &buffers);
        guest.rings.offer(transmit, 0);
        for _ in 0..16 {
            assert!(read(&mut client, 0x1_0000) == block);
        }
        assert_eq!(guest.rings.used(transmit), (0, 0));
    }
    // A part of it is taken.
    guest.rings.driver.chain(part(transmit, 0), &buffers);
    guest.rings.offer(transmit, 0);
    assert!(read(&mut client, 0x100) == block[..0x100]);
    let mut other = guest.connected(2);
    guest.write(2, b"?");
    assert_eq!(read(&mut other, 1), b"?");
    guest.rings.driver.write(QUEUE_SEL, transmit);
    guest.rings.driver.write(QUEUE_READY, 0);
    guest.rings.set_up(transmit);
    let mark = [0xfe; 64];
    guest.rings.driver.put(TRANSMIT, &mark);
    guest.rings.driver.chain(part(transmit, 0), &[Buffer(TRANSMIT, 64, false)]);
    guest.rings.offer(transmit, 0);
    // All of the mark comes behind what was taken.
    let mut got = Vec::new();
    let mut bytes = vec![0; 0x1000];
    while !got.ends_with(&mark) {
        let len = client.read(&mut bytes).expect("bytes");
        got.extend(&bytes[..len]);
        assert!(len > 0 && got.len() < 0x10_0000);
    }
}

#[test]
fn a_second_client_waits_until_the_first_one_has_gone() {
    let (mut guest, _) = Guest::console(Backing::Anonymous);
    guest.offer_receive_buffers(0);
    let mut first = guest.client(0);
    first.write_all(b"first").expect("sent");
    assert_eq!(guest.received(0), b"first");
    let mut second = guest.client(0);
    second.write_all(b"second").expect("sent");
    guest.write(0, b"one");
    assert_eq!(read(&mut first, 3), b"one");
    assert!(!guest.rings.is_used(0));
    first.write_all(b"last").expect("sent");
    drop(first);
    // What it had sent comes first.
    assert_eq!(guest.received(0), b"last");
    assert_eq!(guest.received(0), b"second");
    guest.write(0, b"two");
    assert_eq!(read(&mut second, 3), b"two");
}

/// The guest has no buffers for what a client has sent that is gone: it does not keep others from connecting.
#[test]
fn a_client_that_is_gone_gives_place() {
    let (mut guest, _) = Guest::console(Backing::Anonymous);
    let mut first = guest.client(0);
    first.write_all(b"not read").expect("sent");
    guest.write(0, b"1");
    drop(first);
    let mut second = guest.client(0);
    second.write_all(b"2").expect("sent");
    guest.until_received(0, &mut second);
    guest.offer_receive_buffers(0);
    assert_eq!(guest.received(0), b"2");
}

/// A client that connects, sends and leaves, before the guest knows of it.
#[test]
fn what_a_client_has_sent_is_delivered_if_the_guest_has_the_port_open() {
    let mut guest = Guest::with_ports();
    let (receive, _) = queues(1);
    guest.offer_receive_buffers(receive);
    for round in 0..20 {
        let is_open = round % 2 == 0;
        guest.control(1, PORT_OPEN, is_open.into());
        let mut client = guest.client(1);
        client.write_all(format!("request {round}").as_bytes()).expect("sent");
        drop(client);
        assert_eq!(guest.message(), message(1, PORT_OPEN, 1));
        if is_open {
            assert_eq!(guest.received(receive), format!("request {round}").as_bytes());
        }
        assert_eq!(guest.message(), message(1, PORT_OPEN, 0));
    }
    assert!(!guest.rings.is_used(receive));
}

#[test]
fn a_client_that_sends_no_more_still_receives() {
    let mut guest = Guest::with_ports();
    let (receive, _) = queues(1);
    guest.offer_receive_buffers(receive);
    guest.control(1, PORT_OPEN, 1);
    let mut client = guest.connected(1);
    client.write_all(b"request").expect("sent");
    client.shutdown(std::net::Shutdown::Write).expect("shutdown(2)");
    assert_eq!(guest.received(receive), b"request");
    guest.write(1, b"answer");
    assert_eq!(read(&mut client, 6), b"answer");
    guest.assert_silence();
    drop(client);
    assert_eq!(guest.message(), message(1, PORT_OPEN, 0));
}

/// The guest is notified of the end of one client before the next one, also if both are there when it has a buffer.
#[test]
fn each_client_is_announced() {
    let mut guest = Guest::with_ports();
    // The driver has no buffer for messages.
    guest.rings.driver.write(QUEUE_SEL, CONTROL_RECEIVE);
    guest.rings.driver.write(QUEUE_READY, 0);
    guest.rings.set_up(CONTROL_RECEIVE);
    guest.offer_receive_buffer(CONTROL_RECEIVE, 0);
    let first = guest.client(1);
    assert_eq!(guest.rings.used(CONTROL_RECEIVE).0, 0);
    drop(first);
    let mut second = guest.client(1);
    guest.until_received(1, &mut second);
    (1..4).for_each(|index| guest.offer_receive_buffer(CONTROL_RECEIVE, index));
    assert_eq!(guest.message(), message(1, PORT_OPEN, 0));
    assert_eq!(guest.message(), message(1, PORT_OPEN, 1));
}
