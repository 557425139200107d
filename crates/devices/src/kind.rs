//! Kinds of devices: what a profile's `[[device]]` can ask for.
//!
//! A kind is one module of this crate. It owns the keys of its section and the configuration that they make
//! ([`DeviceKind`]), its description for the tables, and the device itself; one line of [`crate::registry`] adds it. The VMM
//! finds a kind by the section's `type`, gives each device a page of registers and an interrupt line, and knows no more
//! about it.

use std::sync::Arc;

use guest_memory::GuestRam;
use machine_profile::device_kind::{DeviceConfig, DeviceKind};
use platform::DeviceNode;
use vm_device::DeviceMmio;

use crate::line::InterruptLine;
use crate::poison_observer::PoisonObserver;

/// A kind of device.
pub trait Kind: DeviceKind {
    /// The description of a device, in ACPI and in the devicetree.
    fn describe(&self, place: Place) -> DeviceNode;

    /// The kernel parameter that describes the device to a Linux whose tables cannot; `None` if Linux has none.
    fn kernel_parameter(&self, place: Place) -> Option<String>;

    /// Makes the device. Files are opened here.
    ///
    /// # Errors
    /// Returns an error if the host does not provide what the configuration names.
    fn build(&self, config: &DeviceConfig, resources: Resources) -> Result<Registers, DeviceError>;
}

/// A device behind its registers. Offsets are relative to the start of its page.
pub type Registers = Arc<dyn DeviceMmio + Send + Sync>;

/// Where a device is.
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
    /// The devices that a machine can have, at most.
    pub const MAX: usize = 32;

    /// The VMM's name of the device, unique in its machine.
    #[must_use]
    pub fn name(self) -> String {
        format!("virtio{}", self.index)
    }
}

/// What a device works with.
pub struct Resources {
    /// Its name.
    pub name: String,
    /// The guest's memory.
    pub ram: GuestRam,
    /// Its interrupt line.
    pub line: InterruptLine,
    /// Receives the poisoned pages that the device touches.
    pub observer: Arc<dyn PoisonObserver>,
    /// Vendor id for registers that have one.
    pub vendor_id: u32,
}

/// Why a device cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DeviceError {
    /// The key of the section that the error is about.
    pub key: &'static str,
    /// What is wrong, with the object and the cause.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}
