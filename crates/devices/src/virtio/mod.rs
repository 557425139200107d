//! The virtio core (VIRTIO 1.2, OASIS, July 2022): what every device needs, whatever its transport.
//!
//! A device implements [`VirtioDevice`]. A transport ([`crate::virtio_mmio`]) owns the device, implements the registers that
//! the driver accesses, and passes the device its queues at DRIVER_OK. The device serves its queues on threads of its own
//! until a queue is stopped or the device is reset or dropped: [`QueueWorkers`] does that for a device that divides its queues
//! into groups and gives it a [`QueueGroup`] for each.
//!
//! Every access to guest memory goes through [`DeviceMemory`]. A poisoned page in a buffer fails the request; one in a ring
//! or in a descriptor sets DEVICE_NEEDS_RESET, and the device works again after the driver's reset. Both are reported to the
//! [`PoisonObserver`](crate::PoisonObserver).
//!
//! | device | type | profile |
//! |---|---|---|
//! | [`crate::virtio_net`] | 1 | `virtio-net` |
//! | [`crate::virtio_block`] | 2 | `virtio-block` |
//! | [`crate::virtio_console`] | 3 | `virtio-console` |
//! | [`crate::virtio_rng`] | 4 | `virtio-rng` |
//! | [`crate::virtio_balloon`] | 5 | `virtio-balloon` |
//! | [`crate::virtio_vsock`] | 19 | `virtio-vsock` |
//! | [`crate::virtio_fs`] | 26 | `virtio-fs` |
//!
//! A driver detects a transport by the tables. An MP table cannot describe one: Linux learns of it from its command line
//! ([`Kind::kernel_parameter`](crate::kind::Kind::kernel_parameter)).

mod buffers;
mod chain;
mod group;
mod interrupt;
mod kind;
mod memory;
mod queue;
mod worker;

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

pub use self::buffers::{Buffers, CopyError, Request, Segments};
#[cfg(any(feature = "vhost-user", feature = "virtio-net"))]
pub(crate) use self::group::LentQueue;
pub use self::group::{Group, GroupContext, QueueGroup, QueueHandler, ServeError, Taken, per_request};
pub use self::interrupt::Interrupt;
pub use self::kind::VirtioKind;
pub use self::memory::DeviceMemory;
pub use self::queue::{Queue, QueueError, QueueLayout};
pub use self::worker::{QueueWorkers, StopFlag};

/// A device, apart from its transport. The transport calls it on the vCPU's thread, one call at a time.
pub trait VirtioDevice: Send {
    /// Device type (VIRTIO 1.2, 5).
    fn device_type(&self) -> u32;

    /// The maximum size of each queue, in elements: a power of two, 32768 at most. The same at every call.
    fn queue_max_sizes(&self) -> &[u16];

    /// The device-specific features that it offers (feature n is bit n; n is 0 to 23 or at least 50).
    fn features(&self) -> u64;

    /// The features of its rings that it offers, of [`Queue::FEATURES`]. The default is for a device that accesses them by [`Queue`].
    fn ring_features(&self) -> u64 {
        Queue::FEATURES
    }

    /// Reads the configuration space from `offset` on. `data` is zero at first: bytes past the end of the configuration
    /// are left alone.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes to the configuration space from `offset` on. The default is for a read-only configuration: the write is
    /// ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts to serve the queues. Called at DRIVER_OK, and not again until [`reset`](Self::reset).
    ///
    /// # Errors
    /// Returns an error if a resource of the host is missing (a thread, an eventfd). The transport sets DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// The threads that serve the queues while the device is active. The default is for a device that serves its queues in
    /// another way, and implements the next two methods itself.
    fn workers(&mut self) -> Option<&mut QueueWorkers> {
        None
    }

    /// Stops serving a queue, which the driver no longer uses. When this returns, the device accesses neither the queue nor the
    /// buffers of requests that it took from it; a request in progress is abandoned. Called while the device is active
    /// only.
    fn stop_queue(&mut self, queue: u16) {
        if let Some(workers) = self.workers() {
            workers.stop_queue(queue);
        }
    }

    /// Starts to serve a queue that was stopped, or that was not ready when the device was activated. Called while the
    /// device is active only.
    ///
    /// # Errors
    /// As [`activate`](Self::activate).
    fn start_queue(&mut self, index: u16, queue: Queue) -> io::Result<()> {
        self.workers().ok_or(io::ErrorKind::NotFound)?.start_queue(index, queue)
    }

    /// Resets the device. When this returns, it accesses no guest memory and raises no interrupt.
    fn reset(&mut self);
}

/// What a device works with from DRIVER_OK on.
#[non_exhaustive]
pub struct Activation {
    /// The guest's memory.
    pub memory: DeviceMemory,
    /// The negotiated features.
    pub features: u64,
    /// The queues by index; `None` for a queue that the driver did not make ready.
    pub queues: Vec<Option<Queue>>,
    /// Notifies the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// By index of the queue: an eventfd that each available buffer notification of the driver signals, and possibly nobody.
    pub kicks: Arc<[Arc<EventFd>]>,
    /// Whether [`QueueWorkers::run_until_idle`] serves the queues, and no thread.
    #[cfg(feature = "testing")]
    pub(crate) without_threads: bool,
}

impl Activation {
    /// An activation of these fields.
    #[must_use]
    pub fn new(
        memory: DeviceMemory,
        features: u64,
        queues: Vec<Option<Queue>>,
        interrupt: Arc<dyn Interrupt>,
        kicks: Arc<[Arc<EventFd>]>,
    ) -> Self {
        Activation {
            memory,
            features,
            queues,
            interrupt,
            kicks,
            #[cfg(feature = "testing")]
            without_threads: false,
        }
    }
}
