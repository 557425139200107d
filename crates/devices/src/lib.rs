//! Device models, one file (or folder) each.
//!
//! A device's file contains its behaviour on a bus, its ACPI description and its devicetree description. Both descriptions
//! are in one [`platform::DeviceNode`], which keeps them consistent. The node does not need the device, so that tables can be
//! built on a host that cannot run it.
//!
//! | device | machine | ACPI | devicetree |
//! |---|---|---|---|
//! | [`serial`] | x86_64 | `PNP0501` | `ns16550a` |
//! | [`rtc`] | x86_64 | `PNP0B00` | none: x86_64 machines have ACPI or MP tables |
//! | [`i8042`] | x86_64 | none: there is no keyboard, as the FADT declares | none: x86_64 machines have ACPI or MP tables |
//! | [`ged`] | both | `ACPI0013` | none: it needs an ACPI interpreter |
//! | [`error_device`] | both | `PNP0C33` | none: its records are those of ACPI |
//! | [`power_button`] | x86_64 | `PNP0C0C` | none: an MP table cannot describe one |
//! | [`power_button`] | aarch64 | `PNP0C0C` | `gpio-keys` |
//! | [`generation_id`] | x86_64 | `ABCD0032` | none: an MP table cannot describe one |
//! | [`generation_id`] | aarch64 | `ABCD0032` | `microsoft,vmgenid` |
//! | [`pl011`] | aarch64 | `ARMH0011` | `arm,pl011` |
//! | [`pl031`] | aarch64 | `ABCD0031` | `arm,pl031` |
//! | [`virtio_mmio`] | both | `LNRO0005` | `virtio,mmio` |
//!
//! [`power`] and [`error_injection`] are not in the table: the FADT and EINJ describe their registers. `ABCD0031` and `ABCD0032` are placeholders for ids that the VMM
//! chooses, because no standard ones exist.
//!
//! Devices do not depend on KVM. An edge-triggered interrupt is an [`InterruptLine`], an eventfd that the VMM binds to a GSI.
//! A level-triggered interrupt is a [`LevelLine`], which calls a [`Level`] of the VMM's. Requests that concern the whole
//! machine, power-off and reset, go to a [`MachineControl`]. Poisoned pages that a device touches are reported to a
//! [`PoisonObserver`].
//!
//! # Guarantees
//!
//! A guest can write any value to any register at any time. No access panics, blocks on the guest or allocates without bound,
//! and every register can be read. A write to a serial port blocks while the VMM's writer blocks.

#[cfg(any(feature = "virtio-console", feature = "virtio-vsock"))]
mod accept_pause;
mod console;
pub mod error_device;
pub mod error_injection;
pub mod error_serialization;
pub mod ged;
pub mod generation_id;
pub mod i8042;
pub mod kind;
mod line;
pub mod pl011;
pub mod pl031;
mod poison_observer;
pub mod power;
pub mod power_button;
mod primecell;
pub mod rate_limit;
pub mod registry;
pub mod rtc;
pub mod serial;
pub mod slot_file;
pub mod socket_file;
#[cfg(any(feature = "vhost-user", feature = "virtio-net"))]
mod vhost;
#[cfg(feature = "vhost-user")]
pub mod vhost_user;
#[allow(dead_code, reason = "a part of the core may serve only kinds that a build leaves out")]
pub mod virtio;
#[cfg(feature = "virtio-balloon")]
pub mod virtio_balloon;
#[cfg(feature = "virtio-block")]
pub mod virtio_block;
#[cfg(feature = "virtio-console")]
pub mod virtio_console;
#[cfg(feature = "virtio-fs")]
pub mod virtio_fs;
pub mod virtio_mmio;
#[cfg(feature = "virtio-net")]
pub mod virtio_net;
#[cfg(feature = "virtio-rng")]
pub mod virtio_rng;
#[cfg(feature = "virtio-vsock")]
pub mod virtio_vsock;

pub use console::{ConsolePort, ConsoleSize};
pub use line::{InterruptLine, Level, LevelLine};
pub use poison_observer::{PoisonFlag, PoisonObserver};
pub use power::{MachineControl, ResetCause};
pub use registry::{kind, kinds};

/// Devices are driven by the threads of vCPUs, their own threads, and the console's.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send::<LevelLine>();
    is_send::<error_injection::ErrorInjector>();
    is_send::<error_serialization::ErrorStore>();
    is_send::<ged::GenericEventDevice>();
    is_send::<i8042::KeyboardController>();
    is_send::<pl011::Pl011<Vec<u8>>>();
    is_send::<pl031::Pl031>();
    is_send::<power::PowerRegisters>();
    is_send::<rtc::RealTimeClock>();
    is_send::<serial::SerialPort<Vec<u8>>>();
    is_send::<kind::Resources>();
    is_send_and_sync::<ConsoleSize>();
    is_send_and_sync::<error_serialization::StoreService>();
    is_send_and_sync::<InterruptLine>();
    is_send_and_sync::<kind::Registers>();
    is_send_and_sync::<kind::DeviceError>();
};

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
