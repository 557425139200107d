//! The front end of vhost-user (QEMU documentation, `docs/interop/vhost-user.rst`): a device whose queues another process serves, the
//! back end, in memory that both map.
//!
//! A virtio device that is served so has a [`VhostUserBackend`], which outlives its resets. While the device is active, the thread of its
//! queues makes the connection, forwards the back end's calls to the driver, and notices that the back end is gone. No vCPU waits for a back end, but for a stop or a reset of the device, which takes no longer than three times [`REPLY_TIMEOUT`].
//!
//! A back end that goes away leaves the queues as they are. The thread connects again within a second after somebody listens at the socket, and
//! the new back end starts with the first request that was not returned to the driver. That is exact for a back end that
//! returns requests in the order in which it took them, as virtiofsd without a thread pool does; after others, a driver may see a request returned
//! twice. The feature VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, which would tell, is not used.
//!
//! A poisoned page that a back end touches is a SIGBUS of its process, not of this one. A page that is replaced is replaced for both.
//!
//! Memory has to be shared ([`GuestRam::shared_regions`](guest_memory::GuestRam::shared_regions)). A back end can read and write
//! all of it.

mod connection;
mod session;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

pub use self::connection::ConnectError;
use self::connection::Connection;

/// How long a back end may take to be set up or to stop before the connection is closed.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The back end at a socket.
#[derive(Debug)]
pub struct VhostUserBackend {
    socket: PathBuf,
    queues: u16,
    /// The features that it offered when it was connected to first.
    features: u64,
    /// The connection while no session uses it. `None` also if it is broken.
    idle: Mutex<Option<Connection>>,
}

impl VhostUserBackend {
    /// Connects to the back end that listens at `socket` and serves this number of queues.
    ///
    /// # Errors
    /// Returns an error if nobody listens there, or if the process cannot serve such a device.
    pub fn connect(socket: &Path, queues: u16) -> Result<Self, ConnectError> {
        Ok(Self::of(Connection::open(socket, queues, 1 << VIRTIO_F_VERSION_1)?, socket, queues))
    }

    /// The back end at the other end of a connected socket; [`socket`](Self::socket) is where the next one listens.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    #[cfg(feature = "testing")]
    pub fn over(
        stream: std::os::unix::net::UnixStream,
        socket: &Path,
        queues: u16,
    ) -> Result<Self, ConnectError> {
        Ok(Self::of(Connection::over(stream, queues, 1 << VIRTIO_F_VERSION_1)?, socket, queues))
    }

    fn of(connection: Connection, socket: &Path, queues: u16) -> Self {
        VhostUserBackend {
            socket: socket.to_owned(),
            queues,
            features: connection.features(),
            idle: Mutex::new(Some(connection)),
        }
    }

    /// The virtio features that it offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The socket at which it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The connection that is left of the last session, or a new one to a back end that offers `features`.
    fn connection(&self, features: u64) -> Result<Connection, ConnectError> {
        match self.idle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(connection) if !connection.is_closed() => Ok(connection),
            _ => Connection::open(&self.socket, self.queues, features),
        }
    }

    /// Keeps a connection without rings for the next session.
    fn keep(&self, connection: Connection) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}
