//! Device models, one file (or folder) each.
//!
//! A device's file holds three things side by side: its behaviour on a bus, what ACPI says of it and what a devicetree
//! says of it (a [`platform::DeviceNode`], which has room for both and keeps them from drifting apart). The node is
//! made without the device, so tables can be built on a machine that could not run it.
//!
//! | device | machine | ACPI | devicetree |
//! |---|---|---|---|
//! | [`serial`] | x86_64 | `PNP0501` | `ns16550a` |
//! | [`rtc`] | x86_64 | `PNP0B00` | none: x86_64 machines have ACPI or MP tables |
//! | [`i8042`] | x86_64 | none: there is no keyboard, and the FADT says so | none: it is not listed by ACPI either |
//! | [`ged`] | both | `ACPI0013` | none: it is an interpreter of ACPI's that it needs |
//! | [`error_device`] | both | `PNP0C33` | none: its records are ACPI's |
//! | [`power_button`] | x86_64 | `PNP0C0C` | none: an MP table cannot describe one |
//! | [`power_button`] | aarch64 | `PNP0C0C` | `gpio-keys` |
//! | [`pl011`] | aarch64 | `ARMH0011` | `arm,pl011` |
//! | [`pl031`] | aarch64 | `ABCD0031` | `arm,pl031` |
//! | [`virtio_mmio`] | both | `LNRO0005` | `virtio,mmio` |
//!
//! ([`power`] is no device of its own: the FADT names its registers. `ABCD0031` stands for an id that the VMM chooses: no
//! standard one exists.)
//!
//! Devices know nothing of KVM. An interrupt is an [`InterruptLine`], an eventfd that the VMM binds to a GSI, where it is
//! edge-triggered, and a [`LevelLine`], which ends at a [`Level`] of the VMM's, where it is level-triggered. What a guest
//! asks of the machine as a whole goes to a [`MachineControl`]. A page of guest memory that a device finds lost goes to a
//! [`PoisonObserver`].
//!
//! A guest can write anything to any register at any time: no access panics, and every register has a value.

mod console;
pub mod error_device;
pub mod ged;
pub mod i8042;
pub mod kind;
mod line;
pub mod pl011;
pub mod pl031;
mod poison_observer;
pub mod power;
pub mod power_button;
mod primecell;
pub mod registry;
pub mod rtc;
pub mod serial;
pub mod virtio;
#[cfg(feature = "virtio-block")]
pub mod virtio_block;
pub mod virtio_mmio;

pub use console::ConsolePort;
pub use line::{InterruptLine, Level, LevelLine};
pub use poison_observer::PoisonObserver;
pub use power::{MachineControl, ResetCause};
pub use registry::{kind, kinds};
