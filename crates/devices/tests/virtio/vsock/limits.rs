//! Flow control and limits.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use devices::virtio_vsock::{MAX_CLIENTS, MAX_CONNECTIONS, RECEIVE_BUFFER};

use super::*;

#[test]
fn the_host_sends_what_the_guest_has_space_for() {
    let mut guest = Guest::new();
    let (mut client, host) = guest.connected(5000);
    let bytes: Vec<u8> = (0..GUEST_BUFFER * 2).map(|index| (index % 251) as u8).collect();
    client.set_nonblocking(false).expect("fcntl(2)");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || client.write_all(&sent).map(|()| client));
    let mut received = Vec::new();
    while received.len() < GUEST_BUFFER as usize {
        received.extend(guest.expect(RW, host, 5000).data);
    }
    assert_eq!(received.len(), GUEST_BUFFER as usize, "no more than its buffer");
    guest.expect(CREDIT_REQUEST, host, 5000);
    guest.expect_silence();
    // Linux answers at once, also if it has read nothing: to ask again would never end.
    let update = Packet::to_host(5000, host, CREDIT_UPDATE);
    guest.send(&update);
    guest.expect_silence();
    // Some was read.
    guest.send(&Packet { fwd_cnt: 100, ..update.clone() });
    received.extend(guest.expect(RW, host, 5000).data);
    assert_eq!(received.len(), GUEST_BUFFER as usize + 100);
    guest.expect(CREDIT_REQUEST, host, 5000);
    // A counter that nobody could have: no credit, and no end.
    guest.send(&Packet { fwd_cnt: 100 + 2 * GUEST_BUFFER, ..update.clone() });
    guest.expect(CREDIT_REQUEST, host, 5000);
    guest.send(&Packet { fwd_cnt: GUEST_BUFFER + 100, ..update });
    while received.len() < bytes.len() {
        received.extend(guest.expect(RW, host, 5000).data);
    }
    assert!(received == bytes);
    drop(writer.join().expect("no panic").expect("sent"));
    assert_eq!(guest.expect(SHUTDOWN, host, 5000).flags, 3);
}

#[test]
fn a_host_that_does_not_read_stops_the_guest_and_nobody_else() {
    let mut guest = Guest::new();
    let (mut slow, slow_host) = guest.connected(1);
    let (mut other, other_host) = guest.connected(2);
    // Fill the socket's own buffers, too: the guest sends until it has no credit.
    let chunk: Vec<u8> = (0..0x4000_u32).map(|index| (index % 253) as u8).collect();
    let mut sent = 0_u32;
    let mut forwarded = loop {
        guest.send(&Packet::to_host(1, slow_host, CREDIT_REQUEST));
        let update = guest.expect(CREDIT_UPDATE, slow_host, 1);
        assert_eq!(update.buf_alloc, RECEIVE_BUFFER);
        let mut credit = RECEIVE_BUFFER - (sent - update.fwd_cnt);
        if credit == 0 {
            break update.fwd_cnt;
        }
        while credit > 0 {
            let len = credit.min(chunk.len() as u32 - sent % chunk.len() as u32);
            guest.write(1, slow_host, &chunk[(sent as usize % chunk.len())..][..len as usize]);
            (sent, credit) = (sent + len, credit - len);
            while guest.is_used(RX) {
                guest.expect(CREDIT_UPDATE, slow_host, 1);
            }
        }
    };
    assert!(forwarded > 0 && sent > RECEIVE_BUFFER);
    guest.write(2, other_host, b"not delayed");
    assert_eq!(read(&mut other, 11), b"not delayed");
    // The host reads: every byte is there, and the guest gets its credit back.
    let received = read(&mut slow, sent as usize);
    assert!(received.chunks(chunk.len()).all(|part| chunk.starts_with(part)));
    while forwarded + RECEIVE_BUFFER / 4 <= sent {
        forwarded = guest.expect(CREDIT_UPDATE, slow_host, 1).fwd_cnt;
    }
    // The same guest does not stop.
    for _ in 0..=(sent + RECEIVE_BUFFER) / chunk.len() as u32 {
        guest.write(1, slow_host, &chunk);
    }
    while guest.receive().op != RST {}
    guest.write(2, other_host, b"still");
    assert_eq!(read(&mut other, 5), b"still");
}

#[test]
fn connections_and_silent_clients_are_limited() {
    let mut guest = Guest::new();
    let silent: Vec<_> = (0..2 * MAX_CLIENTS).map(|_| guest.client()).collect();
    let (mut client, host) = guest.connected(5000);
    let mut first = timed(silent.into_iter().next().expect("a client"));
    assert!(matches!(first.read(&mut [0]), Ok(0) | Err(_)), "the oldest made way");

    let listener = guest.listen(7);
    let mut servers: Vec<_> =
        (1..MAX_CONNECTIONS as u32).map(|port| guest.connects(&listener, port, 7)).collect();
    guest.send(&Packet::to_host(0x1_0000, 7, REQUEST));
    guest.expect(RST, 7, 0x1_0000);
    let mut refused = guest.client();
    writeln!(refused, "CONNECT 5000").expect("sent");
    assert_eq!(rest(&mut refused), b"");
    guest.write(5000, host, b"works");
    assert_eq!(read(&mut client, 5), b"works");
    // One that only waits for the guest's RST gives place.
    drop(servers.pop());
    assert_eq!(guest.receive().op, SHUTDOWN);
    guest.send(&Packet::to_host(0x1_0000, 7, REQUEST));
    guest.expect(RST, 7, MAX_CONNECTIONS as u32 - 1);
    guest.expect(RESPONSE, 7, 0x1_0000);
}

#[test]
fn packets_wait_for_buffers_and_too_many_answers_hold_the_guests_packets() {
    let mut guest = Guest::without_buffers();
    // Each is answered with RST, and no buffer takes one: the queue of packets comes to a halt.
    guest.driver.put(TX_BUFFERS, &Packet::to_host(1, 2, RW).header());
    guest.driver.chain(part(TX, 0), &[Buffer(TX_BUFFERS, 44, false)]);
    let mut sent = 0;
    loop {
        guest.offer(TX, 0);
        sent += 1;
        let until = Instant::now() + Duration::from_millis(200);
        while !guest.is_used(TX) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(50));
        }
        if !guest.is_used(TX) {
            break;
        }
        guest.used(TX);
        assert!(sent < 1000, "answers are queued without a limit");
    }
    // Buffers that cannot take a packet are returned empty; the packets go into the next ones.
    guest.driver.descriptor(part(RX, 0), 14, BUFFERS, 43, WRITE, 0);
    guest.driver.descriptor(part(RX, 0), 15, MEMORY - 10, 100, WRITE, 0);
    for index in [14, 15] {
        guest.offer(RX, index);
        assert_eq!(guest.used(RX), (index, 0));
    }
    guest.offer_receive_buffer(0);
    (0..sent).for_each(|_| drop(guest.expect(RST, 2, 1)));
    assert_eq!(guest.used(TX), (0, 0));
}
