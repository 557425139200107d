//! Programs for a socket device, with clients and servers of the host.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::virtio_vsock::{HostSocket, Vsock};
use rustix::net::SocketAddrUnix;
use tempfile::TempDir;

use super::Subject;
use super::machine::{DATA, MAX_SIZE, Machine};
use super::program::bytes;
use super::streams::{Streams, Use};
use crate::driver::{Buffer, MEMORY};

/// The sockets, which outlive devices.
struct Sockets {
    host: Arc<HostSocket>,
    address: SocketAddrUnix,
    /// Servers at the ports 1 and 2.
    servers: [UnixListener; 2],
    _directory: TempDir,
}

thread_local! {
    static SOCKETS: Sockets = {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vsock");
        let host = Arc::new(HostSocket::listen(&path).expect("a socket"));
        let servers = [1, 2].map(|port| {
            let server = UnixListener::bind(directory.path().join(format!("vsock_{port}"))).expect("a socket");
            server.set_nonblocking(true).expect("fcntl(2)");
            server
        });
        let address = SocketAddrUnix::new(&path).expect("a path");
        Sockets { host, address, servers, _directory: directory }
    };
}

pub(crate) struct Device {
    streams: Streams,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Host {
    /// Connects, and asks for a port.
    Connect(u8),
    /// Connects, and says anything.
    Client([u8; 12]),
    /// Connects several times, and says nothing.
    Crowd(u8),
    /// Accepts connections of the guest.
    Accept,
    Use(Use),
}

const CID: u64 = 52;
const HOST_CID: u64 = 2;
/// Where the ports of the host's clients begin.
const CLIENT_PORTS: u32 = 1 << 30;
const RX: u16 = 0;
const TX: u16 = 1;
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RW: u16 = 5;

/// A packet's header, followed by data.
fn packet(cids: (u64, u64), ports: (u32, u32), len: u32, op: u16, rest: [u32; 3]) -> Vec<u8> {
    let [flags, buf_alloc, fwd_cnt] = rest.map(u32::to_le_bytes);
    let words = [ports.0, ports.1, len].map(u32::to_le_bytes);
    let cids = [cids.0, cids.1].map(u64::to_le_bytes);
    [&cids.concat()[..], &words.concat(), &[1, 0], &op.to_le_bytes(), &flags, &buf_alloc, &fwd_cnt].concat()
}

impl Subject for Device {
    type Options = ();
    type Host = Host;
    type Model = Vsock;

    const QUEUES: u16 = 3;

    fn prepare() {
        SOCKETS.with(|_| {});
    }

    fn open((): ()) -> Option<(Self, Vsock)> {
        let host = SOCKETS.with(|sockets| Arc::clone(&sockets.host));
        Some((Device { streams: Streams::default() }, Vsock::new(CID as u32, host)))
    }

    fn request(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let cids = if input.ratio(15, 16)? { (CID, HOST_CID) } else { input.arbitrary()? };
        let guest = if input.ratio(7, 8)? { input.int_in_range(1..=3)? } else { input.arbitrary()? };
        let host = match input.int_in_range(0..=7)? {
            0..=3 => input.int_in_range(1..=3)?,
            4..=6 => CLIENT_PORTS + input.int_in_range(0..=3)?,
            _ => input.arbitrary()?,
        };
        let op = if input.ratio(15, 16)? { input.int_in_range(0..=8)? } else { input.arbitrary()? };
        let flags = input.int_in_range(0..=3)?;
        let buf_alloc = *input.choose(&[0x4_0000, 0x1000, 1, 0, u32::MAX])?;
        let fwd_cnt = if input.ratio(7, 8)? { input.int_in_range(0..=100)? } else { input.arbitrary()? };
        let data = bytes(input, 32)?;
        let len = match input.int_in_range(0..=7)? {
            0..=5 => data.len() as u32,
            6 => input.arbitrary::<u16>()?.into(),
            _ => input.arbitrary()?,
        };
        let header = packet(cids, (guest, host), len, op, [flags, buf_alloc, fwd_cnt]);
        Ok([header, data].concat())
    }

    fn host(&mut self, action: Host, _: &mut Machine) {
        match action {
            Host::Connect(port) => self.connect(format!("CONNECT {}\nhello", port % 4).as_bytes()),
            Host::Client(bytes) => self.connect(&bytes),
            Host::Crowd(count) => (0..count).for_each(|_| self.connect(&[])),
            Host::Accept => self.accept(),
            Host::Use(action) => self.streams.carry_out(action),
        }
    }

    /// A client reaches the guest, which answers it.
    fn works(&mut self, machine: &mut Machine) {
        self.accept();
        self.streams.clear();
        machine.run();
        let buffer = |index: u16| MEMORY / 2 + 0x1000 * u64::from(index);
        for index in 0..MAX_SIZE {
            machine.make_available(RX, index, &[Buffer(buffer(index), 0x1000, true)]);
        }
        self.connect(b"CONNECT 77\n");
        machine.run();
        let mut host = None;
        while let Some((head, _)) = machine.used(RX) {
            let packet = machine.driver.bytes(buffer(head as u16), 44);
            if packet[20..24] == 77_u32.to_le_bytes() {
                assert_eq!(packet[30..32], REQUEST.to_le_bytes());
                host = packet[16..20].try_into().ok().map(u32::from_le_bytes);
            }
        }
        let host = host.expect("a request of the client");
        for (op, data) in [(RESPONSE, &b""[..]), (RW, b"works")] {
            let rest = [0, 0x1000, 0];
            let header = packet((CID, HOST_CID), (77, host), data.len() as u32, op, rest);
            machine.driver.put(DATA, &[&header, data].concat());
            machine.make_available(TX, 0, &[Buffer(DATA, (44 + data.len()) as u32, false)]);
            assert_eq!(machine.used(TX), Some((0, 0)));
        }
        assert_eq!(String::from_utf8_lossy(&self.streams.received()), format!("OK {host}\nworks"));
    }
}

impl Device {
    fn connect(&mut self, bytes: &[u8]) {
        SOCKETS.with(|sockets| self.streams.connect(&sockets.address, bytes));
    }

    fn accept(&mut self) {
        SOCKETS.with(|sockets| {
            for server in &sockets.servers {
                while let Ok((stream, _)) = server.accept() {
                    self.streams.push(stream);
                }
            }
        });
    }
}
