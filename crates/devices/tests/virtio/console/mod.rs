//! Consoles and named ports: a driver on one side, clients of Unix sockets on the other one.

mod clients;
mod hostile;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::ConsoleSize;
use devices::virtio_console::{Console, PortSocket, Ports};
use guest_memory::Backing;
use tempfile::TempDir;

use crate::driver::*;
use crate::rings::{Rings, SIZE, part, until};

const SIZE_FEATURE: u64 = 1 << 0;
const MULTIPORT: u64 = 1 << 1;

const CONTROL_RECEIVE: u32 = 2;
const CONTROL_TRANSMIT: u32 = 3;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// `id` of a message that is not about a port.
const NO_PORT: u32 = u32::MAX;

/// The receive and the transmit queue of a port.
fn queues(port: u32) -> (u32, u32) {
    if port == 0 { (0, 1) } else { (2 * port + 2, 2 * port + 3) }
}

const RECEIVE_LEN: u32 = 0x400;
fn receive_buffer(queue: u32, index: u16) -> u64 {
    0x3_0000 + 0x4000 * u64::from(queue) + u64::from(RECEIVE_LEN) * u64::from(index)
}

const TRANSMIT: u64 = 0x5_0000;
/// 64 KiB.
const MUCH: u64 = 0x6_0000;
const NAMES: [&str; 2] = ["org.qemu.guest_agent.0", "two"];

/// A control message: port, event, value, and what follows.
type Message = (u32, u16, u16, Vec<u8>);

fn message(port: u32, event: u16, value: u16) -> Message {
    (port, event, value, Vec::new())
}

/// A guest's driver, with the sockets of its device.
struct Guest {
    rings: Rings,
    features: u64,
    queues: u32,
    directory: TempDir,
}

impl Guest {
    fn console(backing: Backing) -> (Self, ConsoleSize) {
        let (directory, socket) = socket(None);
        let size = ConsoleSize::new().expect("an eventfd");
        let device = Console::new(Ports::Console(socket, size.clone()));
        let rings = Rings::of(Driver::in_memory(device, backing));
        let mut guest = Guest { rings, features: SIZE_FEATURE, queues: 2, directory };
        guest.start();
        (guest, size)
    }

    /// A console that is the VMM's terminal, and the VMM's end.
    fn terminal() -> (Self, UnixStream) {
        let (device, vmm) = UnixStream::pair().expect("a socket pair");
        vmm.set_read_timeout(Some(Duration::from_secs(20))).expect("setsockopt(2)");
        let socket = PortSocket::connected(device).expect("a socket");
        let size = ConsoleSize::new().expect("an eventfd");
        let device = Console::new(Ports::Console(Arc::new(socket), size));
        let rings = Rings::of(Driver::in_memory(device, Backing::Anonymous));
        let directory = TempDir::new().expect("a directory");
        let mut guest = Guest { rings, features: SIZE_FEATURE, queues: 2, directory };
        guest.start();
        (guest, vmm)
    }

    fn named(backing: Backing) -> Self {
        let (directory, first) = socket(None);
        let (directory, second) = socket(Some(directory));
        let ports = NAMES.map(str::to_owned).into_iter().zip([first, second]).collect();
        let rings = Rings::of(Driver::in_memory(Console::new(Ports::Named(ports)), backing));
        let mut guest = Guest { rings, features: MULTIPORT, queues: 8, directory };
        guest.start();
        guest
    }

    /// Named ports that the driver has added. No buffer for input is available.
    fn with_ports() -> Self {
        let mut guest = Guest::named(Backing::Anonymous);
        guest.add_ports();
        guest
    }

    fn start(&mut self) {
        self.rings.start(self.features, self.queues);
    }

    fn add_ports(&mut self) {
        self.offer_receive_buffers(CONTROL_RECEIVE);
        self.control(NO_PORT, DEVICE_READY, 1);
        for port in [1, 2] {
            assert_eq!(self.message(), message(port, PORT_ADD, 1));
        }
        for port in [1, 2] {
            self.control(port, PORT_READY, 1);
            let name = NAMES[port as usize - 1].as_bytes().to_vec();
            assert_eq!(self.message(), (port, PORT_NAME, 1, name));
        }
    }

    /// A client of a port, of which the guest is notified.
    fn connected(&mut self, port: u32) -> UnixStream {
        let client = self.client(port);
        assert_eq!(self.message(), message(port, PORT_OPEN, 1));
        client
    }

    fn client(&self, port: u32) -> UnixStream {
        let path = self.directory.path().join(port.saturating_sub(1).to_string());
        let stream = UnixStream::connect(path).expect("the device listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("setsockopt(2)");
        stream
    }

    fn offer_receive_buffers(&mut self, queue: u32) {
        (0..SIZE).for_each(|index| self.offer_receive_buffer(queue, index));
    }

    fn offer_receive_buffer(&mut self, queue: u32, index: u16) {
        self.rings.driver.descriptor(
            part(queue, 0),
            index,
            receive_buffer(queue, index),
            RECEIVE_LEN,
            WRITE,
            0,
        );
        self.rings.offer(queue, index);
    }

    /// Sends a control message.
    fn control(&mut self, port: u32, event: u16, value: u16) {
        let bytes = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        self.rings.driver.put(TRANSMIT, &bytes);
        assert_eq!(self.rings.request(CONTROL_TRANSMIT, &[Buffer(TRANSMIT, 8, false)]), 0);
    }

    /// Receives a buffer, and makes it available again.
    fn received(&mut self, queue: u32) -> Vec<u8> {
        let (index, len) = self.rings.used(queue);
        let bytes = self.rings.driver.bytes(receive_buffer(queue, index), len as usize);
        self.offer_receive_buffer(queue, index);
        bytes
    }

    /// Receives a control message.
    fn message(&mut self) -> Message {
        let bytes = self.received(CONTROL_RECEIVE);
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"));
        (u32::from(half(0)) | u32::from(half(2)) << 16, half(4), half(6), bytes[8..].to_vec())
    }

    /// Writes to a port, and waits until the device has taken it.
    fn write(&mut self, port: u32, bytes: &[u8]) {
        self.rings.driver.put(TRANSMIT, bytes);
        let (_, queue) = queues(port);
        assert_eq!(self.rings.request(queue, &[Buffer(TRANSMIT, bytes.len() as u32, false)]), 0);
    }

    /// Writes 64 KiB of these bytes to a port, and does not wait.
    fn write_much(&mut self, port: u32, byte: u8) {
        self.rings.driver.put(MUCH, &[byte; 0x1_0000]);
        let (_, queue) = queues(port);
        self.rings.driver.chain(part(queue, 0), &[Buffer(MUCH, 0x1_0000, false)]);
        self.rings.offer(queue, 0);
    }

    /// Writes to a port until its client has received something.
    fn until_received(&mut self, port: u32, client: &mut UnixStream) {
        let deadline = Instant::now() + Duration::from_secs(20);
        client.set_nonblocking(true).expect("fcntl(2)");
        while client.read(&mut [0]).is_err() {
            assert!(Instant::now() < deadline, "the client receives nothing");
            self.write(port, b"!");
        }
        client.set_nonblocking(false).expect("fcntl(2)");
    }

    /// Nothing is wrong with the device: no message waits, and it needs no reset.
    fn assert_silence(&mut self) {
        assert!(!self.rings.is_used(CONTROL_RECEIVE));
        assert_eq!(self.rings.driver.read(STATUS) & NEEDS_RESET, 0);
    }
}

/// A socket of the directory, by its number.
fn socket(directory: Option<TempDir>) -> (TempDir, Arc<PortSocket>) {
    let number = usize::from(directory.is_some()).to_string();
    let directory = directory.unwrap_or_else(|| tempfile::tempdir().expect("a directory"));
    let socket = PortSocket::listen(&directory.path().join(number)).expect("listens");
    (directory, Arc::new(socket))
}

fn read(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("bytes");
    bytes
}

#[test]
fn a_console_carries_bytes_both_ways() {
    let (mut guest, _) = Guest::console(Backing::Anonymous);
    assert_eq!(guest.rings.driver.offered() & 0xff_ffff, SIZE_FEATURE);
    let mut client = guest.client(0);
    // What the guest has written before the device knows of the client is dropped.
    client.write_all(b"hello").expect("sent");
    guest.offer_receive_buffer(0, 3);
    assert_eq!(guest.received(0), b"hello");
    guest.write(0, b"login: ");
    assert_eq!(read(&mut client, 7), b"login: ");
    // In pieces that the socket would not have space for one by one.
    for number in 0..3000 {
        guest.write(0, format!("{number:04}").as_bytes());
    }
    let text: String = (0..3000).map(|number| format!("{number:04}")).collect();
    assert_eq!(read(&mut client, text.len()), text.as_bytes());
    guest.assert_silence();
}

#[test]
fn the_size_of_a_console_is_announced_and_survives_a_reset() {
    let (mut guest, size) = Guest::console(Backing::Anonymous);
    let driver = &mut guest.rings.driver;
    assert_eq!((driver.read(CONFIG), driver.read(CONFIG + 4)), (0, 1));
    let generation = driver.read(CONFIG_GENERATION);
    size.set(132, 43);
    until(|| driver.read(CONFIG_GENERATION) != generation);
    assert_eq!(driver.read(INTERRUPT_STATUS) & 2, 2);
    assert_eq!((driver.read(CONFIG), size.get()), (132 | 43 << 16, (132, 43)));
    // Linux reads it when it is notified only: the next driver is, too.
    let generation = driver.read(CONFIG_GENERATION);
    guest.start();
    let driver = &mut guest.rings.driver;
    until(|| driver.read(CONFIG_GENERATION) != generation);
    assert_eq!(driver.read(CONFIG), 132 | 43 << 16);
    // Without a driver, it is what the next one finds.
    driver.write(STATUS, 0);
    size.set(80, 25);
    assert_eq!(driver.read(CONFIG), 80 | 25 << 16);
}

#[test]
fn named_ports_are_added_and_opened() {
    let mut guest = Guest::named(Backing::Anonymous);
    assert_eq!(guest.rings.driver.offered() & 0xff_ffff, MULTIPORT);
    assert_eq!(guest.rings.driver.read(CONFIG + 4), 3);
    guest.add_ports();
    let (receive, _) = queues(1);
    guest.offer_receive_buffers(receive);
    // The guest opens its end before the host does.
    guest.control(1, PORT_OPEN, 1);
    let mut client = guest.connected(1);
    client.write_all(b"ping").expect("sent");
    assert_eq!(guest.received(receive), b"ping");
    guest.write(1, b"pong");
    assert_eq!(read(&mut client, 4), b"pong");
    drop(client);
    assert_eq!(guest.message(), message(1, PORT_OPEN, 0));
    // No client is connected: what the guest writes is dropped.
    guest.write(1, b"dropped");
    let mut client = guest.connected(1);
    client.write_all(b"again").expect("sent");
    assert_eq!(guest.received(receive), b"again");
    guest.write(1, b"again");
    assert_eq!(read(&mut client, 5), b"again");
    // A driver that does not know ports takes port 0 for a console.
    guest.write(0, b"nowhere");
    guest.assert_silence();
}

#[test]
fn input_waits_until_the_guest_opens_the_port() {
    let mut guest = Guest::with_ports();
    let (receive, _) = queues(2);
    guest.offer_receive_buffers(receive);
    let mut client = guest.connected(2);
    client.write_all(b"early").expect("sent");
    guest.write(2, b"the device has looked at the client");
    assert!(!guest.rings.is_used(receive));
    guest.control(2, PORT_OPEN, 1);
    assert_eq!(guest.received(receive), b"early");
    guest.control(2, PORT_OPEN, 0);
    client.write_all(b"late").expect("sent");
    guest.write(2, b"the device has looked at the client");
    assert!(!guest.rings.is_used(receive));
    guest.control(2, PORT_OPEN, 1);
    assert_eq!(guest.received(receive), b"late");
}

#[test]
fn a_client_stays_across_resets() {
    let (mut guest, _) = Guest::console(Backing::Anonymous);
    let mut client = guest.client(0);
    client.write_all(b"1").expect("sent");
    guest.offer_receive_buffers(0);
    assert_eq!(guest.received(0), b"1");
    guest.write(0, b"before");
    guest.start();
    guest.write(0, b" and after");
    assert_eq!(read(&mut client, 16), b"before and after");
    client.write_all(b"2").expect("sent");
    guest.offer_receive_buffers(0);
    assert_eq!(guest.received(0), b"2");

    let mut guest = Guest::with_ports();
    let mut client = guest.connected(1);
    guest.control(1, PORT_OPEN, 1);
    guest.start();
    guest.write(1, b"the port is the driver's at once");
    client.write_all(b"for the next driver").expect("sent");
    guest.offer_receive_buffers(CONTROL_RECEIVE);
    guest.control(NO_PORT, DEVICE_READY, 1);
    guest.control(1, PORT_READY, 1);
    let messages: Vec<_> = (0..4).map(|_| guest.message()).collect();
    assert!(messages.contains(&message(1, PORT_OPEN, 1)), "{messages:?}");
    let (receive, _) = queues(1);
    guest.offer_receive_buffers(receive);
    assert!(!guest.rings.is_used(receive), "the guest has not opened the port");
    guest.control(1, PORT_OPEN, 1);
    assert_eq!(guest.received(receive), b"for the next driver");
    assert_eq!(read(&mut client, 32), b"the port is the driver's at once");
}
