//! One connection between a port of the guest and a Unix socket of the host.
//!
//! It reads from the socket only what the guest's receive buffer has space for, and writes to the socket without waiting: what the
//! socket does not take stays in a backlog, which is part of the receive space that the guest is granted (VIRTIO 1.2, 5.10.6.3).

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use vmm_sys_util::epoll::EventSet;
use zerocopy::little_endian::U32;

use super::packet::{
    CREDIT_REQUEST, CREDIT_UPDATE, Header, NEITHER, NO_RECEIVE, NO_SEND, Ports, REQUEST, RESPONSE, SHUTDOWN,
};
use crate::virtio::{Buffers, CopyError};

/// Bytes that the guest may send before the host's side has read them.
pub const RECEIVE_BUFFER: u32 = 128 << 10;
/// The guest gets a credit update when it can send that many bytes more than it knows of. Less than the whole buffer, so that a guest
/// without credit gets one.
const UPDATE_AFTER: u32 = RECEIVE_BUFFER / 4;
/// A drained backlog keeps no more memory than this.
const KEPT_BACKLOG: usize = 4 << 10;

/// A connection.
pub(super) struct Connection {
    pub(super) ports: Ports,
    socket: OwnedFd,
    state: State,
    /// Whether it is in the queue of connections that may have a packet for the guest.
    pub(super) is_queued: bool,
    /// Whether the socket may have bytes; whether it may take some.
    readable: bool,
    writable: bool,
    /// The socket's peer sends no more; it is gone.
    is_at_end: bool,
    is_hung_up: bool,
    /// The guest's `buf_alloc` and `fwd_cnt`, and the bytes that were sent to it, modulo 2^32.
    guest_buffer: u32,
    guest_forwarded: u32,
    sent: u32,
    is_credit_requested: bool,
    /// Bytes that left the receive buffer, and how many of them the guest knows of, modulo 2^32.
    forwarded: u32,
    reported: u32,
    is_update_requested: bool,
    backlog: VecDeque<u8>,
    /// The flags of the guest's SHUTDOWN packets, and of those that were sent to it.
    guest_shutdown: u32,
    sent_shutdown: u32,
    /// Whether the socket's peer knows that the guest sends no more.
    is_send_shut_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A host's client waits for the guest. `sent`: REQUEST was sent.
    Requesting {
        sent: bool,
    },
    /// The guest waits for RESPONSE.
    Accepting,
    Established,
    /// The guest has closed it and forgotten about it; the host's side has not read everything.
    Lingering,
}

/// What a connection has for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet of this `op` with these `flags`.
    Packet(u16, u32),
    /// What [`Connection::read`] reads: this many bytes at most.
    Data(u32),
}

/// Why a connection ends with RST.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the guest sent more than its credit")]
    Credit,
    #[error("the guest sent data after it had shut down sending, or before the connection was established")]
    Unexpected,
    #[error("a packet's data: {0}")]
    Copy(#[from] CopyError),
}

impl Connection {
    /// A client of the host's asks for a port of the guest.
    pub(super) fn to_guest(ports: Ports, socket: OwnedFd) -> Self {
        Self::new(ports, socket, State::Requesting { sent: false })
    }

    /// The guest's request was accepted.
    pub(super) fn from_guest(ports: Ports, socket: OwnedFd) -> Self {
        Self::new(ports, socket, State::Accepting)
    }

    fn new(ports: Ports, socket: OwnedFd, state: State) -> Self {
        Connection {
            ports,
            socket,
            state,
            is_queued: false,
            readable: true,
            writable: true,
            is_at_end: false,
            is_hung_up: false,
            guest_buffer: 0,
            guest_forwarded: 0,
            sent: 0,
            is_credit_requested: false,
            forwarded: 0,
            reported: 0,
            is_update_requested: false,
            backlog: VecDeque::new(),
            guest_shutdown: 0,
            sent_shutdown: 0,
            is_send_shut_down: false,
        }
    }

    /// What to send next. `None` if nothing for now.
    pub(super) fn next(&self) -> Option<Next> {
        match self.state {
            State::Requesting { sent: false } => return Some(Next::Packet(REQUEST, 0)),
            State::Requesting { sent: true } | State::Lingering => return None,
            State::Accepting => return Some(Next::Packet(RESPONSE, 0)),
            State::Established => {}
        }
        if self.is_update_requested || self.forwarded.wrapping_sub(self.reported) >= UPDATE_AFTER {
            return Some(Next::Packet(CREDIT_UPDATE, 0));
        }
        let wants_to_read = self.readable && !self.is_at_end && self.guest_shutdown & NO_RECEIVE == 0;
        let credit = self.credit();
        if wants_to_read && credit > 0 {
            return Some(Next::Data(credit));
        }
        // After the data: what is left of a peer that is gone is read to its end, and one SHUTDOWN has both flags.
        let due = self.due_shutdown();
        if due & !self.sent_shutdown != 0 {
            return Some(Next::Packet(SHUTDOWN, due));
        }
        (wants_to_read && !self.is_credit_requested).then_some(Next::Packet(CREDIT_REQUEST, 0))
    }

    /// The flags of the SHUTDOWN that says what the host's side does no more.
    fn due_shutdown(&self) -> u32 {
        // What is not read any more has no end.
        let is_at_end = self.is_at_end || self.is_hung_up && self.guest_shutdown & NO_RECEIVE != 0;
        let end = if is_at_end { NO_SEND } else { 0 };
        let hung_up = if self.is_hung_up { NO_RECEIVE } else { 0 };
        end | hung_up
    }

    /// Bytes that the guest's receive buffer has space for.
    fn credit(&self) -> u32 {
        self.guest_buffer.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// Fills `to` from the socket. 0 if it has nothing for now, or has ended.
    pub(super) fn read(&mut self, to: &mut [u8]) -> usize {
        match recv(&self.socket, &mut *to, RecvFlags::empty()) {
            Ok((0, _)) => self.is_at_end = true,
            Ok((len, _)) => return len,
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => (self.is_at_end, self.is_hung_up) = (true, true),
        }
        0
    }

    /// Completes the header of a packet that is about to be sent.
    pub(super) fn complete(&self, header: &mut Header) {
        header.buf_alloc = U32::new(RECEIVE_BUFFER);
        header.fwd_cnt = U32::new(self.forwarded);
    }

    /// A packet was sent, with so many bytes of data.
    pub(super) fn was_sent(&mut self, op: u16, flags: u32, len: u32) {
        self.reported = self.forwarded;
        self.is_update_requested = false;
        self.sent = self.sent.wrapping_add(len);
        match op {
            REQUEST => self.state = State::Requesting { sent: true },
            RESPONSE => self.state = State::Established,
            SHUTDOWN => self.sent_shutdown |= flags,
            CREDIT_REQUEST => self.is_credit_requested = true,
            _ => {}
        }
    }

    /// Takes the guest's receive space from a packet.
    pub(super) fn update_credit(&mut self, header: &Header) {
        let now = (header.buf_alloc.get(), header.fwd_cnt.get());
        // A guest that has read nothing answers a request with what is known: to ask again would never end.
        self.is_credit_requested &= now == (self.guest_buffer, self.guest_forwarded);
        (self.guest_buffer, self.guest_forwarded) = now;
    }

    /// The guest asks for a credit update.
    pub(super) fn request_update(&mut self) {
        self.is_update_requested = true;
    }

    /// The guest has accepted the connection: the client gets `OK`, with the port of its side.
    ///
    /// # Errors
    /// Returns an error if nobody asked for it.
    pub(super) fn accepted(&mut self) -> Result<(), Broken> {
        if self.state != (State::Requesting { sent: true }) {
            return Err(Broken::Unexpected);
        }
        self.state = State::Established;
        let greeting = format!("OK {}\n", self.ports.host);
        // An empty socket has space for it.
        if send(&self.socket, greeting.as_bytes(), SendFlags::NOSIGNAL) != Ok(greeting.len()) {
            self.is_hung_up = true;
        }
        Ok(())
    }

    /// Receives data of the guest.
    ///
    /// # Errors
    /// Returns an error if the guest may not send so much now, or the bytes cannot be read from its memory.
    pub(super) fn receive(
        &mut self,
        len: u32,
        from: &mut Buffers<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Broken> {
        if self.state != State::Established || self.guest_shutdown & NO_SEND != 0 {
            return Err(Broken::Unexpected);
        }
        let mut left = len as usize;
        if left > RECEIVE_BUFFER as usize - self.backlog.len() {
            return Err(Broken::Credit);
        }
        while left > 0 {
            let chunk = &mut scratch[..left.min(super::SCRATCH_LEN)];
            from.read(chunk)?;
            left -= chunk.len();
            let written = if self.backlog.is_empty() { self.write(chunk) } else { 0 };
            self.backlog.extend(&chunk[written..]);
        }
        Ok(())
    }

    /// Writes bytes to the socket. Returns how many are dealt with.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() && self.writable && !self.is_hung_up {
            match send(&self.socket, &bytes[done..], SendFlags::NOSIGNAL) {
                Ok(len) => done += len,
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => self.is_hung_up = true,
            }
        }
        if self.is_hung_up {
            // Nobody reads the rest.
            done = bytes.len();
        }
        self.forwarded = self.forwarded.wrapping_add(done as u32);
        done
    }

    /// Takes the events of the socket.
    pub(super) fn ready(&mut self, events: EventSet) {
        self.readable |= events.intersects(EventSet::IN | EventSet::READ_HANG_UP);
        self.writable |= events.contains(EventSet::OUT);
        self.is_hung_up |= events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        self.flush();
    }

    /// Writes the backlog to the socket, as far as it takes it, and passes on that the guest sends no more.
    fn flush(&mut self) {
        while !self.backlog.is_empty() && (self.writable || self.is_hung_up) {
            let mut backlog = mem::take(&mut self.backlog);
            let written = self.write(backlog.as_slices().0);
            backlog.drain(..written);
            self.backlog = backlog;
        }
        if self.backlog.is_empty() {
            self.backlog.shrink_to(KEPT_BACKLOG);
            // Once: it makes the socket ready again.
            if self.guest_shutdown & NO_SEND != 0 && !mem::replace(&mut self.is_send_shut_down, true) {
                // An error means that the peer is gone.
                let _ = shutdown(&self.socket, Shutdown::Write);
            }
        }
    }

    /// The guest receives or sends no more.
    pub(super) fn guest_shuts_down(&mut self, flags: u32) {
        self.guest_shutdown |= flags & NEITHER;
        if self.guest_shutdown & NO_RECEIVE != 0 {
            // As above.
            let _ = shutdown(&self.socket, Shutdown::Read);
        }
        self.flush();
    }

    /// Whether the connection ends now, with RST: the guest has shut it down and everything has been passed on (VIRTIO 1.2, 5.10.6.6),
    /// or a client is gone before the guest has answered.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            State::Requesting { .. } => self.is_hung_up,
            State::Lingering => self.backlog.is_empty(),
            State::Accepting | State::Established => {
                self.guest_shutdown == NEITHER && self.backlog.is_empty()
            }
        }
    }

    /// The guest has ended the connection. Returns whether the host's side still has to read what the guest sent before it shut down
    /// sending: Linux waits eight seconds for that, and then ends the connection by RST.
    pub(super) fn lingers(&mut self) -> bool {
        let lingers = self.guest_shutdown & NO_SEND != 0 && !self.backlog.is_empty() && !self.is_hung_up;
        if lingers {
            self.state = State::Lingering;
        }
        lingers
    }

    /// Whether the guest knows of the connection.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.state, State::Requesting { sent: false } | State::Lingering)
    }

    /// Whether only the guest's RST is missing, or only the host's side has something left to read.
    pub(super) fn is_closing(&self) -> bool {
        self.sent_shutdown == NEITHER || self.state == State::Lingering
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

    use super::super::group::SOCKET_EVENTS;
    use super::*;

    /// The guest sends no more and the host does: nobody has anything to do until one of them does something.
    #[test]
    fn a_half_closed_connection_is_idle() {
        let (ours, _theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("fcntl(2)");
        let mut connection = Connection::from_guest(Ports { host: 1, guest: 2 }, ours.into());
        let epoll = Epoll::new().expect("epoll_create1(2)");
        let (fd, event) = (connection.as_raw_fd(), EpollEvent::new(SOCKET_EVENTS, 0));
        epoll.ctl(ControlOperation::Add, fd, event).expect("epoll_ctl(2)");
        connection.guest_shuts_down(NO_SEND);
        let mut turn = || {
            let mut events = [EpollEvent::default()];
            let is_ready = epoll.wait(0, &mut events).expect("epoll_wait(2)") > 0;
            if is_ready {
                connection.ready(events[0].event_set());
            }
            is_ready
        };
        assert!((0..10).any(|_| !turn()), "it is ready again and again");
    }
}
