//! A client of the host that has connected to the device's socket, until it has said which port of the guest it wants.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Bytes of the longest request, with its line end: `CONNECT 4294967295`.
const MAX_REQUEST: usize = 19;

/// A client that has not sent a whole request.
pub(super) struct Client(pub(super) OwnedFd);

/// What is known of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It has not sent a whole line.
    Incomplete,
    /// It asks for this port. Only its request has been read.
    Port(u32),
    /// It has sent something else, or is gone.
    Invalid,
}

impl Client {
    /// Reads the request, if all of it is there.
    pub(super) fn read(&self) -> Asked {
        let mut bytes = [0; MAX_REQUEST];
        // What follows the request is data of the connection, and stays in the socket.
        let len = match recv(&self.0, &mut bytes, RecvFlags::PEEK) {
            Ok((0, _)) => return Asked::Invalid,
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Asked::Incomplete,
            Err(_) => return Asked::Invalid,
        };
        let Some(end) = bytes[..len].iter().position(|&byte| byte == b'\n') else {
            return if len < MAX_REQUEST { Asked::Incomplete } else { Asked::Invalid };
        };
        match (port(&bytes[..end]), recv(&self.0, &mut bytes[..=end], RecvFlags::empty())) {
            (Some(port), Ok(_)) => Asked::Port(port),
            _ => Asked::Invalid,
        }
    }
}

/// The port of a request, without its line end.
fn port(request: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(request).ok()?.strip_prefix("CONNECT ")?;
    // parse() accepts a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("fcntl(2)");
        (Client(ours.into()), theirs)
    }

    #[test]
    fn a_request_is_read_and_no_byte_more() {
        let (client, mut peer) = pair();
        assert_eq!(client.read(), Asked::Incomplete);
        for part in ["CONN", "ECT 429496", "7295"] {
            peer.write_all(part.as_bytes()).expect("sent");
            assert_eq!(client.read(), Asked::Incomplete, "{part}");
        }
        peer.write_all(b"\ndata").expect("sent");
        assert_eq!(client.read(), Asked::Port(u32::MAX));
        let mut rest = [0; 4];
        UnixStream::from(client.0).read_exact(&mut rest).expect("data");
        assert_eq!(&rest, b"data");
    }

    #[test]
    fn everything_else_is_invalid() {
        for request in [
            "CONNECT 4294967296\n",
            "CONNECT -1\n",
            "CONNECT +1\n",
            "CONNECT \n",
            "CONNECT  1\n",
            "connect 1\n",
            "\n",
            "CONNECT 00000000000000000001\n",
            "GET / HTTP/1.1\r\n",
            "\u{ff}\u{ff}\n",
        ] {
            let (client, mut peer) = pair();
            peer.write_all(request.as_bytes()).expect("sent");
            assert_eq!(client.read(), Asked::Invalid, "{request:?}");
        }
        let (client, _) = pair();
        assert_eq!(client.read(), Asked::Invalid, "it is gone");
    }
}
