//! A tap: a network interface of the host whose other end is a descriptor.

mod ioctl;

use std::fs::{File, OpenOptions, read_to_string};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::ioctl::{MULTI_QUEUE, NO_PACKET_INFORMATION, TAP, VNET_HEADER};
use super::packet::{HEADER_LEN, MIN_LEN};
use super::port::Port;
use crate::virtio::GroupContext;

const TUN: &str = "/dev/net/tun";

/// Why a tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TapError {
    /// There is no interface of that name.
    #[error("this host has no network interface {0}")]
    Missing(String),
    /// The interface is not a tap.
    #[error("{0} is a network interface, but not a tap")]
    NotATap(String),
    /// The tap has one queue only.
    #[error("{0} is a tap with one queue")]
    OneQueue(String),
    /// The tap has a reader already.
    #[error("{0} is in use by another program (TUNSETIFF)")]
    InUse(String),
    /// The tap belongs to another user.
    #[error("{0} belongs to another user (TUNSETIFF)")]
    Owner(String),
    /// /dev/net/tun cannot be opened.
    #[error("{TUN}: {0}")]
    Device(#[source] io::Error),
    /// The number is not an open descriptor, or cannot be duplicated.
    #[error("descriptor {0} cannot be taken over (pidfd_getfd(2)): {1}")]
    Descriptor(i32, #[source] io::Error),
    /// The descriptor is not that of a tap with the header of offloads.
    #[error("descriptor {0} is not that of a tap with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR")]
    NotATapDescriptor(i32),
    /// An ioctl or a system call failed.
    #[error("{name}: {call}: {source}")]
    Host {
        /// The interface.
        name: String,
        /// The ioctl or system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

impl TapError {
    /// A suggestion for the user.
    pub(super) fn help(&self) -> String {
        match self {
            TapError::Missing(name) => format!(
                "create it as root: `ip tuntap add {name} mode tap user $USER` and `ip link set {name} up`"
            ),
            TapError::NotATap(_) => "name a tap: `ip tuntap list` lists them".to_owned(),
            TapError::OneQueue(name) => format!(
                "create it with `ip tuntap add {name} mode tap multi_queue user $USER`, or remove `queues`"
            ),
            TapError::InUse(_) => "end the machine that uses it, or name another tap".to_owned(),
            TapError::Owner(name) => format!(
                "create it for this user, as root: `ip tuntap del {name} mode tap` and \
                 `ip tuntap add {name} mode tap user $USER`"
            ),
            TapError::Device(error) if error.kind() == io::ErrorKind::NotFound => {
                "load the kernel's module as root: `modprobe tun`".to_owned()
            }
            TapError::Device(_) => format!("get access to {TUN}, which all users usually have (mode 0666)"),
            TapError::Descriptor(..) => {
                "open it in the program that starts ghest, without FD_CLOEXEC".to_owned()
            }
            TapError::NotATapDescriptor(_) => {
                "pass a descriptor that TUNSETIFF has made with these flags".to_owned()
            }
            TapError::Host { .. } => "name another tap".to_owned(),
        }
    }
}

/// A queue of a tap.
#[derive(Debug)]
pub(super) struct Queue {
    file: File,
    is_attached: AtomicBool,
    /// Signalled when the queue is attached: a queue is not watched from its detachment on.
    attached: EventFd,
}

impl Queue {
    /// Whether the kernel distributes packets to the queue. Another thread may be about to change that.
    pub(super) fn is_attached(&self) -> bool {
        self.is_attached.load(Ordering::SeqCst)
    }

    /// Signalled when the queue is attached.
    pub(super) fn attached(&self) -> &EventFd {
        &self.attached
    }

    /// Has a ring of vhost-net use the queue, or stops the ring.
    pub(super) fn set_vhost(&self, vhost: &File, ring: usize, is_used: bool) -> rustix::io::Result<()> {
        ioctl::set_vhost_backend(vhost, ring as u32, is_used.then(|| self.file.as_fd()))
    }
}

/// An open tap, with its queues.
#[derive(Debug)]
pub(super) struct Tap {
    queues: Vec<Arc<Queue>>,
    /// How many queues are attached: the first ones.
    attached: Mutex<usize>,
    /// Whether the kernel segments UDP.
    has_uso: bool,
}

impl Tap {
    /// Attaches to an interface that exists, with so many queues.
    ///
    /// # Errors
    /// Returns an error if there is no such tap, or this user cannot have that many of its queues.
    pub(super) fn open(name: &str, queues: u16) -> Result<Self, TapError> {
        // TUNSETIFF creates a missing interface, if the user may.
        if !is_interface(name) {
            return Err(TapError::Missing(name.to_owned()));
        }
        let base = TAP | NO_PACKET_INFORMATION | VNET_HEADER;
        let first = match attach(name, if queues > 1 { base | MULTI_QUEUE } else { base }) {
            // One queue of a tap that has several.
            Err(Refused::Flags) if queues == 1 => attach(name, base | MULTI_QUEUE),
            outcome => outcome,
        };
        let first = first.map_err(|error| error.explained(name))?;
        let others =
            (1..queues).map(|_| attach(name, base | MULTI_QUEUE).map_err(|error| error.explained(name)));
        Tap::new(name, [Ok(first)].into_iter().chain(others).collect::<Result<_, _>>()?)
    }

    /// Takes over a tap from the program that has started this one.
    ///
    /// # Errors
    /// Returns an error if the descriptor is not that of a tap with the header of offloads.
    pub(super) fn inherited(descriptor: i32) -> Result<Self, TapError> {
        let refused = |error: rustix::io::Errno| TapError::Descriptor(descriptor, error.into());
        // A duplicate: the number itself has no owner in this program.
        let this = pidfd_open(getpid(), PidfdFlags::empty()).map_err(refused)?;
        let file = pidfd_getfd(this, descriptor, PidfdGetfdFlags::empty()).map_err(refused)?;
        let (name, flags) = ioctl::interface(&file).map_err(|_| TapError::NotATapDescriptor(descriptor))?;
        let needed = TAP | NO_PACKET_INFORMATION | VNET_HEADER;
        if flags & needed != needed {
            return Err(TapError::NotATapDescriptor(descriptor));
        }
        set_nonblocking(&file).map_err(host(&name, "fcntl(2)"))?;
        // The programs that this one starts have no use for it.
        ioctl::close_on_exec(descriptor).map_err(host(&name, "FIOCLEX"))?;
        Tap::new(&name, vec![file.into()])
    }

    fn new(name: &str, queues: Vec<File>) -> Result<Self, TapError> {
        for queue in &queues {
            ioctl::set_header_len(queue, HEADER_LEN as i32).map_err(host(name, "TUNSETVNETHDRSZ"))?;
        }
        let attached = Mutex::new(queues.len());
        let queue = |file| {
            let attached = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(|source| TapError::Host {
                name: name.to_owned(),
                call: "eventfd(2)",
                source,
            })?;
            Ok(Arc::new(Queue { file, is_attached: AtomicBool::new(true), attached }))
        };
        let queues = queues.into_iter().map(queue).collect::<Result<Vec<_>, TapError>>()?;
        // Linux 6.2.
        let has_uso = queues.first().is_some_and(|queue| {
            ioctl::set_offloads(&queue.file, ioctl::CHECKSUM | ioctl::USO4 | ioctl::USO6).is_ok()
        });
        let tap = Tap { queues, attached, has_uso };
        tap.set_offloads(0).map_err(host(name, "TUNSETOFFLOAD"))?;
        Ok(tap)
    }

    /// Pairs of queues that a device can have.
    pub(super) fn queues(&self) -> u16 {
        self.queues.len() as u16
    }

    /// Checks what can be seen of an interface without attaching to it. One that does not exist is not an error.
    ///
    /// # Errors
    /// Returns an error if it is not a tap.
    pub(super) fn inspect(name: &str) -> Result<(), TapError> {
        let directory = Path::new("/sys/class/net").join(name);
        if directory.exists() && tun_flags(name).is_none_or(|flags| flags & TAP == 0) {
            return Err(TapError::NotATap(name.to_owned()));
        }
        Ok(())
    }

    /// Whether the kernel takes UDP packets that are to be segmented (VIRTIO_NET_F_HOST_USO).
    pub(super) fn has_uso(&self) -> bool {
        self.has_uso
    }

    /// Sets what received packets may leave to the driver, by its features.
    pub(super) fn set_offloads(&self, features: u64) -> rustix::io::Result<()> {
        let offloads = [
            (VIRTIO_NET_F_GUEST_TSO4, ioctl::TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, ioctl::TSO6),
            (VIRTIO_NET_F_GUEST_ECN, ioctl::TSO_ECN),
        ];
        let has = |feature: u32| features & 1 << feature != 0;
        let offloads = match has(VIRTIO_NET_F_GUEST_CSUM) {
            true => offloads
                .iter()
                .filter(|(feature, _)| has(*feature))
                .fold(ioctl::CHECKSUM, |set, (_, it)| set | it),
            // The others need it (VIRTIO 1.2, 5.1.3.1).
            false => 0,
        };
        self.queues.first().map_or(Ok(()), |queue| ioctl::set_offloads(&queue.file, offloads))
    }

    /// Attaches the first `count` queues, to which the kernel distributes packets, and detaches the others.
    pub(super) fn use_queues(&self, count: usize) -> rustix::io::Result<()> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        while *attached > count {
            let queue = &self.queues[*attached - 1];
            ioctl::set_queue(&queue.file, false)?;
            queue.is_attached.store(false, Ordering::SeqCst);
            *attached -= 1;
        }
        while *attached < count.min(self.queues.len()) {
            let queue = &self.queues[*attached];
            ioctl::set_queue(&queue.file, true)?;
            queue.is_attached.store(true, Ordering::SeqCst);
            // Fails only if 2^64 - 2 writes are pending.
            let _ = queue.attached.write(1);
            *attached += 1;
        }
        Ok(())
    }

    /// A queue. `None` if there is no such queue.
    pub(super) fn queue(&self, queue: usize) -> Option<&Arc<Queue>> {
        self.queues.get(queue)
    }
}

/// Why TUNSETIFF failed.
enum Refused {
    /// It is of another type, or has another number of queues.
    Flags,
    Device(io::Error),
    Other(rustix::io::Errno),
}

fn attach(name: &str, flags: u16) -> Result<File, Refused> {
    let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN);
    let tun = options.map_err(Refused::Device)?;
    match ioctl::attach(&tun, name, flags) {
        Ok(()) => Ok(tun),
        Err(rustix::io::Errno::INVAL) => Err(Refused::Flags),
        Err(error) => Err(Refused::Other(error)),
    }
}

impl Refused {
    fn explained(self, name: &str) -> TapError {
        let named = name.to_owned();
        match self {
            Refused::Device(error) => TapError::Device(error),
            Refused::Flags => match tun_flags(name) {
                Some(flags) if flags & TAP != 0 && flags & MULTI_QUEUE == 0 => TapError::OneQueue(named),
                _ => TapError::NotATap(named),
            },
            Refused::Other(rustix::io::Errno::BUSY | rustix::io::Errno::TOOBIG) => TapError::InUse(named),
            Refused::Other(rustix::io::Errno::PERM) => TapError::Owner(named),
            Refused::Other(error) => host(name, "TUNSETIFF")(error),
        }
    }
}

fn is_interface(name: &str) -> bool {
    // Any socket serves for SIOCGIFINDEX.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.is_ok_and(|socket| name_to_index(socket, name).is_ok())
}

/// The flags of an interface. `None` if it is neither a tap nor a tun.
fn tun_flags(name: &str) -> Option<u16> {
    let text = read_to_string(Path::new("/sys/class/net").join(name).join("tun_flags")).ok()?;
    u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

fn set_nonblocking(file: &OwnedFd) -> rustix::io::Result<()> {
    fcntl_setfl(file, fcntl_getfl(file)? | OFlags::NONBLOCK)
}

fn host<'a>(name: &'a str, call: &'static str) -> impl Fn(rustix::io::Errno) -> TapError + 'a {
    move |error| TapError::Host { name: name.to_owned(), call, source: error.into() }
}

/// A queue of a tap, as its thread uses it.
pub(super) struct TapPort {
    queue: Arc<Queue>,
    /// Whether there may be a packet: what epoll reports once only.
    is_readable: bool,
}

impl TapPort {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        TapPort { queue, is_readable: true }
    }
}

/// Tokens of the descriptors.
const PACKETS: u32 = 0;
const ATTACHED: u32 = 1;

impl Port for TapPort {
    fn start(&mut self, context: &GroupContext<'_>) -> io::Result<()> {
        self.is_readable = true;
        context.watch(&self.queue.file, PACKETS, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        context.watch(&self.queue.attached, ATTACHED, EventSet::IN)
    }

    fn ready(&mut self, token: u32, _: EventSet, context: &GroupContext<'_>) -> io::Result<()> {
        self.is_readable = true;
        if token == ATTACHED {
            // Does not block: EAGAIN if an earlier event was for it.
            let _ = self.queue.attached.read();
            context.unwatch(&self.queue.file)?;
            context.watch(&self.queue.file, PACKETS, EventSet::IN | EventSet::EDGE_TRIGGERED)?;
        }
        Ok(())
    }

    fn look_again(&mut self) {
        self.is_readable = true;
    }

    fn receive(&mut self, packet: &mut [u8], _: &GroupContext<'_>) -> io::Result<Option<usize>> {
        while self.is_readable {
            match (&self.queue.file).read(packet) {
                Ok(len) if len >= MIN_LEN => return Ok(Some(len)),
                Ok(0) => self.is_readable = false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // A queue that is detached (EBADFD), or an interface that is gone.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(%error, "a tap cannot be read");
                    }
                    self.is_readable = false;
                }
            }
        }
        Ok(None)
    }

    /// The kernel takes a packet at once, or refuses it.
    fn can_send(&mut self, _: &GroupContext<'_>) -> io::Result<bool> {
        Ok(true)
    }

    fn send(&mut self, packet: &mut [u8], _: &GroupContext<'_>) -> io::Result<()> {
        if let Err(error) = (&self.queue.file).write(packet) {
            // An interface that is down (EIO), or a header that is not valid (EINVAL).
            tracing::debug!(%error, "a packet is dropped: a tap cannot be written");
        }
        Ok(())
    }
}
