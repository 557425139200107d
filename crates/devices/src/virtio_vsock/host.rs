//! The host's side: the socket at which the device listens, and the sockets that the guest reaches.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, connect};

use crate::socket_file::{ListenError, Listener, stream_socket};

/// The socket of a device. It outlives the device, which every reset of the machine renews. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct HostSocket {
    listener: Listener,
    path: PathBuf,
    /// Whether a driver has used the device.
    was_active: AtomicBool,
}

impl HostSocket {
    /// The most bytes of a path: that of the address of a socket, less `_` and a port behind it.
    pub const MAX_PATH: usize = 107 - "_4294967295".len();

    /// Listens at `path`. A socket there at which no process listens is replaced. The file is also removed if a signal ends the process.
    ///
    /// # Errors
    /// Returns an error if the path is in use, or a system call fails.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let listener = Listener::at(path)?;
        Ok(HostSocket { listener, path: path.to_owned(), was_active: AtomicBool::new(false) })
    }

    /// Accepts a client. `None` if there is none.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        self.listener.accept()
    }

    /// Connects to the socket for a port. It does not wait: a socket whose backlog is full is an error.
    pub(super) fn connect(&self, port: u32) -> Result<OwnedFd, Errno> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let address = SocketAddrUnix::new(path)?;
        let socket = stream_socket()?;
        connect(&socket, &address)?;
        Ok(socket)
    }

    /// A driver uses the device. Returns whether one did before.
    pub(super) fn activate(&self) -> bool {
        self.was_active.swap(true, Ordering::Relaxed)
    }
}

impl AsRawFd for HostSocket {
    /// Readable if a client waits.
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}
