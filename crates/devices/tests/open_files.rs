//! Devices whose process cannot open another file.

#[path = "virtio/driver.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod driver;
#[path = "virtio/rings.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod rings;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devices::ConsoleSize;
use devices::virtio_console::{Console, PortSocket, Ports};
use devices::virtio_vsock::{HostSocket, Vsock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::driver::{Buffer, WRITE};
use crate::rings::{Rings, part};

/// The limit of open files is that of the process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TESTS: Mutex<()> = Mutex::new(());
    TESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client of the socket at a path that sends something and is not accepted, while `busy` runs: no file can be opened. Afterwards
/// files can be opened again.
fn waiting_client(path: &Path, sent: &[u8], busy: impl FnOnce()) -> UnixStream {
    let client = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("socket(2)");
    let next = File::open("/dev/null").expect("/dev/null").as_raw_fd();
    let limit = getrlimit(Resource::Nofile);
    let lowered = Rlimit { current: Some(next as u64), ..limit };
    setrlimit(Resource::Nofile, lowered).expect("setrlimit(2)");
    connect(&client, &SocketAddrUnix::new(path).expect("a path")).expect("the device listens");
    let mut client = UnixStream::from(client);
    client.write_all(sent).expect("sent");
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("setsockopt(2)");
    let waits = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(waits, Err(ErrorKind::WouldBlock), "it is not accepted");
    busy();
    setrlimit(Resource::Nofile, limit).expect("setrlimit(2)");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("setsockopt(2)");
    client
}

/// Clients that cannot be accepted wait, and the guest has to do nothing for them.
#[test]
fn clients_of_a_socket_device_are_accepted_once_files_can_be_opened_again() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vsock");
    let host = HostSocket::listen(&path).expect("a socket");
    let mut rings = Rings::new(Vsock::new(52, Arc::new(host)));
    rings.start(1, 3);

    let mut client = waiting_client(&path, b"not a request\n", || {});
    let closed = client.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(closed, Ok(0) | Err(ErrorKind::ConnectionReset)), "{closed:?}");
}

/// The same, also if the guest writes meanwhile.
#[test]
fn clients_of_a_console_are_accepted_once_files_can_be_opened_again() {
    const RECEIVE: u32 = 0;
    const TRANSMIT: u32 = 1;
    const DATA: u64 = 0x3_0000;
    const OUTPUT: u64 = 0x3_1000;

    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("console");
    let port = PortSocket::listen(&path).expect("a socket");
    let size = ConsoleSize::new().expect("an eventfd");
    let mut rings = Rings::new(Console::new(Ports::Console(Arc::new(port), size)));
    rings.start(1, 2);
    rings.driver.descriptor(part(RECEIVE, 0), 0, DATA, 0x100, WRITE, 0);
    rings.offer(RECEIVE, 0);

    let mut client = waiting_client(&path, b"input", || {
        rings.driver.put(OUTPUT, b"early");
        assert_eq!(rings.request(TRANSMIT, &[Buffer(OUTPUT, 5, false)]), 0);
    });
    assert_eq!(rings.used(RECEIVE), (0, 5));
    assert_eq!(rings.driver.bytes(DATA, 5), b"input");
    rings.driver.put(OUTPUT, b"late");
    assert_eq!(rings.request(TRANSMIT, &[Buffer(OUTPUT, 4, false)]), 0);
    let mut received = [0; 4];
    client.read_exact(&mut received).expect("output");
    assert_eq!(&received, b"late", "what was written without a client was dropped");
}
