//! Connections that follow the rules: from their start to their end, and across resets.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use devices::virtio_vsock::RECEIVE_BUFFER;

use super::*;

#[test]
fn the_driver_reads_the_cid() {
    let mut guest = Guest::new();
    assert_eq!(guest.driver.read(CONFIG), CID);
    assert_eq!(guest.driver.read(CONFIG + 4), 0);
    assert_eq!(guest.driver.read(CONFIG + 8), 0);
}

#[test]
fn a_client_of_the_host_connects_to_a_port_of_the_guest() {
    let mut guest = Guest::new();
    let (mut client, host) = guest.connected(5000);
    client.write_all(b"from the host").expect("sent");
    let packet = guest.expect(RW, host, 5000);
    assert_eq!((packet.data, packet.buf_alloc), (b"from the host".to_vec(), RECEIVE_BUFFER));
    guest.write(5000, host, b"from the guest");
    assert_eq!(read(&mut client, 14), b"from the guest");

    // Another one to the same port has a port of its own.
    let (mut other, other_host) = guest.connected(5000);
    assert_ne!(host, other_host);
    guest.write(5000, other_host, b"2");
    assert_eq!(read(&mut other, 1), b"2");

    // The guest closes: the client reads what came before, and the end.
    guest.write(5000, host, b"bye");
    guest.shut_down(5000, host, 3);
    guest.expect(RST, host, 5000);
    assert_eq!(rest(&mut client), b"bye");
    // The client closes.
    drop(other);
    assert_eq!(guest.expect(SHUTDOWN, other_host, 5000).flags, 3);
    guest.send(&Packet::to_host(5000, other_host, RST));
    guest.expect_silence();
}

#[test]
fn the_guest_connects_to_a_port_of_the_host() {
    let mut guest = Guest::new();
    let listener = guest.listen(7);
    let mut server = guest.connects(&listener, 1000, 7);
    guest.write(1000, 7, b"question");
    assert_eq!(read(&mut server, 8), b"question");
    server.write_all(b"answer").expect("sent");
    assert_eq!(guest.expect(RW, 7, 1000).data, b"answer");
    // A packet of several buffers, its header split.
    let packet = Packet { data: b"parts".to_vec(), ..Packet::to_host(1000, 7, RW) };
    guest.driver.put(TX_BUFFERS, &[packet.header(), packet.data].concat());
    let buffers = [(0, 10), (10, 35), (45, 4)].map(|(at, len)| Buffer(TX_BUFFERS + at, len, false));
    guest.send_chain(&buffers);
    assert_eq!(read(&mut server, 5), b"parts");
    guest.send(&Packet::to_host(1000, 7, RST));
    assert_eq!(rest(&mut server), b"");
    guest.expect_silence();
}

#[test]
fn what_does_not_exist_is_answered_with_rst() {
    let mut guest = Guest::new();
    // Nobody listens; a file that is no socket; a port whose socket is stale.
    std::fs::write(guest.path(Some(8)), "").expect("a file");
    drop(guest.listen(9));
    for port in [7, 8, 9] {
        guest.send(&Packet::to_host(1000, port, REQUEST));
        guest.expect(RST, port, 1000);
    }
    // No such connection.
    for op in [RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 0, 77] {
        guest.send(&Packet::to_host(1000, 7, op));
        guest.expect(RST, 7, 1000);
    }
    // No answer to RST, or to a sender that is not this guest.
    guest.send(&Packet::to_host(1000, 7, RST));
    guest.send(&Packet { src_cid: 99, ..Packet::to_host(1000, 7, REQUEST) });
    // An unknown type or destination, also of a connection that exists.
    let (_client, host) = guest.connected(5000);
    for (dst_cid, kind, op) in [(HOST, 2, REQUEST), (HOST, 0, RW), (3, 1, RW), (u64::MAX, 1, REQUEST)] {
        guest.send(&Packet { dst_cid, kind, ..Packet::to_host(5000, host, op) });
        let (index, len) = guest.used(RX);
        let at = RX_BUFFERS + u64::from(RX_BUFFER_LEN) * u64::from(index);
        let answer = Packet::read(&guest.driver.bytes(at, len as usize));
        assert_eq!((answer.op, answer.src_cid, answer.kind), (RST, dst_cid, kind));
        guest.offer_receive_buffer(index);
    }
    guest.write(5000, host, b"still there");
    guest.expect_silence();
}

#[test]
fn a_guest_that_refuses_closes_the_client() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    writeln!(client, "CONNECT 1").expect("sent");
    let host = guest.receive().src_port;
    guest.send(&Packet::to_host(1, host, RST));
    assert_eq!(rest(&mut client), b"");
    // A client that does not wait for the answer.
    let mut client = guest.client();
    writeln!(client, "CONNECT 1").expect("sent");
    let host = guest.receive().src_port;
    drop(client);
    guest.expect(RST, host, 1);
    // One that asks for nothing.
    let mut client = guest.client();
    writeln!(client, "HELLO").expect("sent");
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    guest.expect_silence();
}

#[test]
fn each_direction_is_shut_down_by_itself() {
    let mut guest = Guest::new();
    // The host sends no more, and reads on.
    let (mut client, host) = guest.connected(5000);
    client.write_all(b"all").expect("sent");
    client.shutdown(Shutdown::Write).expect("shutdown(2)");
    assert_eq!(guest.expect(RW, host, 5000).data, b"all");
    assert_eq!(guest.expect(SHUTDOWN, host, 5000).flags, 2);
    guest.write(5000, host, b"answer");
    guest.shut_down(5000, host, 3);
    guest.expect(RST, host, 5000);
    assert_eq!(rest(&mut client), b"answer");

    // The guest sends no more, and reads on.
    let (mut client, host) = guest.connected(5000);
    guest.write(5000, host, b"all");
    guest.shut_down(5000, host, 2);
    assert_eq!(rest(&mut client), b"all");
    client.write_all(b"answer").expect("sent");
    assert_eq!(guest.expect(RW, host, 5000).data, b"answer");
    // Data after that breaks the rule.
    guest.write(5000, host, b"more");
    guest.expect(RST, host, 5000);

    // The guest reads no more: neither does it get more, nor does the host wait.
    let (mut client, host) = guest.connected(5000);
    guest.shut_down(5000, host, 1);
    let refused = (0..).find_map(|_| client.write_all(&[0; 4096]).err()).expect("an error");
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    guest.write(5000, host, b"on");
    assert_eq!(read(&mut client, 2), b"on");
    drop(client);
    assert_eq!(guest.expect(SHUTDOWN, host, 5000).flags, 3);
}

/// Linux ends a connection eight seconds after it was closed, if the host has not read everything by then.
#[test]
fn what_the_guest_sent_before_it_closed_is_read_to_its_end() {
    let mut guest = Guest::new();
    let (mut client, host) = guest.connected(5000);
    let mut sent = 0;
    // More than the socket's own buffers.
    loop {
        guest.send(&Packet::to_host(5000, host, CREDIT_REQUEST));
        let update = guest.expect(CREDIT_UPDATE, host, 5000);
        if sent - update.fwd_cnt > RECEIVE_BUFFER / 2 {
            break;
        }
        guest.write(5000, host, &[0x5a; 0x2000]);
        sent += 0x2000;
        while guest.is_used(RX) {
            guest.expect(CREDIT_UPDATE, host, 5000);
        }
    }
    guest.shut_down(5000, host, 3);
    guest.send(&Packet::to_host(5000, host, RST));
    // The guest's side is gone.
    guest.write(5000, host, b"?");
    guest.expect(RST, host, 5000);
    let received = rest(&mut client);
    assert_eq!(received.len(), sent as usize);
    assert!(received.iter().all(|&byte| byte == 0x5a));
    guest.expect_silence();
}

#[test]
fn a_device_reset_ends_connections_and_the_next_driver_is_notified() {
    let mut guest = Guest::new();
    // The first driver has no connections that could be gone.
    guest.driver.descriptor(part(EVENT, 0), 0, BUFFERS, 4, WRITE, 0);
    guest.offer(EVENT, 0);
    let (mut client, _) = guest.connected(5000);
    assert!(!guest.is_used(EVENT));
    guest.start();
    assert_eq!(rest(&mut client), b"");
    // A buffer that is not memory does not get the event, the next one does.
    guest.driver.descriptor(part(EVENT, 0), 0, MEMORY, 4, WRITE, 0);
    guest.driver.descriptor(part(EVENT, 0), 1, BUFFERS, 8, WRITE, 0);
    guest.driver.put(BUFFERS, &[0xff; 8]);
    guest.offer(EVENT, 0);
    guest.offer(EVENT, 1);
    assert_eq!((guest.used(EVENT), guest.used(EVENT)), ((0, 0), (1, 4)));
    assert_eq!(guest.driver.bytes(BUFFERS, 5), [0, 0, 0, 0, 0xff]);
    // A client that came meanwhile is served.
    (0..SIZE).for_each(|index| guest.offer_receive_buffer(index));
    guest.connected(5000);
}

#[test]
fn a_stopped_queue_keeps_connections() {
    let mut guest = Guest::new();
    let (mut client, host) = guest.connected(5000);
    guest.driver.write(QUEUE_SEL, RX);
    guest.driver.write(QUEUE_READY, 0);
    client.write_all(b"later").expect("sent");
    guest.write(5000, host, b"now");
    assert_eq!(read(&mut client, 3), b"now");
    guest.set_up(RX);
    guest.offer_receive_buffer(0);
    assert_eq!(guest.expect(RW, host, 5000).data, b"later");
}
