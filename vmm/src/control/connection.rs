//! The connection of one client, which never blocks.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use vmm_sys_util::epoll::EventSet;

use super::protocol::{refusal, response};
use super::{CLIENT_TIMEOUT, Later, MAX_REQUEST_LEN, Reply, Request};

/// A client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// The beginning of a request. Complete requests stay in the socket until their turn.
    request: Vec<u8>,
    /// The client sends no further request.
    input_ended: bool,
    response: Response,
    /// The outcome of a request that is being carried out. Nothing is read from the client meanwhile.
    outcome: Option<Later>,
    /// When the client must have sent the rest of its request, or read the rest of the response.
    deadline: Option<Instant>,
    /// Since when the client has completed no request.
    idle_since: Instant,
}

/// A response that the client is reading. Empty if there is none.
#[derive(Debug, Default)]
struct Response {
    bytes: Vec<u8>,
    written: usize,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connected {
    Yes,
    /// It is to be closed.
    No,
    /// The client follows the events from now on.
    Follows,
}

/// What a read found.
enum Input {
    Request(Vec<u8>),
    TooLong,
    /// The rest of a request has not arrived yet.
    Incomplete,
    /// There will be no further request.
    Ended,
}

impl Connection {
    /// A client that has just connected, and is sent the greeting. Its stream does not block. `None` if it has gone.
    pub(super) fn new(stream: UnixStream, greeting: &str) -> Option<Self> {
        let mut connection = Connection {
            stream,
            request: Vec::new(),
            input_ended: false,
            response: Response::default(),
            outcome: None,
            deadline: None,
            idle_since: Instant::now(),
        };
        let connected = connection.respond(greeting.into());
        (connected == Connected::Yes).then_some(connection)
    }

    /// The stream of a client whose responses are all written.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// What it waits for: requests, or room for the rest of a response. Its end is always reported.
    pub(super) fn interest(&self) -> EventSet {
        match (self.unread(), &self.outcome) {
            (0, None) => EventSet::IN,
            (0, Some(_)) => EventSet::empty(),
            _ => EventSet::OUT,
        }
    }

    /// Whether it waits for the outcome of a request.
    pub(super) fn awaits_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    /// Sends the response to the request that was being carried out, if its outcome is known.
    pub(super) fn finish(&mut self) -> Connected {
        match self.outcome.as_ref().and_then(Later::take) {
            Some(outcome) => {
                self.outcome = None;
                self.respond(response(outcome).into())
            }
            None => Connected::Yes,
        }
    }

    /// Bytes of the response that are not written yet.
    pub(super) fn unread(&self) -> usize {
        self.response.bytes.len() - self.response.written
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Handles readiness: writes what is left of a response, or carries out one request. Further requests cause further events, so that
    /// clients take turns.
    pub(super) fn process(
        &mut self,
        events: EventSet,
        handle: &mut dyn FnMut(Request) -> Reply,
    ) -> Connected {
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            return Connected::No;
        }
        if self.unread() > 0 {
            return self.write();
        }
        if self.awaits_outcome() {
            return Connected::Yes;
        }
        match self.read() {
            // An earlier request may have taken long.
            Ok(Input::Request(_)) if self.has_hung_up() => Connected::No,
            Ok(Input::Request(line)) => match Request::parse(&line) {
                Ok(Request::Events { follow: true }) => Connected::Follows,
                Ok(request) => match handle(request) {
                    Reply::Now(outcome) => self.respond(response(outcome).into()),
                    Reply::Later(outcome) => {
                        self.outcome = Some(outcome);
                        self.deadline = None;
                        Connected::Yes
                    }
                },
                Err(reason) => self.respond(refusal(&reason).into()),
            },
            Ok(Input::TooLong) => {
                self.close_with(&format!("the request has more than {MAX_REQUEST_LEN} bytes"));
                Connected::No
            }
            Ok(Input::Incomplete) => {
                if !self.request.is_empty() {
                    self.deadline.get_or_insert_with(|| Instant::now() + CLIENT_TIMEOUT);
                }
                Connected::Yes
            }
            Ok(Input::Ended) => Connected::No,
            Err(error) => {
                tracing::debug!(%error, "recv(2) from a client of the control socket failed");
                Connected::No
            }
        }
    }

    /// Ends the connection after its deadline.
    pub(super) fn expire(&mut self) {
        if self.unread() == 0 {
            self.close_with(&format!("the request was not complete within {CLIENT_TIMEOUT:?}"));
        }
    }

    /// Sends the client the reason why its connection is closed, if it can take that immediately.
    pub(super) fn close_with(&mut self, reason: &str) {
        // An error means that the client does not read.
        let _ = (&self.stream).write(refusal(reason).as_bytes());
    }

    /// Takes the next request from the socket, and nothing behind it.
    fn read(&mut self) -> io::Result<Input> {
        let mut chunk = [0; 4096];
        loop {
            let len = match recv(&self.stream, &mut chunk, RecvFlags::PEEK) {
                Ok((len, _)) => len,
                Err(Errno::AGAIN) => return Ok(Input::Incomplete),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            self.input_ended = len == 0;
            if self.input_ended && self.request.is_empty() {
                return Ok(Input::Ended);
            }
            let peeked = chunk.get(..len).unwrap_or_default();
            let line_end = peeked.iter().position(|byte| *byte == b'\n');
            let taken = line_end.map_or(len, |end| end + 1);
            self.request.extend_from_slice(peeked.get(..line_end.unwrap_or(len)).unwrap_or_default());
            // The bytes that were looked at are there: this neither waits nor takes others.
            recv(&self.stream, chunk.get_mut(..taken).unwrap_or_default(), RecvFlags::empty())?;
            if self.request.len() > MAX_REQUEST_LEN {
                return Ok(Input::TooLong);
            }
            if line_end.is_some() || self.input_ended {
                return Ok(Input::Request(std::mem::take(&mut self.request)));
            }
        }
    }

    /// Whether the client has closed its socket. One that only sends no further request has not.
    fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.stream, PollFlags::empty())];
        // It does not wait.
        let outcome = poll(&mut polled, Some(&Timespec::default()));
        outcome.is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Sends a response, as far as the socket takes it.
    pub(super) fn respond(&mut self, bytes: Vec<u8>) -> Connected {
        self.response = Response { bytes, written: 0 };
        self.idle_since = Instant::now();
        self.deadline = Some(self.idle_since + CLIENT_TIMEOUT);
        self.write()
    }

    /// Writes as much of the response as the socket takes.
    fn write(&mut self) -> Connected {
        while let Some(rest @ [_, ..]) = self.response.bytes.get(self.response.written..) {
            match (&self.stream).write(rest) {
                Ok(len) => self.response.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Connected::Yes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "write(2) to a client of the control socket failed");
                    return Connected::No;
                }
            }
        }
        self.response = Response::default();
        self.deadline = None;
        if self.input_ended { Connected::No } else { Connected::Yes }
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
