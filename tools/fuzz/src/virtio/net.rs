//! Programs for a network interface that is connected to a socket, as passt has one.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::virtio_net::{LinkConfig, MacAddress, Net, NetConfig};
use tempfile::TempDir;

use super::Subject;
use super::machine::{DATA, Machine};
use super::program::bytes;
use crate::driver::Buffer;

/// Where passt would listen.
struct Passt {
    listener: UnixListener,
    path: PathBuf,
    _directory: TempDir,
}

thread_local! {
    static PASST: Passt = {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passt");
        let listener = UnixListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("fcntl(2)");
        Passt { listener, path, _directory: directory }
    };
}

pub(crate) struct Device {
    /// `None` after passt has ended.
    peer: Option<UnixStream>,
    /// What has arrived, from the start of a frame on.
    arrived: Vec<u8>,
    /// Whether something else than frames was sent to the device: it may end the connection.
    is_torn: bool,
}

#[derive(Arbitrary, Debug)]
pub(crate) struct Options {
    mtu: Option<u16>,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Host {
    /// Sends a frame of this many bytes.
    Frame(u16),
    Frames(u8),
    /// Sends bytes that need not be a frame.
    Bytes([u8; 6]),
    /// Announces a frame.
    Announce(u32),
    /// Receives all that has arrived.
    Receive,
    End,
}

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Bytes of the header before a frame in the driver's buffers.
const HEADER_LEN: u32 = 12;
const FRAME_LENS: std::ops::RangeInclusive<usize> = 14..=65_550;

impl Subject for Device {
    type Options = Options;
    type Host = Host;
    type Model = Net;

    const QUEUES: u16 = 2;

    fn prepare() {
        PASST.with(|_| {});
    }

    fn open(Options { mtu }: Options) -> Option<(Self, Net)> {
        PASST.with(|Passt { listener, path, .. }| {
            // An earlier device may have connected again: it is gone, and its connections are not this one's.
            while listener.accept().is_ok() {}
            let link = LinkConfig::Socket(path.clone());
            let config = NetConfig {
                link,
                mac: MacAddress([0x52, 0x54, 0, 1, 2, 3]),
                vhost: false,
                rate_limit: None,
                mtu,
                queue_pairs: 1,
            };
            let backend = config.open().expect("a connection");
            let (peer, _) = listener.accept().expect("a connection");
            peer.set_nonblocking(true).expect("fcntl(2)");
            let device = Device { peer: Some(peer), arrived: Vec::new(), is_torn: false };
            Some((device, Net::new(backend)))
        })
    }

    /// A header, and the beginning of a frame.
    fn request(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let mut packet = if input.ratio(7, 8)? { vec![0; 12] } else { bytes(input, 12)? };
        packet.resize(packet.len() + usize::from(input.arbitrary::<u8>()?), 0x11);
        Ok(packet)
    }

    fn host(&mut self, action: Host, _: &mut Machine) {
        match action {
            Host::Frame(len) => self.send_frame(usize::from(len).max(14)),
            Host::Frames(count) => (0..count).for_each(|_| self.send_frame(60)),
            Host::Bytes(bytes) => self.send(&bytes),
            Host::Announce(len) => self.send(&len.to_be_bytes()),
            Host::Receive => self.receive(),
            Host::End => self.peer = None,
        }
    }

    fn works(&mut self, machine: &mut Machine) {
        self.receive();
        machine.driver.put(DATA, &[0; 12]);
        machine.make_available(TRANSMIT, 0, &[Buffer(DATA, HEADER_LEN + 77, false)]);
        self.receive();
        machine.run();
        self.receive();
        assert_eq!(machine.used(TRANSMIT), Some((0, 0)));
        if self.peer.is_none() || self.is_torn {
            return;
        }
        machine.make_available(RECEIVE, 0, &[Buffer(DATA, 0x1_1000, true)]);
        self.send_frame(99);
        machine.run();
        let (head, written) = machine.used(RECEIVE).expect("a packet");
        assert!(head == 0 && written >= HEADER_LEN + 14);
    }
}

impl Device {
    fn send_frame(&mut self, len: usize) {
        let before = self.is_torn;
        self.send(&[&(len as u32).to_be_bytes()[..], &vec![0x22; len]].concat());
        self.is_torn = before;
    }

    /// Sends bytes that tear a frame.
    fn send(&mut self, bytes: &[u8]) {
        self.is_torn = true;
        let Some(peer) = &mut self.peer else { return };
        match peer.write(bytes) {
            Ok(len) if len == bytes.len() => {}
            // The device has closed the connection, or the driver receives no more.
            Ok(_) | Err(_) => self.peer = None,
        }
    }

    /// Receives what has arrived: frames, whatever the driver has sent.
    fn receive(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        let mut bytes = [0; 0x1_0000];
        loop {
            match peer.read(&mut bytes) {
                Ok(0) => break self.peer = None,
                Ok(len) => self.arrived.extend(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The device has closed the connection, and not read everything.
                Err(_) => break self.peer = None,
            }
        }
        while let Some((prefix, rest)) = self.arrived.split_first_chunk() {
            let len = u32::from_be_bytes(*prefix) as usize;
            assert!(FRAME_LENS.contains(&len), "a frame of {len} bytes");
            if rest.len() < len {
                break;
            }
            self.arrived.drain(..4 + len);
        }
    }
}
