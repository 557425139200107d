//! The client's side.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::protocol::VERSION;
use super::{Greeting, MAX_RESPONSE_LEN, Request};

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
    /// The machine has another version of the protocol.
    #[error(
        "the machine has version {0} of the control protocol, and this program version {VERSION}: use the `ghest` that booted it"
    )]
    Version(u32),
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

/// A connection to a running machine.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// What was read behind the last line.
    unread: Vec<u8>,
    /// How long it waits for each line.
    timeout: Duration,
}

impl Client {
    /// Connects to a machine and reads its greeting. This takes, and later each response, no longer than `timeout`.
    ///
    /// # Errors
    /// Returns an error if no process listens at `path`, if it does not accept the connection in time, or if it is not a machine of
    /// this version of the protocol.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, RequestFailed> {
        let deadline = Instant::now() + timeout;
        let address = SocketAddrUnix::new(path).map_err(|errno| RequestFailed::Connect(errno.into()))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let call = |call| move |source| RequestFailed::Call { call, source };
        let stream = UnixStream::from(socket.map_err(|errno| call("socket(2)")(errno.into()))?);
        // It also limits connect(2), which waits while the machine accepts no connection.
        stream.set_write_timeout(Some(timeout)).map_err(call("setsockopt(2)"))?;
        connect(&stream, &address).map_err(|errno| match errno {
            Errno::AGAIN => RequestFailed::TimedOut(timeout),
            errno => RequestFailed::Connect(errno.into()),
        })?;
        let mut client = Client { stream, unread: Vec::new(), timeout };
        let greeting: Greeting = client.line(Some(deadline))?;
        if greeting.version == VERSION { Ok(client) } else { Err(RequestFailed::Version(greeting.version)) }
    }

    /// Sends a request and returns its response.
    ///
    /// # Errors
    /// Returns an error if there is no response in time, or if it is not one of a machine.
    pub fn request(&mut self, request: &Request) -> Result<Value, RequestFailed> {
        let deadline = Instant::now() + self.timeout;
        self.send(request)?;
        self.line(Some(deadline))
    }

    /// Sends a request whose [response](Self::next_line) may take long.
    ///
    /// # Errors
    /// Returns an error if the machine does not take it.
    pub fn send(&mut self, request: &Request) -> Result<(), RequestFailed> {
        let line = serde_json::to_string(request).map_err(RequestFailed::NotJson)?;
        let written = self.stream.write_all(format!("{line}\n").as_bytes());
        written.map_err(|source| self.failed("write(2)", source))
    }

    /// The next line of the machine, for which it waits until the deadline, or as long as it takes: a response, or an event for a client
    /// that follows them.
    ///
    /// # Errors
    /// Returns [`RequestFailed::Closed`] if the process has ended, and other errors if there is none in time or if it is not JSON. After
    /// [`RequestFailed::TimedOut`] it can be called again.
    pub fn next_line(&mut self, deadline: Option<Instant>) -> Result<Value, RequestFailed> {
        self.line(deadline)
    }

    fn failed(&self, call: &'static str, source: io::Error) -> RequestFailed {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => RequestFailed::TimedOut(self.timeout),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => RequestFailed::Closed,
            _ => RequestFailed::Call { call, source },
        }
    }

    /// Reads a line.
    fn line<T: DeserializeOwned>(&mut self, deadline: Option<Instant>) -> Result<T, RequestFailed> {
        let mut chunk = vec![0; 64 << 10];
        let mut searched = 0;
        loop {
            let unsearched = self.unread.get(searched..).unwrap_or_default();
            let line_end = unsearched.iter().position(|byte| *byte == b'\n').map(|end| searched + end);
            if line_end.unwrap_or(self.unread.len()) > MAX_RESPONSE_LEN {
                return Err(RequestFailed::TooLong);
            }
            if let Some(end) = line_end {
                let line = self.unread.get(..end).unwrap_or_default();
                let value = serde_json::from_slice(line).map_err(RequestFailed::NotJson);
                self.unread.drain(..=end);
                return value;
            }
            searched = self.unread.len();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(RequestFailed::TimedOut(self.timeout));
            }
            let limited = self.stream.set_read_timeout(left);
            limited.map_err(|source| self.failed("setsockopt(2)", source))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(RequestFailed::Closed),
                Ok(len) => self.unread.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read(2)", error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn send_request(path: &Path, timeout: Duration) -> Result<Value, RequestFailed> {
        Client::connect(path, timeout)?.request(&Request::Status)
    }

    /// The outcome of a request to a machine that does this with the connection, after the greeting.
    fn outcome(timeout_ms: u64, serve: impl FnOnce(UnixStream) + Send) -> Result<Value, RequestFailed> {
        greeted(Greeting::of("test"), timeout_ms, serve)
    }

    fn greeted(
        greeting: Greeting,
        timeout_ms: u64,
        serve: impl FnOnce(UnixStream) + Send,
    ) -> Result<Value, RequestFailed> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("listens");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = listener.accept().expect("a client").0;
                client.write_all(greeting.line().as_bytes()).expect("a client");
                let mut request = String::new();
                BufReader::new(&client).read_line(&mut request).expect("a request, or the end");
                serve(client);
            });
            send_request(&path, Duration::from_millis(timeout_ms))
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
    fn a_machine_of_another_version_is_refused() {
        let greeting = Greeting { version: 2, ..Greeting::of("test") };
        let newer = greeted(greeting, 20_000, drop);
        assert!(matches!(newer, Err(RequestFailed::Version(2))), "{newer:?}");
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
        let outcome = send_request(&path, Duration::from_millis(50));
        assert!(matches!(outcome, Err(RequestFailed::TimedOut(_))), "{outcome:?}");
        drop(listener);
        let outcome = send_request(&path, Duration::from_secs(20));
        assert!(matches!(outcome, Err(RequestFailed::Connect(_))), "{outcome:?}");
    }
}
