//! A machine as the hardware that its guest sees, and the tables that tell the guest of it.

use devices::{error_device, ged, i8042, pl011, pl031, power_button, rtc, serial, virtio};
use firmware_tables::{BuildError, GuestTables, table_set};
use machine_profile::{Machine, TableSet};
use platform::aarch64::Features;
use platform::{Arch, Chosen, DeviceNode, Platform, aarch64, x86_64};

/// Why a machine cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// More devices than such a machine has places for.
    #[error("an {arch} machine has places for {most} devices")]
    TooManyDevices {
        /// Its architecture.
        arch: Arch,
        /// The most devices; also the place, from 0, of the first that is too many.
        most: usize,
    },
    /// This build was made without that kind of tables.
    #[error("this build has no `{0}` tables")]
    TableSet(&'static str),
    /// The tables cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The hardware of a machine, on a host that offers this (aarch64 only; x86_64 machines are the same everywhere).
///
/// # Errors
/// Where the machine has more devices than there are places for.
pub fn platform(machine: &Machine, offered: Features) -> Result<Platform, DescribeError> {
    match machine.arch {
        Arch::X86_64 => {
            let mut nodes = vec![
                serial::node(x86_64::SERIAL_PORT, x86_64::SERIAL_GSI),
                rtc::node(x86_64::RTC_PORT),
                i8042::node(x86_64::I8042_DATA_PORT),
                ged::node(x86_64::GED_BASE, x86_64::GED_GSI),
                power_button::x86_64_node(),
                error_device::node(),
            ];
            let gsis = x86_64::VIRTIO_GSIS.iter().copied();
            nodes.extend(transports(machine, x86_64::VIRTIO_MMIO.start, gsis)?);
            Ok(x86_64::platform(machine.vcpus, machine.memory.size, nodes, Some(serial::NAME)))
        }
        Arch::Aarch64 => {
            let mut nodes = vec![
                pl011::node(aarch64::SERIAL_BASE, aarch64::SERIAL_INTID),
                pl031::node(aarch64::RTC_BASE),
                ged::node(aarch64::GED_BASE, aarch64::GED_INTID),
                power_button::aarch64_node(aarch64::POWER_BUTTON_INTID),
                error_device::node(),
            ];
            nodes.extend(transports(machine, aarch64::VIRTIO_MMIO.start, aarch64::VIRTIO_FIRST_INTID..)?);
            let memory = machine.memory.size;
            Ok(aarch64::platform(machine.vcpus, memory, offered, nodes, Some(pl011::NAME)))
        }
    }
}

/// The transports of a machine's devices: one page each from `base` on, and a GSI each.
fn transports(
    machine: &Machine,
    base: u64,
    gsis: impl Iterator<Item = u32>,
) -> Result<Vec<DeviceNode>, DescribeError> {
    let places = (0..virtio::MAX_TRANSPORTS).zip((base..).step_by(virtio::mmio::LEN as usize)).zip(gsis);
    let nodes: Vec<_> = places
        .take(machine.devices.len())
        .map(|((index, base), gsi)| virtio::node(index, base, gsi))
        .collect();
    if nodes.len() < machine.devices.len() {
        return Err(DescribeError::TooManyDevices { arch: machine.arch, most: nodes.len() });
    }
    Ok(nodes)
}

/// What the kernel is told on its command line: what the profile says, and the devices that an MP table has no word for
/// (`virtio_mmio.device=4K@0xd0000000:5`, which a Linux with VIRTIO_MMIO_CMDLINE_DEVICES reads).
#[must_use]
pub fn command_line(machine: &Machine, platform: &Platform) -> String {
    let mut words = vec![machine.boot.cmdline.clone()];
    if machine.firmware == TableSet::MpTable {
        words.extend(platform.devices.iter().filter_map(virtio::kernel_parameter));
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// The tables of a machine, in the language that its profile names.
///
/// # Errors
/// Where this build has no such language, or the tables do not fit.
pub fn tables(machine: &Machine, platform: &Platform, chosen: &Chosen) -> Result<GuestTables, DescribeError> {
    let name = machine.firmware.name();
    let set = table_set(name).ok_or(DescribeError::TableSet(name))?;
    Ok(set.build(platform, chosen)?)
}
