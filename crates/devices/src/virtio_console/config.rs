//! The section of a console in a profile, and the device that it makes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine_profile::device_kind::{
    DeviceSection, FilePath, Key, NamedPaths, Optional, Reported, Setting, Text,
};

use super::{Console, MAX_NAMED_PORTS, PortSocket, Ports};
use crate::console::ConsoleSize;
use crate::kind::DeviceError;
use crate::virtio::{VirtioDevice, VirtioKind};

/// `type = "virtio-console"`.
pub static KIND: VirtioKind<ConsoleConfig, ConsoleBackend> = VirtioKind {
    name: "virtio-console",
    doc: "a console beside the serial port, or named ports, each connected to a Unix socket of the host",
    keys: &[&SOCKET, &PORTS],
    read: ConsoleConfig::read,
    inspect: |_| Ok(()),
    open: ConsoleConfig::open,
    build: |backend, name| backend.device(name),
};

/// The configuration of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleConfig {
    /// A console, with the path of its socket.
    Console(PathBuf),
    /// Named ports, with the paths of their sockets.
    Ports(Vec<(String, PathBuf)>),
}

static SOCKET: Key<FilePath, Optional> = Key {
    name: "socket",
    doc: "The Unix socket of the console, relative to the profile, at which its terminal connects.",
    form: FilePath { example: "console.sock" },
    absent: Optional("the device has `ports`, and is no console"),
};
static PORTS: Key<NamedPaths, Optional> = Key {
    name: "ports",
    doc: "Named ports of the guest, and the Unix socket of each of them, relative to the profile, at which the host connects.",
    form: NamedPaths {
        names: Text {
            min: 1,
            max: (64, "the limit for names of ports"),
            // What udev does not accept in the name of a link in `/dev/virtio-ports` (udev(7)).
            refused: &[
                '\0'..='"',
                '$'..='*',
                ','..=',',
                '/'..='/',
                ';'..='<',
                '>'..='?',
                '['..='^',
                '`'..='`',
                '{'..=char::MAX,
            ],
            example: "org.qemu.guest_agent.0",
        },
        max: MAX_NAMED_PORTS,
        path: FilePath { example: "agent.sock" },
    },
    absent: Optional("the device is a console, with a `socket`"),
};

impl ConsoleConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (socket, ports) = (section.optional_socket(&SOCKET), section.optional_sockets(&PORTS));
        match (socket?, ports?) {
            (Some(socket), None) => {
                section.uses_file(&socket, true);
                Ok(ConsoleConfig::Console(socket.value))
            }
            (None, Some(ports)) => {
                ports.value.iter().for_each(|(_, socket)| section.uses_file(socket, true));
                let paths = ports.value.into_iter().map(|(name, Setting { value, .. })| (name, value));
                Ok(ConsoleConfig::Ports(paths.collect()))
            }
            (Some(_), Some(ports)) => Err(section.refuse(
                &ports,
                "a device with a `socket` is a console, which has no other ports",
                "move it to a `[[device]]` of its own with `type = \"virtio-console\"`",
            )),
            (None, None) => Err(section.incomplete(
                "is neither a console nor has it ports",
                "add a line `socket = \"console.sock\"` for a console, or `ports = { \"org.qemu.guest_agent.0\" = \"agent.sock\" }`",
            )),
        }
    }

    fn open(&self) -> Result<ConsoleBackend, DeviceError> {
        let ports = match self {
            ConsoleConfig::Console(path) => {
                let size = ConsoleSize::new().map_err(|error| DeviceError {
                    key: SOCKET.name,
                    message: format!("eventfd(2): {error}"),
                    help: "raise the limit of open files (ulimit -n)".into(),
                })?;
                Ports::Console(listen(SOCKET.name, path)?, size)
            }
            ConsoleConfig::Ports(ports) => {
                let ports = ports.iter().map(|(name, path)| Ok((name.clone(), listen(PORTS.name, path)?)));
                Ports::Named(ports.collect::<Result<_, DeviceError>>()?)
            }
        };
        Ok(ConsoleBackend(ports))
    }
}

fn listen(key: &'static str, path: &Path) -> Result<Arc<PortSocket>, DeviceError> {
    let socket = PortSocket::listen(path).map_err(|error| DeviceError {
        key,
        message: format!("{}: {error}", path.display()),
        help: "name a path in a directory in which ghest can create files, and that no other process uses"
            .into(),
    })?;
    tracing::info!(?path, "listening for the client of a console or a port");
    Ok(Arc::new(socket))
}

/// The host's side of a device, which outlives it.
pub struct ConsoleBackend(Ports);

impl ConsoleBackend {
    /// The size of the terminal of a console, for the VMM. `None` if the device has named ports.
    #[must_use]
    pub fn size(&self) -> Option<&ConsoleSize> {
        match &self.0 {
            Ports::Console(_, size) => Some(size),
            Ports::Named(_) => None,
        }
    }

    fn device(&self, name: &str) -> Box<dyn VirtioDevice> {
        match &self.0 {
            Ports::Console(..) => tracing::info!(device = name, "console attached"),
            Ports::Named(ports) => tracing::info!(device = name, ports = ports.len(), "named ports attached"),
        }
        Box::new(Console::new(self.0.clone()))
    }
}
