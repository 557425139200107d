//! virtio devices, tested by a driver: registers, rings in guest memory, and a disk's file.

mod block;
mod disk;
mod driver;
mod groups;
mod hostile_guest;
#[cfg(feature = "virtio-net")]
mod hostile_net;
#[cfg(feature = "virtio-net")]
mod net;
#[cfg(feature = "virtio-net")]
mod net_queues;
mod poison_observer;
mod poisoned_rings;
#[cfg(feature = "virtio-rng")]
mod rng;
mod transport;
#[cfg(feature = "virtio-fs")]
mod vhost_user;
mod workers;
