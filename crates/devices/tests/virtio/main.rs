//! virtio devices, tested by a driver: registers, rings in guest memory, and a disk's file.

#[cfg(feature = "virtio-balloon")]
mod balloon;
mod block;
#[cfg(feature = "virtio-console")]
mod console;
mod disk;
mod driver;
mod fairness;
mod groups;
mod hostile_guest;
#[cfg(feature = "virtio-net")]
mod hostile_net;
#[cfg(feature = "virtio-net")]
mod net;
#[cfg(feature = "virtio-net")]
mod net_rate_limit;
mod poison_observer;
mod poisoned_rings;
mod rings;
#[cfg(feature = "virtio-rng")]
mod rng;
mod served;
mod transport;
#[cfg(feature = "virtio-fs")]
mod vhost_user;
#[cfg(feature = "virtio-vsock")]
mod vsock;
mod workers;
