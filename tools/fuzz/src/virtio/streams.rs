//! The host's ends of connections to a device's socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use arbitrary::Arbitrary;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Non-blocking connections.
#[derive(Default)]
pub(crate) struct Streams(Vec<UnixStream>);

/// What happens to a connection, whose number is taken modulo that of all connections.
#[derive(Arbitrary, Debug)]
pub(crate) enum Use {
    Write(u8, u16),
    Read(u8),
    ShutDown(u8, bool),
    Close(u8),
}

/// The most connections.
const MAX: usize = 100;

impl Streams {
    /// Connects, and sends bytes.
    pub(crate) fn connect(&mut self, address: &SocketAddrUnix, bytes: &[u8]) {
        if self.0.len() >= MAX {
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("socket(2)");
        match connect(&socket, address) {
            Ok(()) => {}
            // The device does not accept clients, and the backlog of its socket is full.
            Err(Errno::AGAIN) => return,
            Err(error) => panic!("connect(2): {error}"),
        }
        let mut stream = UnixStream::from(socket);
        let _ = stream.write(bytes);
        self.0.push(stream);
    }

    pub(crate) fn push(&mut self, stream: UnixStream) {
        stream.set_nonblocking(true).expect("fcntl(2)");
        self.0.push(stream);
    }

    pub(crate) fn carry_out(&mut self, action: Use) {
        let count = self.0.len().max(1);
        let at = match action {
            Use::Write(at, _) | Use::Read(at) | Use::ShutDown(at, _) | Use::Close(at) => {
                usize::from(at) % count
            }
        };
        let Some(stream) = self.0.get_mut(at) else { return };
        // The device may have ended the connection, or may not read.
        match action {
            Use::Write(_, len) => drop(stream.write(&vec![0x33; len.into()])),
            Use::Read(_) => drop(stream.read(&mut [0; 0x1_0000])),
            Use::ShutDown(_, both) => {
                drop(stream.shutdown(if both { Shutdown::Both } else { Shutdown::Write }));
            }
            Use::Close(_) => drop(self.0.swap_remove(at)),
        }
    }

    /// Closes all of them.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What the first of them receives.
    pub(crate) fn received(&mut self) -> Vec<u8> {
        let mut bytes = [0; 64];
        let len = self.0[0].read(&mut bytes).expect("bytes");
        bytes[..len].to_vec()
    }
}
