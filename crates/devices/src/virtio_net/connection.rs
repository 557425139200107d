//! The connection of a device to passt, which is made again when passt has ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::packet;
use super::passt::{Passt, PasstError};
use super::port::Port;
use super::stream::FrameStream;
use crate::virtio::GroupContext;

/// How often a connection is tried.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// After connections that ended at once, the next one is tried later and later, up to this.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long a connection lasts that did not end at once.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// Who is at the other end.
#[derive(Debug)]
enum Peer {
    /// A passt of this program, with the MTU that it announces.
    Own(Option<u16>),
    /// A program that listens at a socket.
    Listening(PathBuf),
}

/// A connection, as it is kept across resets of the machine: frames that are in transit are not torn.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer,
    /// Of the device's thread, while it runs.
    state: Mutex<Option<Connected>>,
    is_up: AtomicBool,
}

#[derive(Debug)]
struct Connected {
    stream: FrameStream,
    /// Ends passt when this is dropped.
    _passt: Option<Passt>,
}

impl Connection {
    /// Starts passt.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or ends at once.
    pub(super) fn to_own_passt(mtu: Option<u16>) -> Result<Self, PasstError> {
        let (passt, socket) = Passt::start(mtu)?;
        Ok(Connection::new(Peer::Own(mtu), socket, Some(passt))?)
    }

    /// Connects to a program that listens at a socket.
    ///
    /// # Errors
    /// Returns the error of connect(2).
    pub(super) fn to_socket(path: &Path) -> io::Result<Self> {
        Connection::new(Peer::Listening(path.to_owned()), connected(path)?, None)
    }

    fn new(peer: Peer, socket: UnixStream, passt: Option<Passt>) -> io::Result<Self> {
        let state = Connected { stream: FrameStream::new(socket)?, _passt: passt };
        Ok(Connection { peer, state: Mutex::new(Some(state)), is_up: AtomicBool::new(true) })
    }

    /// Whether there is somebody at the other end.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// The port of the device's only queue pair.
    ///
    /// # Errors
    /// Returns the error of timerfd_create(2).
    pub(super) fn port(self: &Arc<Self>) -> io::Result<ConnectionPort> {
        Ok(ConnectionPort {
            connection: Arc::clone(self),
            retry: TimerFd::new()?,
            retry_interval: RETRY_INTERVAL,
            connected: Instant::now(),
        })
    }

    fn state(&self) -> MutexGuard<'_, Option<Connected>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> io::Result<Connected> {
        let (socket, passt) = match &self.peer {
            Peer::Listening(path) => (connected(path)?, None),
            Peer::Own(mtu) => {
                let (passt, socket) = Passt::restart(*mtu).map_err(io::Error::other)?;
                (socket, Some(passt))
            }
        };
        Ok(Connected { stream: FrameStream::new(socket)?, _passt: passt })
    }
}

/// Connects to a socket, without waiting for the other side to accept.
fn connected(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// A connection, as the thread of the queue pair uses it. While nobody is at the other end, packets are dropped.
pub(super) struct ConnectionPort {
    connection: Arc<Connection>,
    /// Runs while nobody is at the other end.
    retry: TimerFd,
    retry_interval: Duration,
    /// When the connection was made that there is, or was last.
    connected: Instant,
}

/// Tokens of the descriptors.
const SOCKET: u32 = 0;
const RETRY: u32 = 1;

impl ConnectionPort {
    /// Uses the stream. Without one, or if it fails, the result is that of a stream that has nothing to do.
    fn with_stream<T: Default>(
        &mut self,
        context: &GroupContext<'_>,
        operation: impl FnOnce(&mut FrameStream) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.connection.state();
        let Some(Connected { stream, .. }) = &mut *state else { return Ok(T::default()) };
        match operation(stream) {
            Ok(result) => Ok(result),
            Err(error) => {
                tracing::warn!(%error, peer = ?self.connection.peer, "the link is down: the connection to passt has ended");
                // This closes the socket, which is not watched any more then.
                *state = None;
                // A passt that ends at once would have the guest's link go up and down.
                self.retry_interval = if self.connected.elapsed() < STABLE_AFTER {
                    (2 * self.retry_interval).min(MAX_RETRY_INTERVAL)
                } else {
                    RETRY_INTERVAL
                };
                self.retry.reset(self.retry_interval, None)?;
                self.set_link(false, context);
                Ok(T::default())
            }
        }
    }

    fn reconnect(&mut self, context: &GroupContext<'_>) -> io::Result<()> {
        match self.connection.connect() {
            Ok(connected) => {
                // This also makes it unreadable.
                self.retry.clear()?;
                self.connected = Instant::now();
                watch(&connected.stream, context)?;
                *self.connection.state() = Some(connected);
                tracing::info!(peer = ?self.connection.peer, "the link is up: connected to passt");
                self.set_link(true, context);
            }
            Err(error) => {
                tracing::debug!(%error, "no connection to passt");
                self.retry.reset(RETRY_INTERVAL, None)?;
            }
        }
        Ok(())
    }

    fn set_link(&self, is_up: bool, context: &GroupContext<'_>) {
        self.connection.is_up.store(is_up, Ordering::Relaxed);
        context.interrupt().config_changed();
    }
}

fn watch(stream: &FrameStream, context: &GroupContext<'_>) -> io::Result<()> {
    context.watch(stream.socket(), SOCKET, EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED)
}

impl Port for ConnectionPort {
    fn start(&mut self, context: &GroupContext<'_>) -> io::Result<()> {
        context.watch(&self.retry, RETRY, EventSet::IN)?;
        match &mut *self.connection.state() {
            Some(Connected { stream, .. }) => {
                stream.ready();
                watch(stream, context)
            }
            None => Ok(self.retry.reset(RETRY_INTERVAL, None)?),
        }
    }

    fn ready(&mut self, token: u32, _: EventSet, context: &GroupContext<'_>) -> io::Result<()> {
        if token == RETRY {
            return self.reconnect(context);
        }
        self.with_stream(context, |stream| {
            stream.ready();
            Ok(())
        })
    }

    fn look_again(&mut self) {
        if let Some(Connected { stream, .. }) = &mut *self.connection.state() {
            stream.ready();
        }
    }

    fn receive(&mut self, packet: &mut [u8], context: &GroupContext<'_>) -> io::Result<Option<usize>> {
        self.with_stream(context, |stream| stream.receive(packet))
    }

    fn can_send(&mut self, context: &GroupContext<'_>) -> io::Result<bool> {
        let mut is_blocked = false;
        self.with_stream(context, |stream| {
            is_blocked = !stream.flush()?;
            Ok(())
        })?;
        Ok(!is_blocked)
    }

    fn send(&mut self, packet: &mut [u8], context: &GroupContext<'_>) -> io::Result<()> {
        if !packet::is_complete(packet) {
            tracing::debug!("a packet is dropped: it needs a feature that the device does not offer");
            return Ok(());
        }
        self.with_stream(context, |stream| stream.send(packet))
    }
}
