//! The socket of a port. It outlives the device, which every reset of the machine renews, and so does its client.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::client::Client;
use crate::socket_file::{ListenError, Listener};

/// The socket at which the client of a port connects. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct PortSocket {
    listener: Listener,
    /// The client while no device is active.
    client: Mutex<Option<Client>>,
}

impl PortSocket {
    /// Listens at `path`. A socket there at which no process listens is replaced. The file is also removed if a signal ends the process.
    ///
    /// # Errors
    /// Returns an error if the path is in use, or a system call fails.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        Ok(PortSocket { listener: Listener::at(path)?, client: Mutex::new(None) })
    }

    /// Accepts a client. `None` if there is none.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        self.listener.accept()
    }

    /// Exchanges the client that is kept for the next device.
    pub(super) fn exchange(&self, client: Option<Client>) -> Option<Client> {
        std::mem::replace(&mut *self.client.lock().unwrap_or_else(PoisonError::into_inner), client)
    }
}

impl AsRawFd for PortSocket {
    /// Readable if a client waits.
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}
