//! The client's side.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;

use super::{MAX_RESPONSE_LEN, Request};

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailed {
    /// No process listens at the socket.
    #[error("no machine listens there: connect(2): {0}")]
    Connect(io::Error),
    /// The machine does not accept the connection, or does not respond.
    #[error("no response within {0:?}")]
    TimedOut(Duration),
    /// The machine closed the connection.
    #[error("the connection was closed without a response: the machine has ended")]
    Closed,
    /// The response is not the machine's.
    #[error("the response has more than {MAX_RESPONSE_LEN} bytes")]
    TooLong,
    /// The response is not JSON.
    #[error("the response is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// A system call failed.
    #[error("{call}: {source}")]
    Call {
        /// The system call.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

/// Sends a request to a running machine and returns its response, for which it waits no longer than `timeout`.
///
/// # Errors
/// Returns an error if no process listens at `path`, if there is no response in time, or if it is not one of a machine.
pub fn send_request(path: &Path, request: Request, timeout: Duration) -> Result<Value, RequestFailed> {
    let deadline = Instant::now() + timeout;
    let failed = |call| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => RequestFailed::TimedOut(timeout),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => RequestFailed::Closed,
            _ => RequestFailed::Call { call, source },
        }
    };
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(RequestFailed::TimedOut(timeout)) } else { Ok(Some(left)) }
    };
    let address = SocketAddrUnix::new(path).map_err(|errno| RequestFailed::Connect(errno.into()))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let mut stream = UnixStream::from(socket.map_err(|errno| failed("socket(2)")(errno.into()))?);
    // It also limits connect(2), which waits while the machine accepts no connection.
    stream.set_write_timeout(left()?).map_err(failed("setsockopt(2)"))?;
    connect(&stream, &address).map_err(|errno| match errno {
        Errno::AGAIN => RequestFailed::TimedOut(timeout),
        errno => RequestFailed::Connect(errno.into()),
    })?;
    let line = serde_json::to_string(&request).map_err(RequestFailed::NotJson)?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(failed("write(2)"))?;
    let mut response = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        stream.set_read_timeout(left()?).map_err(failed("setsockopt(2)"))?;
        let len = match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome.map_err(failed("read(2)"))?,
        };
        let part = chunk.get(..len).unwrap_or_default();
        let line_end = part.iter().position(|byte| *byte == b'\n');
        response.extend_from_slice(part.get(..line_end.unwrap_or(len)).unwrap_or_default());
        match line_end {
            _ if response.len() > MAX_RESPONSE_LEN => return Err(RequestFailed::TooLong),
            Some(_) => return serde_json::from_slice(&response).map_err(RequestFailed::NotJson),
            None if len == 0 => return Err(RequestFailed::Closed),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The outcome of a request to a machine that does this with the connection.
    fn outcome(timeout_ms: u64, serve: impl FnOnce(UnixStream) + Send) -> Result<Value, RequestFailed> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("listens");
        std::thread::scope(|scope| {
            scope.spawn(|| serve(listener.accept().expect("a client").0));
            send_request(&path, Request::Status, Duration::from_millis(timeout_ms))
        })
    }

    #[test]
    fn a_machine_that_does_not_respond_costs_its_client_the_timeout() {
        let silent = outcome(50, |mut stream| {
            // Until the client has gone.
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        assert!(matches!(silent, Err(RequestFailed::TimedOut(_))), "{silent:?}");
        let trickle = outcome(300, |mut stream| {
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(matches!(trickle, Err(RequestFailed::TimedOut(_))), "{trickle:?}");
    }

    #[test]
    fn a_response_is_bounded_and_has_to_be_json() {
        let endless = outcome(20_000, |mut stream| while stream.write_all(&[b'x'; 65536]).is_ok() {});
        assert!(matches!(endless, Err(RequestFailed::TooLong)), "{endless:?}");
        let text = outcome(20_000, |mut stream| stream.write_all(b"hello\n").expect("a client"));
        assert!(matches!(text, Err(RequestFailed::NotJson(_))), "{text:?}");
        let closed = outcome(20_000, drop);
        assert!(matches!(closed, Err(RequestFailed::Closed)), "{closed:?}");
    }

    #[test]
    fn a_socket_that_accepts_no_connection_costs_its_client_the_timeout() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let address = SocketAddrUnix::new(&path).expect("an address");
        let new =
            |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket");
        let listener = new(SocketFlags::CLOEXEC);
        rustix::net::bind(&listener, &address).expect("binds");
        rustix::net::listen(&listener, 0).expect("listens");
        let mut waiting = vec![new(SocketFlags::NONBLOCK)];
        while connect(waiting.last().expect("one"), &address).is_ok() {
            waiting.push(new(SocketFlags::NONBLOCK));
        }
        let outcome = send_request(&path, Request::Status, Duration::from_millis(50));
        assert!(matches!(outcome, Err(RequestFailed::TimedOut(_))), "{outcome:?}");
        drop(listener);
        let outcome = send_request(&path, Request::Status, Duration::from_secs(20));
        assert!(matches!(outcome, Err(RequestFailed::Connect(_))), "{outcome:?}");
    }
}
