//! The socket device: a driver on one side, Unix sockets on the other one.

mod hostile;
mod limits;
mod streams;

use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devices::virtio_vsock::{HostSocket, Vsock};
use guest_memory::Backing;
use tempfile::TempDir;

use crate::driver::*;
use crate::rings::{Rings, SIZE, part};

pub(super) const CID: u32 = 52;
pub(super) const HOST: u64 = 2;
pub(super) const RX: u32 = 0;
pub(super) const TX: u32 = 1;
pub(super) const EVENT: u32 = 2;

pub(super) const REQUEST: u16 = 1;
pub(super) const RESPONSE: u16 = 2;
pub(super) const RST: u16 = 3;
pub(super) const SHUTDOWN: u16 = 4;
pub(super) const RW: u16 = 5;
pub(super) const CREDIT_UPDATE: u16 = 6;
pub(super) const CREDIT_REQUEST: u16 = 7;

pub(super) const RX_BUFFERS: u64 = 0x4_0000;
pub(super) const RX_BUFFER_LEN: u32 = 0x1000;
pub(super) const TX_BUFFERS: u64 = 0x7_0000;
/// The receive buffer that the guest announces.
pub(super) const GUEST_BUFFER: u32 = 0x8000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
    pub(super) data: Vec<u8>,
}

impl Packet {
    pub(super) fn to_host(src_port: u32, dst_port: u32, op: u16) -> Self {
        let (src_cid, dst_cid, kind, buf_alloc) = (CID.into(), HOST, 1, GUEST_BUFFER);
        Packet { src_cid, dst_cid, src_port, dst_port, kind, op, buf_alloc, ..Packet::default() }
    }

    pub(super) fn header(&self) -> Vec<u8> {
        let len = self.data.len() as u32;
        [
            &self.src_cid.to_le_bytes()[..],
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ]
        .concat()
    }

    pub(super) fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let wide = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        assert_eq!(bytes.len(), 44 + word(24) as usize, "a packet is a header and its data");
        Packet {
            src_cid: wide(0),
            dst_cid: wide(8),
            src_port: word(16),
            dst_port: word(20),
            kind: word(28) as u16,
            op: (word(28) >> 16) as u16,
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
            data: bytes[44..].to_vec(),
        }
    }
}

/// A guest's driver, with the host's side of its device.
pub(super) struct Guest {
    pub(super) rings: Rings,
    pub(super) host: Arc<HostSocket>,
    pub(super) directory: TempDir,
}

impl Deref for Guest {
    type Target = Rings;

    fn deref(&self) -> &Rings {
        &self.rings
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Rings {
        &mut self.rings
    }
}

impl Guest {
    pub(super) fn new() -> Self {
        let mut guest = Self::without_buffers();
        (0..SIZE).for_each(|index| guest.offer_receive_buffer(index));
        guest
    }

    /// A driver that has not made any buffer available.
    pub(super) fn without_buffers() -> Self {
        Self::in_memory(Backing::Anonymous)
    }

    pub(super) fn in_memory(backing: Backing) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let host = Arc::new(HostSocket::listen(&directory.path().join("vsock")).expect("listens"));
        let device = Vsock::new(CID, Arc::clone(&host));
        let rings = Rings::of(Driver::in_memory(device, backing));
        let mut guest = Guest { rings, host, directory };
        guest.start();
        guest
    }

    pub(super) fn start(&mut self) {
        self.rings.start(1, 3);
    }

    pub(super) fn offer_receive_buffer(&mut self, index: u16) {
        let at = RX_BUFFERS + u64::from(RX_BUFFER_LEN) * u64::from(index);
        self.driver.descriptor(part(RX, 0), index, at, RX_BUFFER_LEN, WRITE, 0);
        self.offer(RX, index);
    }

    /// Sends a packet, in a chain of header and data, and waits until it is used.
    pub(super) fn send(&mut self, packet: &Packet) {
        self.driver.put(TX_BUFFERS, &packet.header());
        self.driver.put(TX_BUFFERS + 0x100, &packet.data);
        let data = Buffer(TX_BUFFERS + 0x100, packet.data.len() as u32, false);
        let buffers = [Buffer(TX_BUFFERS, 44, false), data];
        self.send_chain(&buffers[..if packet.data.is_empty() { 1 } else { 2 }]);
    }

    pub(super) fn send_chain(&mut self, buffers: &[Buffer]) {
        assert_eq!(self.request(TX, buffers), 0);
    }

    /// Receives a packet, and makes its buffer available again.
    pub(super) fn receive(&mut self) -> Packet {
        let (index, len) = self.used(RX);
        let at = RX_BUFFERS + u64::from(RX_BUFFER_LEN) * u64::from(index);
        let packet = Packet::read(&self.driver.bytes(at, len as usize));
        assert_eq!((packet.src_cid, packet.dst_cid, packet.kind), (HOST, CID.into(), 1));
        self.offer_receive_buffer(index);
        packet
    }

    /// Receives a packet of this operation from a port of the host to one of the guest.
    pub(super) fn expect(&mut self, op: u16, host: u32, guest: u32) -> Packet {
        let packet = self.receive();
        assert_eq!((packet.op, packet.src_port, packet.dst_port), (op, host, guest), "{packet:?}");
        packet
    }

    pub(super) fn path(&self, port: Option<u32>) -> PathBuf {
        self.directory.path().join(port.map_or("vsock".to_owned(), |port| format!("vsock_{port}")))
    }

    pub(super) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.path(Some(port))).expect("listens")
    }

    pub(super) fn client(&self) -> UnixStream {
        timed(UnixStream::connect(self.path(None)).expect("the device listens"))
    }

    /// A connection that the host makes to a port of the guest. Returns the host's port, too.
    pub(super) fn connected(&mut self, port: u32) -> (UnixStream, u32) {
        let mut client = self.client();
        writeln!(client, "CONNECT {port}").expect("sent");
        let host = loop {
            let packet = self.receive();
            if packet.dst_port == port {
                assert_eq!(packet.op, REQUEST);
                break packet.src_port;
            }
        };
        self.send(&Packet::to_host(port, host, RESPONSE));
        assert_eq!(line(&mut client), format!("OK {host}\n"));
        (client, host)
    }

    /// A connection that the guest makes.
    pub(super) fn connects(&mut self, listener: &UnixListener, guest: u32, host: u32) -> UnixStream {
        self.send(&Packet::to_host(guest, host, REQUEST));
        self.expect(RESPONSE, host, guest);
        timed(listener.accept().expect("a connection").0)
    }

    pub(super) fn write(&mut self, guest: u32, host: u32, data: &[u8]) {
        self.send(&Packet { data: data.to_vec(), ..Packet::to_host(guest, host, RW) });
    }

    pub(super) fn shut_down(&mut self, guest: u32, host: u32, flags: u32) {
        self.send(&Packet { flags, ..Packet::to_host(guest, host, SHUTDOWN) });
    }

    /// Nothing that came before has an answer: a packet that belongs to no connection is answered after them.
    pub(super) fn expect_silence(&mut self) {
        self.send(&Packet::to_host(9999, 9999, RW));
        self.expect(RST, 9999, 9999);
    }
}

pub(super) fn timed(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("setsockopt(2)");
    stream
}

pub(super) fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}

pub(super) fn read(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("bytes");
    bytes
}

pub(super) fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the end");
    bytes
}
