//! The virtio core (VIRTIO 1.2, OASIS, July 2022): what every device needs, whatever its transport.
//!
//! A device implements [`VirtioDevice`]. A transport ([`crate::virtio_mmio`]) owns the device, implements the registers that
//! the driver accesses, and passes the device its queues at DRIVER_OK. The device serves its queues on threads of its own
//! until a queue is stopped or the device is reset or dropped: [`QueueWorkers`] does that for a device that gives it a
//! [`QueueHandler`] for each queue.
//!
//! Every access to guest memory goes through [`DeviceMemory`]. A poisoned page in a buffer fails the request; one in a ring
//! or in a descriptor sets DEVICE_NEEDS_RESET, and the device works again after the driver's reset. Both are reported to the
//! [`PoisonObserver`](crate::PoisonObserver).
//!
//! | device | type | profile |
//! |---|---|---|
//! | [`crate::virtio_block`] | 2 | `virtio-block` |
//!
//! A driver detects a transport by the tables. An MP table cannot describe one: Linux learns of it from its command line
//! ([`kernel_parameter`]).

mod buffers;
mod chain;
mod interrupt;
mod memory;
mod queue;
mod worker;

use std::io;
use std::sync::Arc;

use platform::{AcpiIdentity, DeviceNode, DevicetreeIdentity, Interrupt as Line, Property, Trigger, Window};

pub use self::buffers::{Buffers, CopyError, Request};
pub use self::interrupt::Interrupt;
pub use self::memory::DeviceMemory;
pub use self::queue::{Queue, QueueError, QueueLayout};
pub use self::worker::{QueueHandler, QueueWorkers, StopFlag};
use crate::virtio_mmio;

/// The `_HID` by which Linux and EDK II identify a virtio-mmio transport.
const ACPI_ID: &str = "LNRO0005";

/// Number of transports that have an ACPI name.
pub const MAX_TRANSPORTS: usize = ACPI_NAMES.len();

const ACPI_NAMES: [&str; 32] = [
    "VR00", "VR01", "VR02", "VR03", "VR04", "VR05", "VR06", "VR07", "VR08", "VR09", "VR10", "VR11", "VR12",
    "VR13", "VR14", "VR15", "VR16", "VR17", "VR18", "VR19", "VR20", "VR21", "VR22", "VR23", "VR24", "VR25",
    "VR26", "VR27", "VR28", "VR29", "VR30", "VR31",
];

/// The VMM's name of the transport with that index.
#[must_use]
pub fn name(index: usize) -> String {
    format!("virtio{index}")
}

/// Describes the transport with that index, from 0, at a GPA and on a GSI. ACPI lists the first [`MAX_TRANSPORTS`] only.
#[must_use]
pub fn node(index: usize, base: u64, gsi: u32) -> DeviceNode {
    DeviceNode {
        name: name(index),
        windows: vec![Window::Mmio { base, len: virtio_mmio::LEN }],
        interrupts: vec![Line { gsi, trigger: Trigger::Edge }],
        acpi: ACPI_NAMES.get(index).zip(u32::try_from(index).ok()).map(|(name, uid)| AcpiIdentity {
            name,
            hid: ACPI_ID,
            uid,
            // Without _CCA (ACPI 6.5, 6.2.17), Linux on arm64 takes the device's accesses to be not cache coherent.
            objects: vec![platform::AcpiObject::Integer { name: "_CCA", value: 1 }],
        }),
        devicetree: Some(DevicetreeIdentity {
            node_name: "virtio_mmio",
            compatible: vec!["virtio,mmio"],
            properties: vec![("dma-coherent", Property::Flag)],
            children: vec![],
        }),
    }
}

/// The kernel parameter that describes a transport to a Linux whose tables cannot: the size and address of its registers,
/// and its interrupt (Linux, `drivers/virtio/virtio_mmio.c`). `None` if the node is not a virtio-mmio transport.
#[must_use]
pub fn kernel_parameter(node: &DeviceNode) -> Option<String> {
    node.acpi.as_ref().filter(|identity| identity.hid == ACPI_ID)?;
    let (Window::Mmio { base, len }, interrupt) = (node.windows.first()?, node.interrupts.first()?) else {
        return None;
    };
    Some(format!("virtio_mmio.device={}K@{base:#x}:{}", len / 1024, interrupt.gsi))
}

/// A device, apart from its transport. The transport calls it on the vCPU's thread, one call at a time.
pub trait VirtioDevice: Send {
    /// Device type (VIRTIO 1.2, 5).
    fn device_type(&self) -> u32;

    /// The maximum size of each queue, in elements: a power of two, 32768 at most. The same at every call.
    fn queue_max_sizes(&self) -> &[u16];

    /// The device-specific features that it offers (feature n is bit n; n is 0 to 23 or at least 50).
    fn features(&self) -> u64;

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

    /// The driver sent an available buffer notification for a queue. Called while the device is active only; `queue` may
    /// be any number.
    fn notify(&self, queue: u16);

    /// Stops serving a queue, which the driver no longer uses. When this returns, the device accesses neither the queue nor the
    /// buffers of requests that it took from it; a request in progress is abandoned. Called while the device is active
    /// only.
    fn stop_queue(&mut self, queue: u16);

    /// Starts to serve a queue that was stopped, or that was not ready when the device was activated. Called while the
    /// device is active only.
    ///
    /// # Errors
    /// As [`activate`](Self::activate).
    fn start_queue(&mut self, index: u16, queue: Queue) -> io::Result<()>;

    /// Resets the device. When this returns, it accesses no guest memory and raises no interrupt.
    fn reset(&mut self);
}

/// What a device works with from DRIVER_OK on.
pub struct Activation {
    /// The guest's memory.
    pub memory: DeviceMemory,
    /// The negotiated features.
    pub features: u64,
    /// The queues by index; `None` for a queue that the driver did not make ready.
    pub queues: Vec<Option<Queue>>,
    /// Notifies the driver.
    pub interrupt: Arc<dyn Interrupt>,
}
