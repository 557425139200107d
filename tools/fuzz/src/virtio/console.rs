//! Programs for a console, or a device with one named port, and the clients of its socket.

use std::path::PathBuf;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::ConsoleSize;
use devices::virtio_console::{Console, PortSocket, Ports};
use rustix::net::SocketAddrUnix;
use tempfile::TempDir;

use super::Subject;
use super::machine::{DATA, MAX_SIZE, Machine};
use super::program::bytes;
use super::streams::{Streams, Use};
use crate::driver::{Buffer, MEMORY};

thread_local! {
    static DIRECTORY: TempDir = tempfile::tempdir().expect("a directory");
}

pub(crate) struct Device {
    /// Of a console.
    size: Option<ConsoleSize>,
    address: SocketAddrUnix,
    streams: Streams,
}

#[derive(Arbitrary, Debug)]
pub(crate) struct Options {
    is_console: bool,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Host {
    /// Connects, and says something.
    Connect([u8; 4]),
    /// Connects several times, and says nothing.
    Crowd(u8),
    Use(Use),
    Resize(u16, u16),
}

const CONTROL_RECEIVE: u16 = 2;
const CONTROL_TRANSMIT: u16 = 3;
const DEVICE_READY: u16 = 0;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

/// A control message.
fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

impl Subject for Device {
    type Options = Options;
    type Host = Host;
    type Model = Console;

    const QUEUES: u16 = 6;

    fn prepare() {
        DIRECTORY.with(|_| {});
    }

    /// A client stays with its socket across resets: each device has a socket of its own.
    fn open(Options { is_console }: Options) -> Option<(Self, Console)> {
        let path: PathBuf = DIRECTORY.with(|directory| directory.path().join("socket"));
        let socket = Arc::new(PortSocket::listen(&path).expect("a socket"));
        let address = SocketAddrUnix::new(&path).expect("a path");
        let size = is_console.then(|| ConsoleSize::new().expect("an eventfd"));
        let ports = match &size {
            Some(size) => Ports::Console(socket, size.clone()),
            None => Ports::Named(vec![("port".to_owned(), socket)]),
        };
        Some((Device { size, address, streams: Streams::default() }, Console::new(ports)))
    }

    /// A control message, or what is written to a port.
    fn request(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        if input.ratio(1, 4)? {
            return bytes(input, 40);
        }
        let port = if input.ratio(7, 8)? { 1 } else { input.arbitrary()? };
        let event = if input.ratio(1, 8)? {
            input.arbitrary()?
        } else {
            *input.choose(&[DEVICE_READY, PORT_READY, PORT_OPEN, PORT_OPEN])?
        };
        let value = if input.ratio(15, 16)? { input.int_in_range(0..=1)? } else { input.arbitrary()? };
        Ok(message(port, event, value))
    }

    fn host(&mut self, action: Host, _: &mut Machine) {
        match action {
            Host::Connect(bytes) => self.streams.connect(&self.address, &bytes),
            Host::Crowd(count) => (0..count % 8).for_each(|_| self.streams.connect(&self.address, &[])),
            Host::Use(action) => self.streams.carry_out(action),
            Host::Resize(columns, rows) => {
                if let Some(size) = &self.size {
                    size.set(columns, rows);
                }
            }
        }
    }

    /// A client and the guest send each other something.
    fn works(&mut self, machine: &mut Machine) {
        self.streams.clear();
        machine.run();
        self.streams.connect(&self.address, b"input");
        machine.run();
        let (receive, transmit) = if self.size.is_some() { (0, 1) } else { (4, 5) };
        if self.size.is_none() {
            for index in 0..MAX_SIZE {
                machine.make_available(CONTROL_RECEIVE, index, &[Buffer(MEMORY / 2, 0x100, true)]);
            }
            for (number, event) in (0..).zip([DEVICE_READY, PORT_READY, PORT_OPEN]) {
                machine.driver.put(DATA, &message(1, event, 1));
                machine.make_available(CONTROL_TRANSMIT, number, &[Buffer(DATA, 8, false)]);
                assert_eq!(machine.used(CONTROL_TRANSMIT), Some((number.into(), 0)));
            }
        }
        machine.make_available(receive, 0, &[Buffer(MEMORY / 2 + 0x1000, 0x100, true)]);
        assert_eq!(machine.used(receive), Some((0, 5)));
        assert_eq!(machine.driver.bytes(MEMORY / 2 + 0x1000, 5), b"input");
        machine.driver.put(DATA, b"output");
        machine.make_available(transmit, 0, &[Buffer(DATA, 6, false)]);
        assert_eq!(machine.used(transmit), Some((0, 0)));
        assert_eq!(self.streams.received(), b"output");
    }
}
