//! Packets and clients that break the rules, and memory that cannot be accessed.

use std::io::{Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::poison_observer::{END, install_handler, truncate};

#[test]
fn malformed_packets_reset_their_connection_at_most() {
    let mut guest = Guest::new();
    let (mut kept, kept_host) = guest.connected(1);
    // No header: nothing is known of the sender.
    for buffer in [Buffer(TX_BUFFERS, 43, false), Buffer(TX_BUFFERS, 44, true), Buffer(MEMORY, 44, false)] {
        guest.send_chain(&[buffer]);
    }
    // Less data than the header says, or data that is not memory.
    for data in [None, Some(Buffer(TX_BUFFERS + 0x100, 3, false)), Some(Buffer(MEMORY - 2, 4, false))] {
        let (mut client, host) = guest.connected(5000);
        let packet = Packet { data: vec![0; 4], ..Packet::to_host(5000, host, RW) };
        guest.driver.put(TX_BUFFERS, &packet.header());
        let chain: Vec<_> = [Buffer(TX_BUFFERS, 44, false)].into_iter().chain(data).collect();
        guest.send_chain(&chain);
        guest.expect(RST, host, 5000);
        assert_eq!(rest(&mut client), b"");
    }
    // Operations at the wrong time.
    for op in [REQUEST, RESPONSE, 0, 1000] {
        let (mut client, host) = guest.connected(5000);
        guest.send(&Packet::to_host(5000, host, op));
        guest.expect(RST, host, 5000);
        assert_eq!(rest(&mut client), b"");
    }
    guest.write(1, kept_host, b"kept");
    assert_eq!(read(&mut kept, 4), b"kept");
}

/// Data that a buffer does not take has left the socket: the connection ends rather than to have a hole.
#[test]
fn data_that_cannot_be_delivered_resets_its_connection() {
    let mut guest = Guest::without_buffers();
    for index in 0..2 {
        guest.offer_receive_buffer(index);
    }
    let (mut client, host) = guest.connected(5000);
    // The two buffers that follow: space for half of the data, and one for the RST.
    let header = Buffer(BUFFERS, 44, true);
    guest.driver.chain(part(RX, 0) + 16 * 4, &[header]);
    guest.driver.descriptor(part(RX, 0), 4, BUFFERS, 44, WRITE | NEXT, 5);
    guest.driver.descriptor(part(RX, 0), 5, MEMORY - 4, 8, WRITE, 0);
    // The connection has one buffer left, which takes the first bytes.
    client.write_all(b"first").expect("sent");
    let (first, _) = guest.used(RX);
    client.write_all(b"second").expect("sent");
    let (second, _) = guest.used(RX);
    assert_ne!(first, second);
    client.write_all(b"12345678").expect("sent");
    guest.offer(RX, 4);
    assert_eq!(guest.used(RX), (4, 0));
    guest.offer_receive_buffer(first);
    guest.expect(RST, host, 5000);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
}

/// A truncated memfd stands for poisoned memory, as in `poison_observer`.
#[test]
fn inaccessible_memory_ends_a_connection_or_needs_a_reset() {
    install_handler();
    let mut guest = Guest::in_memory(Backing::Memfd);
    (0..4).for_each(|index| guest.offer_receive_buffer(index));
    let (mut kept, kept_host) = guest.connected(1);
    let (mut client, host) = guest.connected(5000);
    truncate(&guest.driver.ram, END);
    // The data of a packet; its header.
    let packet = Packet { data: vec![0; 4], ..Packet::to_host(5000, host, RW) };
    guest.driver.put(TX_BUFFERS, &packet.header());
    guest.send_chain(&[Buffer(TX_BUFFERS, 44, false), Buffer(END, 4, false)]);
    guest.expect(RST, host, 5000);
    assert_eq!(rest(&mut client), b"");
    guest.send_chain(&[Buffer(END - 10, 44, false)]);
    // A buffer for a packet: the next one takes it.
    let (mut client, host) = guest.connected(5000);
    for _ in 0..4 {
        client.write_all(b"fills the buffers").expect("sent");
        guest.used(RX);
    }
    guest.driver.descriptor(part(RX, 0), 9, END - 20, 100, WRITE, 0);
    guest.send(&Packet::to_host(5000, host, RESPONSE));
    guest.offer(RX, 9);
    assert_eq!(guest.used(RX), (9, 0));
    guest.offer_receive_buffer(0);
    guest.expect(RST, host, 5000);
    guest.write(1, kept_host, b"kept");
    assert_eq!(read(&mut kept, 4), b"kept");

    // The ring.
    truncate(&guest.driver.ram, MEMORY);
    guest.driver.write(QUEUE_SEL, RX);
    guest.driver.write(QUEUE_READY, 0);
    guest.driver.put(END, &[0; 0x1000]);
    guest.driver.write_wide(QUEUE_DRIVER, END);
    guest.driver.write(QUEUE_READY, 1);
    assert_eq!(guest.driver.read(STATUS) & NEEDS_RESET, 0);
    truncate(&guest.driver.ram, END);
    kept.write_all(b"?").expect("sent");
    guest.driver.await_status(NEEDS_RESET);
    truncate(&guest.driver.ram, MEMORY);
    guest.start();
    assert!(matches!(kept.read(&mut [0]), Ok(0) | Err(_)), "the connection is gone");
    (0..4).for_each(|index| guest.offer_receive_buffer(index));
    guest.connected(5000);
}

#[derive(Clone, Debug)]
enum Step {
    Send(Packet, u32),
    Receive,
    Client(Vec<u8>),
    Speak(usize, Vec<u8>),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let port = || prop_oneof![8 => 1_u32..4, 4 => 0x4000_0000_u32..0x4000_0004, 1 => any::<u32>()];
    let op = prop_oneof![16 => 0_u16..9, 1 => any::<u16>()];
    let cids = prop_oneof![12 => Just((u64::from(CID), HOST)), 1 => any::<(u64, u64)>()];
    let word = || prop_oneof![4 => 0_u32..4, 2 => Just(GUEST_BUFFER), 1 => any::<u32>()];
    let data = || vec(any::<u8>(), 0..64);
    let packet = (
        cids,
        port(),
        port(),
        op,
        word(),
        word(),
        word(),
        data(),
        prop_oneof![8 => 0_u32..3, 1 => any::<u32>()],
    );
    let packet = packet.prop_map(
        |((src_cid, dst_cid), src_port, dst_port, op, flags, buf_alloc, fwd_cnt, data, excess)| {
            let kind = if flags == 3 { 2 } else { 1 };
            Step::Send(
                Packet { src_cid, dst_cid, src_port, dst_port, kind, op, flags, buf_alloc, fwd_cnt, data },
                excess,
            )
        },
    );
    let line = prop_oneof![
        4 => (1_u32..4).prop_map(|port| format!("CONNECT {port}\nhello").into_bytes()),
        1 => data()
    ];
    prop_oneof![
        8 => packet,
        4 => Just(Step::Receive),
        3 => line.prop_map(Step::Client),
        2 => (0_usize..4, data()).prop_map(|(index, data)| Step::Speak(index, data)),
        1 => (0_usize..4).prop_map(Step::Leave),
    ]
}

/// Each is a device with its thread: fewer than by default, unless PROPTEST_CASES says how many.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(64),
    }
}

proptest! {
    #![proptest_config(cases())]
    /// Any packets of the guest, and any behaviour of clients and servers: the device works for those that follow the rules.
    #[test]
    fn hostile_guests_and_clients(steps in vec(step(), 1..80)) {
        let mut guest = Guest::new();
        let listener = guest.listen(1);
        listener.set_nonblocking(true).expect("fcntl(2)");
        let mut streams = Vec::new();
        for step in steps {
            match step {
                Step::Send(packet, excess) => {
                    // The length in the header is not that of the data.
                    let mut header = packet.header();
                    let len = (packet.data.len() as u32).wrapping_add(excess);
                    header[24..28].copy_from_slice(&len.to_le_bytes());
                    guest.driver.put(TX_BUFFERS, &header);
                    guest.driver.put(TX_BUFFERS + 0x100, &packet.data);
                    let data = Buffer(TX_BUFFERS + 0x100, packet.data.len() as u32, false);
                    guest.driver.chain(part(TX, 0), &[Buffer(TX_BUFFERS, 44, false), data]);
                    guest.offer(TX, 0);
                    while !guest.is_used(TX) {
                        if guest.is_used(RX) {
                            let (index, _) = guest.used(RX);
                            guest.offer_receive_buffer(index);
                        }
                    }
                    guest.used(TX);
                }
                Step::Receive => if guest.is_used(RX) {
                    let (index, _) = guest.used(RX);
                    guest.offer_receive_buffer(index);
                },
                Step::Client(bytes) => {
                    let mut client = guest.client();
                    let _ = client.write_all(&bytes);
                    streams.push(client);
                }
                Step::Speak(index, bytes) => if let Some(stream) = streams.get_mut(index) {
                    let _ = stream.write_all(&bytes);
                },
                Step::Leave(index) => if index < streams.len() {
                    drop(streams.swap_remove(index));
                },
            }
            if let Ok((stream, _)) = listener.accept() {
                streams.push(stream);
            }
        }
        drop(streams);
        prop_assert_eq!(guest.driver.read(STATUS) & NEEDS_RESET, 0);
        guest.start();
        (0..SIZE).for_each(|index| guest.offer_receive_buffer(index));
        let (mut client, host) = guest.connected(77);
        guest.write(77, host, b"works");
        prop_assert_eq!(read(&mut client, 5), b"works");
        drop(Arc::clone(&guest.host));
    }
}
