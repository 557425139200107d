//! Kinds of devices: the values of `type` in a profile's `[[device]]`.
//!
//! A kind is one module of this crate. It owns the keys of its section and the configuration that they make
//! ([`DeviceKind`]), its description for the tables, and the device itself; one line of [`crate::registry`] adds it. The VMM
//! resolves a kind by the section's `type`, and assigns a page of registers and an interrupt line to each device. It has no
//! code for a single kind.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use guest_memory::GuestRam;
use machine_profile::device_kind::{DeviceConfig, DeviceKind};
use platform::DeviceNode;
use vm_device::DeviceMmio;
use vmm_sys_util::eventfd::EventFd;

use crate::line::InterruptLine;
use crate::poison_observer::PoisonObserver;

/// A kind of device.
pub trait Kind: DeviceKind {
    /// The description of a device, in ACPI and in the devicetree.
    fn describe(&self, place: Place) -> DeviceNode;

    /// The kernel parameter that describes the device to a Linux whose tables cannot; `None` if Linux has none.
    fn kernel_parameter(&self, place: Place) -> Option<String>;

    /// Checks what can be seen of the host without opening the device, for example the format of a file. What is missing is not
    /// an error: the machine may be meant for another host.
    ///
    /// # Errors
    /// Returns an error if the device cannot be opened on this host as it is.
    fn inspect(&self, config: &DeviceConfig) -> Result<(), DeviceError>;

    /// Opens the files that the device needs, and locks them. A machine does this once: it keeps them across resets.
    ///
    /// # Errors
    /// Returns an error if the host does not provide what the configuration requires, for example a file.
    fn open(&self, config: &DeviceConfig) -> Result<Backend, DeviceError>;

    /// Creates the device of one boot of the machine, from what [`open`](Self::open) has returned.
    ///
    /// # Errors
    /// Returns an error if `backend` is that of another kind, or the host lacks a resource.
    fn build(&self, backend: &Backend, resources: Resources) -> Result<Device, DeviceError>;
}

/// The host's side of a device, of a type that its kind defines. It outlives the device, which every reset renews.
pub struct Backend(Box<dyn Any + Send + Sync>);

impl Backend {
    /// Wraps the host's side of a device.
    pub fn new<B: Any + Send + Sync>(backend: B) -> Self {
        Backend(Box::new(backend))
    }

    /// The host's side; `None` if it is of another type.
    #[must_use]
    pub fn downcast_ref<B: Any>(&self) -> Option<&B> {
        self.0.downcast_ref()
    }
}

/// A device of one boot of the machine.
pub struct Device {
    /// Its registers.
    pub registers: Registers,
    /// The writes to its registers that only signal an eventfd. A VMM may have them handled without an exit.
    pub write_events: Vec<WriteEvent>,
}

/// A write to a register that has no other effect than to signal an eventfd. The registers do so too, for a VMM that passes them the
/// write; KVM can do it without an exit (KVM_IOEVENTFD).
#[derive(Debug)]
pub struct WriteEvent {
    /// Offset of the register, which has 32 bits.
    pub offset: u64,
    /// The value that is written.
    pub value: u32,
    /// The eventfd.
    pub event: Arc<EventFd>,
}

/// A device behind its registers. Offsets are relative to the start of its page.
pub type Registers = Arc<dyn DeviceMmio + Send + Sync>;

/// The resources by which the guest reaches a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position among the devices of the profile, from 0.
    pub index: usize,
    /// GPA of its page of registers.
    pub base: u64,
    /// Global system interrupt of its line, edge-triggered.
    pub gsi: u32,
}

impl Place {
    /// Bytes of the registers: a page.
    pub const LEN: u64 = 0x1000;
    /// The maximum number of devices in a machine.
    pub const MAX: usize = 32;

    /// The VMM's name of the device, unique in its machine.
    #[must_use]
    pub fn name(self) -> String {
        format!("virtio{}", self.index)
    }
}

/// The resources of the VMM that a device uses.
pub struct Resources {
    /// Its name.
    pub name: String,
    /// The guest's memory.
    pub ram: GuestRam,
    /// Its interrupt line.
    pub line: InterruptLine,
    /// Receives the poisoned pages that the device touches, and its need of a reset.
    pub observer: Arc<dyn PoisonObserver>,
    /// Vendor id, for devices whose registers have one.
    pub vendor_id: u32,
}

/// Why a device cannot be created.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct DeviceError {
    /// The key of the section that the error is about.
    pub key: &'static str,
    /// What is wrong, with the object and the cause.
    pub message: String,
    /// How to correct it.
    pub help: Cow<'static, str>,
}
