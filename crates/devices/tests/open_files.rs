//! A device whose process cannot open another file.

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
use std::sync::Arc;
use std::time::Duration;

use devices::virtio_vsock::{HostSocket, Vsock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::rings::Rings;

/// Clients that cannot be accepted wait, and the guest has to do nothing for them.
#[test]
fn clients_of_a_socket_device_are_accepted_once_files_can_be_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vsock");
    let host = HostSocket::listen(&path).expect("a socket");
    let mut rings = Rings::new(Vsock::new(52, Arc::new(host)));
    rings.start(1, 3);

    let client = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("socket(2)");
    let next = File::open("/dev/null").expect("/dev/null").as_raw_fd();
    let limit = getrlimit(Resource::Nofile);
    let lowered = Rlimit { current: Some(next as u64), ..limit };
    setrlimit(Resource::Nofile, lowered).expect("setrlimit(2)");
    connect(&client, &SocketAddrUnix::new(&path).expect("a path")).expect("the device listens");
    let mut client = UnixStream::from(client);
    client.write_all(b"not a request\n").expect("sent");
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("setsockopt(2)");
    let waits = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(waits, Err(ErrorKind::WouldBlock), "it is not accepted");

    setrlimit(Resource::Nofile, limit).expect("setrlimit(2)");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("setsockopt(2)");
    let closed = client.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(closed, Ok(0) | Err(ErrorKind::ConnectionReset)), "{closed:?}");
}
