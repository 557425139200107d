//! A virtio network interface (VIRTIO 1.2, 5.1), connected to a tap or to passt.
//!
//! | feature | |
//! |---|---|
//! | VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS | always; the link is down while nobody is at the other end of the connection to passt |
//! | VIRTIO_NET_F_MTU | if the configuration has an MTU |
//! | VIRTIO_NET_F_MRG_RXBUF | always |
//! | VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, _TSO6, _ECN | with a tap: the kernel fills in checksums and divides segments |
//! | VIRTIO_NET_F_HOST_USO | with a tap of Linux 6.2 or later |
//! | VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, _TSO6, _ECN | with a tap, as far as the driver accepts them |
//! | VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ | with a tap of several queues |
//!
//! passt takes and sends complete frames: a packet that needs an offload, which no driver may send, is dropped.
//!
//! A packet is dropped, as a network drops packets, if its chain is malformed or has the wrong direction, if it is shorter than
//! a header or longer than 65,550 bytes, if one of its buffers is not memory or is poisoned, or if the driver's buffers are too
//! short for it. The buffers return to the driver, those of a received packet with a length of 0. A poisoned page of a queue or
//! of a descriptor sets DEVICE_NEEDS_RESET. Packets wait in the driver's queue while passt does not take them, and at the host
//! while the driver has no buffers.
//!
//! Each pair of queues has a thread, which waits for the driver and the host at once. With `vhost`, the host's kernel serves the
//! queues of a tap as long as no page of guest memory is poisoned, and the thread forwards its notifications. A rate limit holds for each direction of the
//! interface, over all its pairs: packets wait where they wait for the other side too.

mod config;
mod connection;
mod control;
mod mac;
mod packet;
mod pair;
mod passt;
mod port;
mod stream;
mod tap;
mod vhost;
mod vhost_pair;

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};
use zerocopy::little_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

pub use self::config::{KIND, LinkConfig, NetConfig};
use self::connection::Connection;
use self::control::Control;
pub use self::mac::MacAddress;
use self::pair::{Limiters, Pair};
use self::tap::{Tap, TapPort};
use self::vhost::VhostNet;
use self::vhost_pair::VhostPair;
use crate::rate_limit::{RateLimit, RateLimiter};
use crate::virtio::{Activation, Group, QueueWorkers, VirtioDevice, per_request};

/// The host's side of a network interface: open, and kept across resets.
#[derive(Clone, Debug)]
pub struct NetBackend {
    config: NetConfig,
    link: Link,
    limits: Option<Limits>,
    /// One for each pair of queues, if the kernel serves them.
    vhost: Option<Vec<Arc<VhostNet>>>,
}

/// The rate limits of each direction.
#[derive(Clone, Debug)]
struct Limits {
    receive: Arc<RateLimit>,
    transmit: Arc<RateLimit>,
}

/// What it is connected to.
#[derive(Clone, Debug)]
enum Link {
    Tap(Arc<Tap>),
    Connection(Arc<Connection>),
}

impl NetBackend {
    /// Pairs of queues: those of the tap.
    fn queue_pairs(&self) -> u16 {
        match &self.link {
            Link::Tap(tap) => tap.queues(),
            Link::Connection(_) => 1,
        }
    }

    /// A thread's access to the rate limits.
    fn limiters(&self) -> io::Result<Limiters> {
        let Some(Limits { receive, transmit }) = &self.limits else { return Ok(Limiters::default()) };
        Ok(Limiters {
            receive: Some(RateLimiter::new(Arc::clone(receive))?),
            transmit: Some(RateLimiter::new(Arc::clone(transmit))?),
        })
    }

    fn is_up(&self) -> bool {
        match &self.link {
            Link::Tap(_) => true,
            Link::Connection(connection) => connection.is_up(),
        }
    }
}

/// A network interface that a driver can use.
pub struct Net {
    backend: NetBackend,
    queue_max_sizes: Vec<u16>,
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// Maximum size of a queue of packets and of the control queue, in elements.
const QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE_SIZE: u16 = 16;

/// The part of `struct virtio_net_config` (VIRTIO 1.2, 5.1.4) that the offered features need.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Config {
    mac: [u8; 6],
    status: U16,
    max_virtqueue_pairs: U16,
    mtu: U16,
}

const _: () = assert!(size_of::<Config>() == 12);

/// A set of one feature.
const fn feature(bit: u32) -> u64 {
    1 << bit
}

impl Net {
    /// A device that is connected to an open backend.
    #[must_use]
    pub fn new(backend: NetBackend) -> Self {
        let pairs = backend.queue_pairs();
        let mut queue_max_sizes = vec![QUEUE_SIZE; 2 * usize::from(pairs)];
        if pairs > 1 {
            queue_max_sizes.push(CONTROL_QUEUE_SIZE);
        }
        Net { backend, queue_max_sizes, workers: None }
    }

    /// The groups of queues of a driver that has accepted these features.
    fn groups(&self, features: u64) -> io::Result<Vec<Group>> {
        let has = |bit: u32| features & feature(bit) != 0;
        let mergeable = has(VIRTIO_NET_F_MRG_RXBUF);
        let tap = match &self.backend.link {
            Link::Connection(connection) => {
                let pair = Pair::new(connection.port()?, [0, 1], mergeable, self.backend.limiters()?);
                return Ok(vec![(vec![0, 1], Box::new(pair))]);
            }
            Link::Tap(tap) => tap,
        };
        // Without a control queue, a driver cannot use more than one pair.
        let pairs =
            if has(VIRTIO_NET_F_MQ) && has(VIRTIO_NET_F_CTRL_VQ) { self.backend.queue_pairs() } else { 1 };
        tap.set_offloads(features)?;
        // Until the driver says how many it uses (VIRTIO 1.2, 5.1.5).
        tap.use_queues(1)?;
        let mut groups: Vec<Group> = Vec::new();
        for pair in 0..pairs {
            let queues = [2 * pair, 2 * pair + 1];
            let queue = tap.queue(pair.into()).ok_or(io::ErrorKind::NotFound)?;
            let own = Pair::new(TapPort::new(Arc::clone(queue)), queues, mergeable, self.backend.limiters()?);
            let vhost = self.backend.vhost.as_ref().and_then(|vhost| vhost.get(usize::from(pair)));
            groups.push((
                queues.to_vec(),
                match vhost {
                    Some(vhost) => {
                        let (vhost, tap) = (Arc::clone(vhost), Arc::clone(queue));
                        Box::new(VhostPair::new(vhost, tap, features, queues, own)?)
                    }
                    None => Box::new(own),
                },
            ));
        }
        if has(VIRTIO_NET_F_CTRL_VQ) {
            // Behind the pairs, of which there is one without VIRTIO_NET_F_MQ (VIRTIO 1.2, 5.1.2).
            groups.push(per_request(2 * pairs, Control::new(Arc::clone(tap), pairs)));
        }
        Ok(groups)
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_max_sizes
    }

    fn features(&self) -> u64 {
        let NetBackend { config, link, .. } = &self.backend;
        let mut features =
            feature(VIRTIO_NET_F_MAC) | feature(VIRTIO_NET_F_STATUS) | feature(VIRTIO_NET_F_MRG_RXBUF);
        if config.mtu.is_some() {
            features |= feature(VIRTIO_NET_F_MTU);
        }
        if let Link::Tap(tap) = link {
            features |= feature(VIRTIO_NET_F_CSUM)
                | feature(VIRTIO_NET_F_HOST_TSO4)
                | feature(VIRTIO_NET_F_HOST_TSO6)
                | feature(VIRTIO_NET_F_HOST_ECN)
                | feature(VIRTIO_NET_F_GUEST_CSUM)
                | feature(VIRTIO_NET_F_GUEST_TSO4)
                | feature(VIRTIO_NET_F_GUEST_TSO6)
                | feature(VIRTIO_NET_F_GUEST_ECN);
            if tap.has_uso() {
                features |= feature(VIRTIO_NET_F_HOST_USO);
            }
        }
        if self.backend.queue_pairs() > 1 {
            features |= feature(VIRTIO_NET_F_MQ) | feature(VIRTIO_NET_F_CTRL_VQ);
        }
        features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = Config {
            mac: self.backend.config.mac.0,
            status: U16::new(if self.backend.is_up() { VIRTIO_NET_S_LINK_UP as u16 } else { 0 }),
            max_virtqueue_pairs: U16::new(self.backend.queue_pairs()),
            mtu: U16::new(self.backend.config.mtu.unwrap_or_default()),
        };
        let from = usize::try_from(offset).ok().and_then(|offset| config.as_bytes().get(offset..));
        data.iter_mut().zip(from.unwrap_or_default()).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let groups = self.groups(activation.features)?;
        self.workers = Some(QueueWorkers::start("virtio-net", activation, groups)?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}
