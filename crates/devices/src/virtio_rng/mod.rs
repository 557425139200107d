//! A virtio entropy device (VIRTIO 1.2, 5.4), with one queue.
//!
//! It has no features and no configuration. A request is a chain of device-writable buffers, which are filled with bytes of
//! getrandom(2), the random number generator of the host's kernel. A request gets [`MAX_REQUEST`] bytes at most; the driver
//! makes another request for more, as VIRTIO 1.2, 5.4.6 permits. A request without a device-writable buffer is used with 0 bytes.

use std::io;

use machine_profile::device_kind::{DeviceSection, Reported};
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::virtio::{
    Activation, Buffers, QueueHandler, QueueWorkers, Request, StopFlag, VirtioDevice, VirtioKind, per_request,
};

/// `type = "virtio-rng"`.
pub static KIND: VirtioKind<RngConfig, RngConfig> = VirtioKind {
    name: "virtio-rng",
    doc: "a hardware random number generator, which the host's getrandom(2) feeds",
    keys: &[],
    read: RngConfig::read,
    inspect: |_| Ok(()),
    open: |config| Ok(*config),
    build: RngConfig::build,
};

/// The configuration of an entropy device: it has no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngConfig;

impl RngConfig {
    fn read(_: &mut DeviceSection<'_>) -> Result<Self, Reported> {
        Ok(RngConfig)
    }

    fn build(&self, name: &str) -> Box<dyn VirtioDevice> {
        tracing::info!(device = name, "entropy device attached");
        Box::new(Rng::default())
    }
}

/// An entropy device.
#[derive(Default)]
pub struct Rng {
    /// `Some` while the device is active.
    workers: Option<QueueWorkers>,
}

/// Maximum size of the queue, in elements.
const QUEUE_SIZE: u16 = 64;
/// Most bytes that one request gets.
pub const MAX_REQUEST: u64 = 64 << 10;

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        self.workers = Some(QueueWorkers::start("virtio-rng", activation, [per_request(0, Source)])?);
        Ok(())
    }

    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        self.workers.as_mut()
    }

    fn reset(&mut self) {
        self.workers = None;
    }
}

/// Fills the buffers of requests.
struct Source;

impl QueueHandler for Source {
    fn handle(&mut self, request: Request<'_>, stop: &StopFlag) -> u32 {
        let mut to = request.writable;
        let len = to.len();
        if let Err(error) = fill(&mut to, stop) {
            // A guest can provoke this at will: a buffer that is not memory.
            tracing::debug!(%error, "a request of an entropy device fails");
        }
        u32::try_from(len - to.len()).unwrap_or(u32::MAX)
    }
}

fn fill(to: &mut Buffers<'_>, stop: &StopFlag) -> Result<(), Box<dyn std::error::Error>> {
    let mut left = to.len().min(MAX_REQUEST);
    let mut bytes = [0; 256];
    while left > 0 && !stop.is_set() {
        let len = bytes.len().min(usize::try_from(left)?);
        let len = getrandom(&mut bytes[..len], GetRandomFlags::empty())?;
        to.write(&bytes[..len])?;
        left -= len as u64;
    }
    Ok(())
}
