//! The section of a network device in a profile, and the device that it makes.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;

use machine_profile::device_kind::{
    Default, DeviceSection, FilePath, Flag, Integer, Key, Optional, RateLimits, Rates, Reported, Setting,
    Text,
};

use super::connection::Connection;
use super::mac::{MacAddress, MacForm};
use super::passt::PasstError;
use super::tap::{Tap, TapError};
use super::vhost::{VhostError, VhostNet};
use super::{Limits, Net, NetBackend};
use crate::kind::DeviceError;
use crate::rate_limit::RateLimit;
use crate::virtio::VirtioKind;

/// `type = "virtio-net"`.
pub static KIND: VirtioKind<NetConfig, NetBackend> = VirtioKind {
    name: "virtio-net",
    doc: "a network interface",
    keys: &[&TAP, &FD, &PASST, &SOCKET, &MAC, &MTU, &QUEUES, &VHOST, &RATE_LIMIT],
    read: NetConfig::read,
    inspect: NetConfig::inspect,
    open: NetConfig::open,
    build: |backend, name| {
        tracing::info!(device = name, mac = %backend.config.mac, "network interface attached");
        Box::new(Net::new(backend.clone()))
    },
};

/// The configuration of a network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// What it is connected to.
    pub link: LinkConfig,
    /// Its address.
    pub mac: MacAddress,
    /// The MTU that the guest is to use, 68 to 65535. `None`: the guest's own.
    pub mtu: Option<u16>,
    /// Pairs of queues of a tap by name, at least 1. Other links have one.
    pub queue_pairs: u16,
    /// Whether the host's kernel serves the queues of a tap.
    pub vhost: bool,
    /// Limits of each direction.
    pub rate_limit: Option<RateLimits>,
}

/// What a network device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkConfig {
    /// A tap of that name, which exists.
    Tap(String),
    /// A tap, as a descriptor that this program has inherited.
    Descriptor(i32),
    /// passt, which this program starts.
    Passt,
    /// A running passt, by the path of its socket.
    Socket(PathBuf),
}

static TAP: Key<Text, Optional> = Key {
    name: "tap",
    doc: "The tap, a network interface of the host, which this user owns.",
    form: Text {
        min: 1,
        max: (15, "the limit of Linux for interfaces"),
        refused: &['\0'..=' ', '/'..='/', ':'..=':'],
        example: "tap0",
    },
    absent: Optional("one of fd, passt and socket is given"),
};
static FD: Key<Integer, Optional> = Key {
    name: "fd",
    doc: "A tap, as the number of a descriptor that ghest inherits, with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.",
    form: Integer { min: 3, max: 1 << 20, example: 3 },
    absent: Optional("one of tap, passt and socket is given"),
};
static PASST: Key<Flag, Default<bool>> = Key {
    name: "passt",
    doc: "Whether ghest starts passt, a network without privileges that ends with the machine.",
    form: Flag,
    absent: Default(false),
};
static SOCKET: Key<FilePath, Optional> = Key {
    name: "socket",
    doc: "The socket of a running passt, relative to the profile. When passt is started again, ghest connects to it again.",
    form: FilePath { example: "passt.socket" },
    absent: Optional("one of tap, fd and passt is given"),
};
static MAC: Key<MacForm, Optional> = Key {
    name: "mac",
    doc: "The MAC address of the guest's interface.",
    form: MacForm,
    absent: Optional(
        "a locally administered address, the same for each start: derived from the machine's name and the device's position",
    ),
};
static MTU: Key<Integer, Optional> = Key {
    name: "mtu",
    doc: "The MTU of the guest's interface in bytes, which the host's has to match.",
    form: Integer { min: 68, max: 65_535, example: 9000 },
    absent: Optional("the guest's own, which is 1500 for Linux"),
};
static QUEUES: Key<Integer, Default<u32>> = Key {
    name: "queues",
    doc: "Pairs of queues, each with a thread: a tap with `multi_queue` can have several.",
    form: Integer { min: 1, max: 16, example: 2 },
    absent: Default(1),
};
static VHOST: Key<Flag, Default<bool>> = Key {
    name: "vhost",
    doc: "Whether the host's kernel serves the queues of a tap, by vhost-net. An uncorrected error of guest memory that the kernel is the \
          first to access may then end the host.",
    form: Flag,
    absent: Default(false),
};
static RATE_LIMIT: Key<Rates, Optional> = Key {
    name: "rate-limit",
    doc: "Limits of each direction: bytes of frames (bandwidth) and packets (operations) in a second.",
    form: Rates,
    absent: Optional("no limits"),
};

impl NetConfig {
    fn read(section: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        let (tap, fd) = (section.optional(&TAP), section.optional(&FD));
        let (passt, socket) = (section.value(&PASST), section.optional_socket(&SOCKET));
        let (mac, mtu, queues) = (section.optional(&MAC), section.optional(&MTU), section.value(&QUEUES));
        let (vhost, rate_limit) = (section.value(&VHOST), section.optional(&RATE_LIMIT));
        let link = read_link(section, tap?, fd?, passt?, socket?)?;
        let queues = queues?;
        if queues.value > 1 && !matches!(link, LinkConfig::Tap(_)) {
            let help = "name a `tap` that was created with `multi_queue`, or remove `queues`";
            return Err(section.refuse(&queues, "only a `tap` has several", help));
        }
        let (vhost, rate_limit) = (vhost?, rate_limit?);
        if vhost.value && !matches!(link, LinkConfig::Tap(_) | LinkConfig::Descriptor(_)) {
            let help = "connect the device to a `tap` or its `fd`, or remove `vhost`";
            return Err(section.refuse(&vhost, "passt has no vhost-net", help));
        }
        if let Some(limits) = rate_limit.as_ref().filter(|_| vhost.value) {
            let help = "remove `rate-limit`, or `vhost`";
            return Err(section.refuse(limits, "vhost-net has no limits, and `vhost` requests it", help));
        }
        let derived = || MacAddress::derived(section.machine(), section.index());
        Ok(NetConfig {
            link,
            mac: mac?.map_or_else(derived, |mac| mac.value),
            mtu: mtu?.and_then(|mtu| u16::try_from(mtu.value).ok()),
            queue_pairs: u16::try_from(queues.value).unwrap_or(u16::MAX),
            vhost: vhost.value,
            rate_limit: rate_limit.map(|limits| limits.value),
        })
    }

    /// Checks what can be seen of the host.
    fn inspect(&self) -> Result<(), DeviceError> {
        match &self.link {
            LinkConfig::Tap(name) => Tap::inspect(name).map_err(|error| tap_error(TAP.name, &error)),
            LinkConfig::Socket(path) if path.metadata().is_ok_and(|file| !file.file_type().is_socket()) => {
                Err(DeviceError {
                    key: SOCKET.name,
                    message: format!("{}: this is not a socket", path.display()),
                    help: "name the socket of passt (`passt --socket PATH`)".into(),
                })
            }
            LinkConfig::Descriptor(_) | LinkConfig::Passt | LinkConfig::Socket(_) => Ok(()),
        }
    }

    /// Opens what the device is connected to.
    ///
    /// # Errors
    /// Returns an error if the host does not have it.
    pub fn open(&self) -> Result<NetBackend, DeviceError> {
        let link = match &self.link {
            LinkConfig::Tap(name) => {
                let tap = Tap::open(name, self.queue_pairs).map_err(|error| tap_error(TAP.name, &error))?;
                super::Link::Tap(Arc::new(tap))
            }
            LinkConfig::Descriptor(number) => {
                let tap = Tap::inherited(*number).map_err(|error| tap_error(FD.name, &error))?;
                super::Link::Tap(Arc::new(tap))
            }
            LinkConfig::Passt => {
                let connection = Connection::to_own_passt(self.mtu).map_err(|error| passt_error(&error))?;
                super::Link::Connection(Arc::new(connection))
            }
            LinkConfig::Socket(path) => {
                let connection = Connection::to_socket(path).map_err(|error| DeviceError {
                    key: SOCKET.name,
                    message: format!(
                        "{}: there is no connection to passt: connect(2): {error}",
                        path.display()
                    ),
                    help: format!(
                        "start it (`passt --socket {}`), or write `passt = true` to have ghest start it",
                        path.display()
                    )
                    .into(),
                })?;
                super::Link::Connection(Arc::new(connection))
            }
        };
        let vhost = match &link {
            super::Link::Tap(tap) if self.vhost => {
                let pairs = (0..tap.queues()).map(|_| VhostNet::open().map(Arc::new));
                Some(pairs.collect::<Result<Vec<_>, _>>().map_err(|error| vhost_error(&error))?)
            }
            super::Link::Tap(_) | super::Link::Connection(_) => None,
        };
        tracing::info!(link = ?self.link, vhost = self.vhost, "network connected");
        let limit = |limits| Arc::new(RateLimit::new(limits));
        let limits = self.rate_limit.map(|of| Limits { receive: limit(of), transmit: limit(of) });
        Ok(NetBackend { config: self.clone(), link, limits, vhost })
    }
}

/// The one thing that a section connects its device to.
fn read_link(
    section: &mut DeviceSection<'_>,
    tap: Option<Setting<String>>,
    fd: Option<Setting<u32>>,
    passt: Setting<bool>,
    socket: Option<Setting<PathBuf>>,
) -> Result<LinkConfig, Reported> {
    const ONE: &str =
        "write one of `tap = \"tap0\"`, `fd = 3`, `passt = true` and `socket = \"passt.socket\"`";
    if let Some(socket) = &socket {
        // One passt serves one device.
        section.uses_file(socket, true);
    }
    let links = [
        tap.map(|tap| tap.map(LinkConfig::Tap)),
        fd.map(|fd| fd.map(|fd| LinkConfig::Descriptor(fd as i32))),
        passt.value.then(|| passt.map(|_| LinkConfig::Passt)),
        socket.map(|socket| socket.map(LinkConfig::Socket)),
    ];
    let mut links = links.into_iter().flatten();
    let first = links.next().ok_or_else(|| section.incomplete("is not connected to anything", ONE))?;
    match links.next() {
        Some(second) => {
            Err(section.refuse(&second, format!("`{}` connects the device already", first.key), ONE))
        }
        None => Ok(first.value),
    }
}

fn tap_error(key: &'static str, error: &TapError) -> DeviceError {
    DeviceError { key, message: error.to_string(), help: error.help().into() }
}

fn vhost_error(error: &VhostError) -> DeviceError {
    DeviceError { key: VHOST.name, message: error.to_string(), help: error.help().into() }
}

fn passt_error(error: &PasstError) -> DeviceError {
    DeviceError { key: PASST.name, message: error.to_string(), help: error.help().into() }
}
