//! The host's side of a port. It outlives the device, which every reset of the machine renews, and so does its client.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::client::Client;
use crate::socket_file::{ListenError, Listener};

/// The socket at which the client of a port connects, or the one client that it has. The file of a socket is removed when this is dropped.
#[derive(Debug)]
pub struct PortSocket {
    /// `None` for the one client.
    listener: Option<Listener>,
    /// The client while no device is active.
    client: Mutex<Option<Client>>,
}

impl PortSocket {
    /// Listens at `path`. A socket there at which no process listens is replaced. The file is also removed if a signal ends the process.
    ///
    /// # Errors
    /// Returns an error if the path is in use, or a system call fails.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        Ok(PortSocket { listener: Some(Listener::at(path)?), client: Mutex::new(None) })
    }

    /// Has a client, the other end of this socket, and never another one. What the guest writes waits for it.
    ///
    /// # Errors
    /// Returns the error of ioctl(2), FIONBIO.
    pub fn connected(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(PortSocket { listener: None, client: Mutex::new(Some(Client::new(socket.into()))) })
    }

    /// Readable if a client waits. `None` if there is no other client than the one.
    pub(super) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Accepts a client. `None` if there is none.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        self.listener.as_ref().map_or(Ok(None), Listener::accept)
    }

    /// Exchanges the client that is kept for the next device.
    pub(super) fn exchange(&self, client: Option<Client>) -> Option<Client> {
        std::mem::replace(&mut *self.client.lock().unwrap_or_else(PoisonError::into_inner), client)
    }
}
