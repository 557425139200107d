//! The section of a console in a profile, and the device that it makes.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine_profile::device_kind::{
    Default, DeviceSection, FilePath, Flag, Key, NamedPaths, Optional, Reported, Setting, Text,
};

use super::{Console, MAX_NAMED_PORTS, PortSocket, Ports};
use crate::console::ConsoleSize;
use crate::kind::DeviceError;
use crate::virtio::{VirtioDevice, VirtioKind};

/// `type = "virtio-console"`.
pub static KIND: VirtioKind<ConsoleConfig, ConsoleBackend> = VirtioKind {
    name: "virtio-console",
    doc: "a console beside the serial port, or named ports, each connected to a Unix socket of the host; or a console in place of the \
          serial port, on ghest's own terminal",
    keys: &[&SOCKET, &TERMINAL, &PORTS],
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
    /// A console that is the terminal of the VMM.
    Terminal,
    /// Named ports, with the paths of their sockets.
    Ports(Vec<(String, PathBuf)>),
}

static SOCKET: Key<FilePath, Optional> = Key {
    name: "socket",
    doc: "The Unix socket of the console, relative to the profile, at which its terminal connects.",
    form: FilePath { example: "console.sock" },
    absent: Optional("the device has `ports` or is the `terminal`"),
};
static TERMINAL: Key<Flag, Default<bool>> = Key {
    name: "terminal",
    doc: "Whether the console is on ghest's standard input and output, in place of the serial port, whose output is then dropped.",
    form: Flag,
    absent: Default(false),
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
    absent: Optional("the device is a console"),
};

impl ConsoleConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (socket, terminal) = (section.optional_socket(&SOCKET), section.value(&TERMINAL));
        let ports = section.optional_sockets(&PORTS);
        let (socket, terminal, ports) = (socket?, terminal?, ports?);
        if let (Some(socket), true) = (&socket, terminal.value) {
            let help = "remove one of the two, or add a second `[[device]]`: each is a console of its own";
            return Err(section.refuse(socket, "the console is the `terminal`", help));
        }
        match (socket, ports) {
            (Some(_), Some(ports)) => Err(Self::ports_of_a_console(section, &ports, "socket")),
            (None, Some(ports)) if terminal.value => {
                Err(Self::ports_of_a_console(section, &ports, "terminal"))
            }
            (Some(socket), None) => {
                section.uses_file(&socket, true);
                Ok(ConsoleConfig::Console(socket.value))
            }
            (None, Some(ports)) => {
                ports.value.iter().for_each(|(_, socket)| section.uses_file(socket, true));
                let paths = ports.value.into_iter().map(|(name, Setting { value, .. })| (name, value));
                Ok(ConsoleConfig::Ports(paths.collect()))
            }
            (None, None) if terminal.value => {
                section.uses_terminal(&terminal);
                Ok(ConsoleConfig::Terminal)
            }
            (None, None) => Err(section.incomplete(
                "is neither a console nor has it ports",
                "add a line `socket = \"console.sock\"` or `terminal = true` for a console, or \
                 `ports = { \"org.qemu.guest_agent.0\" = \"agent.sock\" }`",
            )),
        }
    }

    fn ports_of_a_console<T>(section: &mut DeviceSection<'_>, ports: &Setting<T>, key: &str) -> Reported {
        section.refuse(
            ports,
            format!("a device with a `{key}` is a console, which has no other ports"),
            "move it to a `[[device]]` of its own with `type = \"virtio-console\"`",
        )
    }

    fn open(&self) -> Result<ConsoleBackend, DeviceError> {
        let failed = |key, call: &'static str| {
            move |error: io::Error| DeviceError {
                key,
                message: format!("{call}: {error}"),
                help: "raise the limit of open files (ulimit -n)".into(),
            }
        };
        let size = |key| ConsoleSize::new().map_err(failed(key, "eventfd(2)"));
        match self {
            ConsoleConfig::Console(path) => {
                let ports = Ports::Console(listen(SOCKET.name, path)?, size(SOCKET.name)?);
                Ok(ConsoleBackend { ports, terminal: None })
            }
            ConsoleConfig::Terminal => {
                let failed = failed(TERMINAL.name, "socketpair(2)");
                let sockets = UnixStream::pair().and_then(|(device, vmm)| {
                    vmm.set_nonblocking(true)?;
                    Ok((PortSocket::connected(device)?, vmm))
                });
                let (device, vmm) = sockets.map_err(failed)?;
                let ports = Ports::Console(Arc::new(device), size(TERMINAL.name)?);
                Ok(ConsoleBackend { ports, terminal: Some(vmm) })
            }
            ConsoleConfig::Ports(ports) => {
                let ports = ports.iter().map(|(name, path)| Ok((name.clone(), listen(PORTS.name, path)?)));
                let ports = Ports::Named(ports.collect::<Result<_, DeviceError>>()?);
                Ok(ConsoleBackend { ports, terminal: None })
            }
        }
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
pub struct ConsoleBackend {
    ports: Ports,
    /// The VMM's end of the console that is its terminal.
    terminal: Option<UnixStream>,
}

impl ConsoleBackend {
    /// The size of the terminal of a console, for the VMM. `None` if the device has named ports.
    #[must_use]
    pub fn size(&self) -> Option<&ConsoleSize> {
        match &self.ports {
            Ports::Console(_, size) => Some(size),
            Ports::Named(_) => None,
        }
    }

    /// The stream, which does not block, of the console that is the VMM's terminal. `None` for other devices.
    #[must_use]
    pub fn terminal(&self) -> Option<&UnixStream> {
        self.terminal.as_ref()
    }

    fn device(&self, name: &str) -> Box<dyn VirtioDevice> {
        match &self.ports {
            Ports::Console(..) => tracing::info!(device = name, "console attached"),
            Ports::Named(ports) => tracing::info!(device = name, ports = ports.len(), "named ports attached"),
        }
        Box::new(Console::new(self.ports.clone()))
    }
}
