//! The section of a socket device in a profile, and the device that it makes.

use std::path::PathBuf;
use std::sync::Arc;

use machine_profile::device_kind::{DeviceSection, FilePath, Integer, Key, Reported, Required};

use super::{HostSocket, Vsock};
use crate::kind::DeviceError;
use crate::virtio::{VirtioDevice, VirtioKind};

/// `type = "virtio-vsock"`.
pub static KIND: VirtioKind<VsockConfig, Endpoint> = VirtioKind {
    name: "virtio-vsock",
    doc: "sockets between the guest and Unix sockets of the host",
    keys: &[&CID, &SOCKET],
    read: VsockConfig::read,
    inspect: |_| Ok(()),
    open: VsockConfig::open,
    build: |endpoint, name| endpoint.device(name),
};

/// The configuration of a socket device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context id.
    pub cid: u32,
    /// The path of the host's socket.
    pub socket: PathBuf,
}

static CID: Key<Integer, Required> = Key {
    name: "cid",
    doc: "The guest's context id (CID), by which it is addressed.",
    // VIRTIO 1.2, 5.10.4: 0, 1 and 2^32 - 1 are reserved, 2 is the host.
    form: Integer { min: 3, max: u32::MAX - 1, example: 3 },
    absent: Required,
};
static SOCKET: Key<FilePath, Required> = Key {
    name: "socket",
    doc: "The Unix socket, relative to the profile, at which the host connects to the guest: a client writes `CONNECT PORT` and a \
          line end. The guest's connections to port P of the host reach the Unix socket of that path with `_P` behind it.",
    form: FilePath { example: "guest.vsock" },
    absent: Required,
};

impl VsockConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (cid, socket) = (section.required(&CID), section.required_path(&SOCKET));
        let (cid, socket) = (cid?.value, socket?);
        if socket.value.as_os_str().len() > HostSocket::MAX_PATH {
            let reason = "with the directory of the profile and a port behind it, it is longer than the address of a socket, 107 bytes";
            return Err(section.refuse(&socket, reason, "choose a shorter path"));
        }
        section.uses_file(&socket, true);
        Ok(VsockConfig { cid, socket: socket.value })
    }

    fn open(&self) -> Result<Endpoint, DeviceError> {
        let host = HostSocket::listen(&self.socket).map_err(|error| DeviceError {
            key: SOCKET.name,
            message: format!("{}: {error}", self.socket.display()),
            help:
                "name a path in a directory in which ghest can create files, and that no other process uses"
                    .into(),
        })?;
        tracing::info!(path = ?self.socket, cid = self.cid, "listening for connections to the guest");
        Ok(Endpoint { cid: self.cid, host: Arc::new(host) })
    }
}

/// The host's side of a device, which outlives it.
pub struct Endpoint {
    cid: u32,
    host: Arc<HostSocket>,
}

impl Endpoint {
    fn device(&self, name: &str) -> Box<dyn VirtioDevice> {
        tracing::info!(device = name, cid = self.cid, "socket device attached");
        Box::new(Vsock::new(self.cid, Arc::clone(&self.host)))
    }
}
