//! Device models, one file each.
//!
//! A device's file holds three things side by side: its behaviour on a bus, what ACPI says of it and what a devicetree
//! says of it (a [`platform::DeviceNode`], which has room for both and keeps them from drifting apart). The node is
//! made without the device, so tables can be built on a machine that could not run it.
//!
//! Devices know nothing of KVM. An interrupt is an [`InterruptLine`], an eventfd that the VMM binds to a GSI; what a
//! guest asks of the machine as a whole goes to a [`MachineControl`].
//!
//! A guest can write anything to any register at any time: no access panics, and every register has a value.

pub mod ged;
pub mod i8042;
mod line;
pub mod power;
pub mod rtc;
pub mod serial;

pub use line::InterruptLine;
pub use power::{MachineControl, ResetCause};
