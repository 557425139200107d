//! The host's side: the socket at which the device listens, and the sockets that the guest reaches.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags, accept_with, connect};

use crate::socket_file::{ListenError, SocketFile, listen_at, stream_socket};

/// The socket of a device. It outlives the device, which every reset of the machine renews. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct HostSocket {
    file: Arc<SocketFile>,
    listener: OwnedFd,
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
        let (listener, file) = listen_at(path)?;
        SocketFile::remove_at_fatal_signal(&file);
        let (path, was_active) = (path.to_owned(), AtomicBool::new(false));
        Ok(HostSocket { file, listener, path, was_active })
    }

    /// Accepts a client. `None` if there is none.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(client) => Ok(Some(client)),
            Err(Errno::AGAIN) => Ok(None),
            // The client is gone.
            Err(Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno),
        }
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

impl Drop for HostSocket {
    /// The handlers of signals keep a reference to the file. It is removed before the socket is closed: until then no other process takes
    /// it for stale.
    fn drop(&mut self) {
        self.file.remove();
    }
}

impl AsRawFd for HostSocket {
    /// Readable if a client waits.
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}
