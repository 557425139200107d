//! virtio as a driver sees it: registers, rings in guest memory, and what becomes of a disk's file.

mod block;
mod disk;
mod driver;
mod hostile_guest;
mod poison_observer;
mod transport;
