//! A connection to a back end.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use guest_memory::{GuestRam, own};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use super::REPLY_TIMEOUT;
use crate::vhost::{Rings, SetupError};

/// Why there is no connection to a back end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens at the socket, or it cannot be reached.
    #[error("connect(2): {0}")]
    Connect(io::Error),
    /// A request failed, or had no valid reply in time.
    #[error("the vhost-user request {request} failed: {source}")]
    Request {
        /// Its name.
        request: &'static str,
        /// The reason.
        source: vhost::Error,
    },
    /// The process lacks features that the device or its driver needs.
    #[error("the back end does not offer the features {missing:#x}")]
    Features {
        /// Feature n is bit n.
        missing: u64,
    },
    /// The process serves fewer queues than the device has.
    #[error("the back end serves {offered} queues, and the device has {wanted}")]
    Queues {
        /// Queues that it serves.
        offered: u64,
        /// Queues of the device.
        wanted: u16,
    },
    /// The host cannot create a thread.
    #[error("pthread_create(3): {0}")]
    Thread(io::Error),
    /// The guest's memory is private to this process.
    #[error("the guest's memory is not shared")]
    PrivateMemory,
    /// A ring is not guest memory.
    #[error("a ring at {0:#x} is not guest memory")]
    Ring(u64),
}

impl From<SetupError> for ConnectError {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Request { request, source } => ConnectError::Request { request, source },
            SetupError::Ring(gpa) => ConnectError::Ring(gpa),
        }
    }
}

/// A connection whose features are negotiated.
pub(super) struct Connection {
    frontend: Frontend,
    /// A duplicate of the frontend's descriptor, to see that the back end is gone.
    stream: UnixStream,
    features: u64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("features", &self.features).finish_non_exhaustive()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Names the request that failed.
fn failed(request: &'static str) -> impl FnOnce(vhost::Error) -> ConnectError {
    move |source| ConnectError::Request { request, source }
}

impl Connection {
    /// Connects to the back end at `path`, which has to offer `features` and serve `queues` queues.
    pub(super) fn open(path: &Path, queues: u16, features: u64) -> Result<Self, ConnectError> {
        Self::over(connected(path).map_err(ConnectError::Connect)?, queues, features)
    }

    /// Agrees with the back end at the other end of a socket.
    pub(super) fn over(stream: UnixStream, queues: u16, features: u64) -> Result<Self, ConnectError> {
        let duplicate = stream.try_clone().map_err(ConnectError::Connect)?;
        let mut frontend = Frontend::from_stream(duplicate, queues.into());
        let features = in_time(&stream, || negotiate(&mut frontend, queues, features))?;
        Ok(Connection { frontend, stream, features })
    }

    /// The virtio features that the back end offers.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// Whether the back end has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        let mut poll_fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let _ = poll(&mut poll_fds, Some(&Timespec::default()));
        !poll_fds[0].revents().is_empty()
    }

    /// Has the back end serve the rings, with the features that the driver accepted.
    pub(super) fn start(&mut self, features: u64, ram: &GuestRam, rings: &Rings) -> Result<(), ConnectError> {
        let Connection { frontend, stream, .. } = self;
        in_time(stream, || start(frontend, features, ram, rings))
    }

    /// Has the back end stop, and stores at which element each ring continues.
    pub(super) fn stop(&mut self, rings: &mut Rings) -> Result<(), ConnectError> {
        let Connection { frontend, stream, .. } = self;
        in_time(stream, || {
            for ring in rings.iter_mut() {
                ring.stopped_at(frontend.get_vring_base(ring.index).map_err(failed("GET_VRING_BASE"))?);
            }
            Ok(())
        })
    }
}

fn start(frontend: &mut Frontend, features: u64, ram: &GuestRam, rings: &Rings) -> Result<(), ConnectError> {
    let features = features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    frontend.set_features(features).map_err(failed("SET_FEATURES"))?;
    let regions = ram.shared_regions().ok_or(ConnectError::PrivateMemory)?;
    let regions: Vec<_> = regions
        .iter()
        .map(|region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.slot.gpa,
            memory_size: region.slot.len,
            userspace_addr: region.slot.hva,
            mmap_offset: region.offset,
            mmap_handle: region.file.as_raw_fd(),
        })
        .collect();
    frontend.set_mem_table(&regions).map_err(failed("SET_MEM_TABLE"))?;
    for ring in rings.iter() {
        ring.set_up(frontend, |gpa| ram.host_address(gpa))?;
        frontend.set_vring_enable(ring.index, true).map_err(failed("SET_VRING_ENABLE"))?;
    }
    Ok(())
}

/// Agrees with the back end on protocol features. Returns the virtio features that it offers.
fn negotiate(frontend: &mut Frontend, queues: u16, features: u64) -> Result<u64, ConnectError> {
    frontend.set_owner().map_err(failed("SET_OWNER"))?;
    let offered = frontend.get_features().map_err(failed("GET_FEATURES"))?;
    let wanted = features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    if wanted & !offered != 0 {
        return Err(ConnectError::Features { missing: wanted & !offered });
    }
    let protocol = frontend.get_protocol_features().map_err(failed("GET_PROTOCOL_FEATURES"))?;
    let used = protocol & (VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK);
    frontend.set_protocol_features(used).map_err(failed("SET_PROTOCOL_FEATURES"))?;
    if used.contains(VhostUserProtocolFeatures::MQ) {
        let offered = frontend.get_queue_num().map_err(failed("GET_QUEUE_NUM"))?;
        if offered < queues.into() {
            return Err(ConnectError::Queues { offered, wanted: queues });
        }
    }
    if used.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    Ok(offered)
}

/// Has a call fail after [`REPLY_TIMEOUT`], by closing the connection: the library waits for a reply for as long as it takes.
fn in_time<T>(
    stream: &UnixStream,
    call: impl FnOnce() -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    let (done, expired) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watchdog = move || {
            if expired.recv_timeout(REPLY_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        };
        own::thread("vhost-watchdog").spawn_scoped(scope, watchdog).map_err(ConnectError::Thread)?;
        let outcome = call();
        drop(done);
        outcome
    })
}

/// A connection to a listener. It is refused, and does not wait, if the listener's backlog is full.
fn connected(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
