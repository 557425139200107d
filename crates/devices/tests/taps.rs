//! The network interface with a tap of several queues, in a network namespace of its own: root can have one; elsewhere the tests are
//! `ignored` in the summary.

#[path = "virtio/driver.rs"]
#[expect(dead_code, reason = "this test needs a part of the driver")]
mod driver;
#[path = "virtio/rings.rs"]
#[expect(dead_code, reason = "this test makes the rings of a queue itself")]
mod rings;

use std::collections::BTreeSet;
use std::env;
use std::net::UdpSocket;
use std::process::{Command, ExitCode};
use std::time::Duration;

use devices::virtio_net::{LinkConfig, MacAddress, Net, NetConfig};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use driver::*;
use rings::{Ring, until};

/// Set in the network namespace.
const INSIDE: &str = "GHEST_TEST_TAPS";
const TAP: &str = "tap0";
const QUEUES: u16 = 2;

fn main() -> ExitCode {
    if env::var_os(INSIDE).is_none() {
        let test = env::current_exe().expect("this test");
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg(test).args(env::args_os().skip(1)).env(INSIDE, "1");
        // unshare(1) ends with 1 if it fails itself, and a failed test with 101.
        match inside.status().map(|status| status.code()) {
            Ok(Some(0)) => return ExitCode::SUCCESS,
            Ok(Some(1)) | Err(_) => {}
            Ok(_) => return ExitCode::FAILURE,
        }
    }
    let trials = vec![
        Trial::ignorable_test("packets_go_through_a_tap_and_back", || {
            with_tap(packets_go_through_a_tap_and_back)
        }),
        Trial::ignorable_test("the_driver_says_how_many_queues_are_used", || {
            with_tap(the_driver_says_how_many_queues_are_used)
        }),
    ];
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test with a tap, whose other end has the address 198.51.100.1.
fn with_tap(test: fn()) -> Result<Completion, Failed> {
    let inside = env::var_os(INSIDE).ok_or_else(|| "unshare --net fails".to_owned());
    if let Err(missing) = inside.and_then(|_| ip("tuntap add tap0 mode tap multi_queue")) {
        eprintln!("*** NOT TESTED: a network namespace with a tap: {missing} ***");
        return Ok(Completion::ignored_with(missing));
    }
    for command in [
        "address add 198.51.100.1/24 dev tap0",
        "link set tap0 addrgenmode none up",
        "neighbour add 198.51.100.2 lladdr 52:54:00:01:02:03 dev tap0",
    ] {
        ip(command)?;
    }
    test();
    Ok(ip("tuntap del tap0 mode tap multi_queue").map(|_| Completion::Completed)?)
}

/// The output of a command of ip(8).
fn ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// VIRTIO_NET_F_CSUM, _GUEST_CSUM, _MRG_RXBUF, _CTRL_VQ, _MQ.
const FEATURES: u64 = 1 << 0 | 1 << 1 | 1 << 15 | 1 << 17 | 1 << 22;
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const HEADER_LEN: usize = 12;
const CONTROL: usize = 2 * QUEUES as usize;
const COMMAND: u64 = BUFFERS + 0x8000;
/// Bytes of each buffer of the receive queues.
const LEN: u64 = 0x800;

struct Machine {
    driver: Driver,
    rings: Vec<Ring>,
}

impl Machine {
    fn new(features: u64) -> Self {
        let config = NetConfig {
            link: LinkConfig::Tap(TAP.to_owned()),
            mac: MacAddress(GUEST_MAC),
            mtu: None,
            queue_pairs: QUEUES,
            vhost: false,
            rate_limit: None,
        };
        let driver = Driver::new(Net::new(config.open().expect("the tap")));
        let rings = (0..=2 * QUEUES).map(|index| Ring::at(index, 0x1000 * u64::from(index + 1))).collect();
        let mut machine = Machine { driver, rings };
        assert!(machine.driver.agree(VERSION_1 | features));
        machine.rings.iter_mut().for_each(|ring| ring.set_up(&mut machine.driver));
        machine.driver.go();
        assert_eq!(machine.driver.read(STATUS) & NEEDS_RESET, 0);
        for pair in 0..usize::from(QUEUES) {
            for index in 0..8 {
                machine.offer_buffer(pair, index);
            }
        }
        // The kernel drops what is sent before it has noticed that the tap is attached.
        until(|| ip("link show tap0").is_ok_and(|link| link.contains("state UP")));
        machine
    }

    fn buffer(pair: usize, index: u16) -> u64 {
        BUFFERS + 0x1_0000 + 0x1_0000 * pair as u64 + LEN * u64::from(index)
    }

    fn offer_buffer(&mut self, pair: usize, index: u16) {
        let buffer = Buffer(Self::buffer(pair, index), LEN as u32, true);
        self.rings[2 * pair].offer(&mut self.driver, index, &[buffer]);
    }

    /// The next packet of a pair, whose buffer is then offered again.
    fn received(&mut self, pair: usize) -> Vec<u8> {
        let (head, len) = self.rings[2 * pair].used(&self.driver);
        let packet = self.driver.bytes(Self::buffer(pair, head as u16), len as usize);
        self.offer_buffer(pair, head as u16);
        packet
    }

    fn send(&mut self, pair: usize, packet: &[u8]) {
        self.driver.put(BUFFERS, packet);
        let ring = &mut self.rings[2 * pair + 1];
        ring.offer(&mut self.driver, 0, &[Buffer(BUFFERS, packet.len() as u32, false)]);
        ring.used(&self.driver);
    }

    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET. Returns the acknowledgement.
    fn use_pairs(&mut self, pairs: u16) -> u8 {
        self.driver.put(COMMAND, &[&[4, 0][..], &pairs.to_le_bytes(), &[0xee]].concat());
        let ring = &mut self.rings[CONTROL];
        ring.offer(&mut self.driver, 0, &[Buffer(COMMAND, 4, false), Buffer(COMMAND + 4, 1, true)]);
        assert_eq!(ring.used(&self.driver), (0, 1));
        self.driver.byte(COMMAND + 4)
    }
}

/// An Ethernet frame with a UDP datagram from the guest, without a checksum of UDP.
fn datagram(from: u16, to: u16, text: &[u8], host_mac: &[u8]) -> Vec<u8> {
    let udp_len = 8 + text.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 2, 198, 51, 100, 1];
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [from.to_be_bytes(), to.to_be_bytes(), udp_len.to_be_bytes(), [0; 2]].concat();
    [host_mac, &GUEST_MAC, &[8, 0], &ip, &udp, text].concat()
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("198.51.100.1:0").expect("the address of the tap");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    socket
}

fn packets_go_through_a_tap_and_back() {
    for features in [0, FEATURES] {
        let mut machine = Machine::new(features);
        let socket = socket();
        let port = socket.local_addr().expect("an address").port();
        socket.send_to(b"to the guest", "198.51.100.2:9").expect("a tap that is up");
        // The kernel may send packets of its own.
        let packet = loop {
            let packet = machine.received(0);
            if packet.ends_with(b"to the guest") {
                break packet;
            }
        };
        assert_eq!(packet.len(), HEADER_LEN + 14 + 20 + 8 + 12);
        // VIRTIO_NET_HDR_F_NEEDS_CSUM: the kernel leaves the checksum to a driver that has accepted it.
        assert_eq!(packet[0] & 1, u8::from(features != 0));
        let frame = datagram(9, port, b"to the host", &packet[HEADER_LEN + 6..HEADER_LEN + 12]);
        machine.send(0, &[&[0; HEADER_LEN], &frame[..]].concat());
        let mut text = [0; 64];
        let (len, from) = socket.recv_from(&mut text).expect("a datagram");
        assert_eq!((&text[..len], from.to_string().as_str()), (&b"to the host"[..], "198.51.100.2:9"));
    }
}

fn the_driver_says_how_many_queues_are_used() {
    let mut machine = Machine::new(FEATURES);
    assert_eq!([0, QUEUES + 1].map(|pairs| machine.use_pairs(pairs)), [1, 1], "VIRTIO_NET_ERR");
    // Sockets whose packets the kernel distributes to the queues by their hash.
    let sockets: Vec<_> = (0..64).map(|_| socket()).collect();
    let pair_of = |machine: &mut Machine, socket: &UdpSocket| {
        socket.send_to(b"hello", "198.51.100.2:9").expect("a tap that is up");
        let mut pair = None;
        until(|| {
            let ready = (0..2).find(|pair| machine.rings[2 * pair].has_used(&machine.driver));
            // The kernel may send packets of its own.
            pair = ready.filter(|&ready| machine.received(ready).ends_with(b"hello"));
            pair.is_some()
        });
        pair
    };
    let pairs_of_packets = |machine: &mut Machine| -> BTreeSet<usize> {
        sockets.iter().filter_map(|socket| pair_of(machine, socket)).collect()
    };
    assert_eq!(pairs_of_packets(&mut machine), BTreeSet::from([0]), "one until the driver says so");
    for _ in 0..3 {
        assert_eq!(machine.use_pairs(2), 0);
        assert_eq!(pairs_of_packets(&mut machine), BTreeSet::from([0, 1]));
        assert_eq!(machine.use_pairs(1), 0);
        assert_eq!(pairs_of_packets(&mut machine), BTreeSet::from([0]));
    }
}
