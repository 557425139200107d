//! virtio devices, tested by a driver: registers, rings in guest memory, and a disk's file.

#[cfg(feature = "virtio-balloon")]
mod balloon;
mod block;
mod disk;
mod driver;
mod groups;
mod hostile_guest;
mod poison_observer;
mod poisoned_rings;
#[cfg(any(feature = "virtio-balloon", feature = "virtio-vsock"))]
mod rings;
#[cfg(feature = "virtio-rng")]
mod rng;
mod transport;
#[cfg(feature = "virtio-vsock")]
mod vsock;
mod workers;
