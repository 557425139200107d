//! The connection of a client, and what it has not read yet.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use vmm_sys_util::epoll::EventSet;

/// Bytes that wait for a client beside those in its socket. Linux writes to a console in pieces of 16 bytes, and each piece in a socket
/// counts as hundreds.
pub const MAX_UNREAD: usize = 128 << 10;
/// A drained queue keeps no more memory than this.
const KEPT_UNREAD: usize = 4 << 10;

/// The events of a client's socket. Edge-triggered: what cannot be handled for now does not wake the thread again.
pub(super) const EVENTS: EventSet =
    EventSet::IN.union(EventSet::OUT).union(EventSet::READ_HANG_UP).union(EventSet::EDGE_TRIGGERED);

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    /// What the guest has written.
    unread: VecDeque<u8>,
    /// What the client has sent, and a buffer of the guest did not take.
    undelivered: Vec<u8>,
    /// Whether the socket may have bytes; whether it may take some.
    readable: bool,
    writable: bool,
    /// The client sends no more; it is gone.
    is_at_end: bool,
    is_gone: bool,
    /// Whether output was dropped.
    has_holes: bool,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Client {
            socket,
            unread: VecDeque::new(),
            undelivered: Vec::new(),
            readable: true,
            writable: true,
            is_at_end: false,
            is_gone: false,
            has_holes: false,
        }
    }

    /// The socket is ready.
    pub(super) fn ready(&mut self, events: EventSet) {
        self.readable |= events.intersects(EventSet::IN | EventSet::READ_HANG_UP);
        self.writable |= events.contains(EventSet::OUT);
        self.is_gone |= events.intersects(EventSet::HANG_UP | EventSet::ERROR);
    }

    /// Whether it reads no more. It may have sent something before.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether it is gone, and all that it has sent was delivered.
    pub(super) fn is_over(&self) -> bool {
        self.is_gone && !self.has_input()
    }

    /// Bytes that the guest may write: at least 1 if the socket takes some.
    pub(super) fn space(&mut self) -> usize {
        if self.unread.len() >= MAX_UNREAD {
            self.flush();
        }
        MAX_UNREAD.saturating_sub(self.unread.len())
    }

    /// Queues what the guest has written, for [`flush`](Self::flush).
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
    }

    /// Output is dropped because the client does not read.
    pub(super) fn dropped(&mut self) {
        if !std::mem::replace(&mut self.has_holes, true) {
            tracing::warn!("the client of a console does not read: output of the guest is dropped");
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) {
        while self.writable && !self.is_gone && !self.unread.is_empty() {
            match send(&self.socket, self.unread.as_slices().0, SendFlags::NOSIGNAL) {
                Ok(len) => drop(self.unread.drain(..len)),
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                // What it has sent before is still to be read.
                Err(_) => (self.is_gone, self.readable) = (true, true),
            }
        }
        if self.is_gone {
            self.unread.clear();
        }
        if self.unread.is_empty() {
            self.unread.shrink_to(KEPT_UNREAD);
        }
    }

    /// Whether there may be something for the guest.
    pub(super) fn has_input(&self) -> bool {
        !self.undelivered.is_empty() || self.readable && !self.is_at_end
    }

    /// What is next for the guest: as many bytes as there are and `buffer` takes, in `buffer`.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> &'a [u8] {
        let len = if self.undelivered.is_empty() {
            self.receive(buffer)
        } else {
            let len = self.undelivered.len().min(buffer.len());
            buffer[..len].copy_from_slice(&self.undelivered[..len]);
            self.undelivered.drain(..len);
            len
        };
        &buffer[..len]
    }

    /// Takes bytes back that the guest's buffer did not take.
    pub(super) fn give_back(&mut self, bytes: &[u8]) {
        self.undelivered.splice(..0, bytes.iter().copied());
    }

    fn receive(&mut self, buffer: &mut [u8]) -> usize {
        match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) if !buffer.is_empty() => self.is_at_end = true,
            Ok((len, _)) => return len,
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => (self.is_at_end, self.is_gone) = (true, true),
        }
        0
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
