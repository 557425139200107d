//! virtio devices (VIRTIO 1.2, OASIS, July 2022) behind registers in memory.
//!
//! A device has a transport, [`mmio::MmioTransport`], which is the registers that its driver finds, and a [`VirtioDevice`],
//! which is what it does. The transport settles everything up to `DRIVER_OK` on the vCPU's thread and hands the device its
//! queues then; the device serves them on a thread of its own until it is reset or dropped.
//!
//! | device | type | profile |
//! |---|---|---|
//! | [`block`] | 2 | `virtio-block` |
//!
//! A driver finds a transport by the tables. An MP table has no word for it: Linux is told on its command line instead,
//! by [`kernel_parameter`].

pub mod block;
mod buffers;
mod chain;
pub mod mmio;
mod signal;

use std::io;
use std::sync::Arc;

use guest_memory::GuestRam;
use platform::{AcpiIdentity, DeviceNode, DevicetreeIdentity, Property, Trigger, Window};
use virtio_queue::Queue;

pub use buffers::CopyError;
pub use signal::Signal;

use crate::poison_observer::PoisonObserver;

/// What Linux and EDK II know a transport as.
const ACPI_ID: &str = "LNRO0005";

/// Transports that tables have names for.
pub const MAX_TRANSPORTS: usize = ACPI_NAMES.len();

const ACPI_NAMES: [&str; 32] = [
    "VR00", "VR01", "VR02", "VR03", "VR04", "VR05", "VR06", "VR07", "VR08", "VR09", "VR10", "VR11", "VR12",
    "VR13", "VR14", "VR15", "VR16", "VR17", "VR18", "VR19", "VR20", "VR21", "VR22", "VR23", "VR24", "VR25",
    "VR26", "VR27", "VR28", "VR29", "VR30", "VR31",
];

/// The name by which the VMM knows the transport with that index.
#[must_use]
pub fn name(index: usize) -> String {
    format!("virtio{index}")
}

/// The transport with that index, from 0, at a GPA and on a GSI. ACPI lists no more than [`MAX_TRANSPORTS`].
#[must_use]
pub fn node(index: usize, base: u64, gsi: u32) -> DeviceNode {
    let node = DeviceNode::new(name(index)).mmio(base, mmio::LEN).interrupt(gsi, Trigger::Edge).devicetree(
        DevicetreeIdentity::new("virtio_mmio", ["virtio,mmio"]).property("dma-coherent", Property::Flag),
    );
    match (ACPI_NAMES.get(index), u32::try_from(index)) {
        // Linux on arm64 takes a device without _CCA for one that bypasses the caches (ACPI 6.5, 6.2.17).
        (Some(name), Ok(uid)) => node.acpi(
            AcpiIdentity::new(name, ACPI_ID)
                .uid(uid)
                .object(platform::AcpiObject::Integer { name: "_CCA", value: 1 }),
        ),
        _ => node,
    }
}

/// What tells a Linux kernel of a transport that its tables have no word for: the size and address of its registers,
/// and its interrupt (Linux, `drivers/virtio/virtio_mmio.c`). None where the node is no transport.
#[must_use]
pub fn kernel_parameter(node: &DeviceNode) -> Option<String> {
    node.acpi.as_ref().filter(|identity| identity.hid == ACPI_ID)?;
    let (Window::Mmio { base, len }, interrupt) = (node.windows.first()?, node.interrupts.first()?) else {
        return None;
    };
    Some(format!("virtio_mmio.device={}K@{base:#x}:{}", len / 1024, interrupt.gsi))
}

/// What a device does, whichever way its driver reaches it.
pub trait VirtioDevice: Send {
    /// Device type (VIRTIO 1.2, 5).
    const TYPE: u32;
    /// The most elements that each of its queues may have: powers of two, 32768 at most.
    const QUEUES: &'static [u16];

    /// What it offers beyond what the transport and the rings do (bit n is feature n; 0 to 23, and from 50).
    fn features(&self) -> u64;

    /// Its configuration space from `offset` on; bytes that it has not are 0.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Begins to serve its queues. Until [`reset`](Self::reset) this happens once.
    ///
    /// # Errors
    /// Where the host gives no means to: the transport then says that the device needs a reset.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// The driver made buffers of a queue available. Called on the vCPU's thread, for active devices only.
    fn notify(&self, queue: u32);

    /// Stops. When this returns, the device touches no memory of the guest's any more, and raises no interrupt.
    fn reset(&mut self);
}

/// What a device is given to work with.
pub struct Activation {
    /// The guest's memory.
    pub ram: GuestRam,
    /// Whom to tell where a page of it is lost.
    pub lost: Arc<dyn PoisonObserver>,
    /// The features that both sides agreed on.
    pub features: u64,
    /// Its queues, in their order; none in the place of one that the driver does not use.
    pub queues: Vec<Option<Queue>>,
    /// The way to its driver.
    pub signal: Signal,
}
