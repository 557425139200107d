//! A machine as the hardware that its guest sees, and the tables that tell the guest of it.

use devices::{error_device, ged, i8042, pl011, pl031, pl061, power_button, rtc, serial};
use firmware_tables::{BuildError, GuestTables, table_set};
use machine_profile::{Device, Firmware, Machine};
use platform::aarch64::Features;
use platform::{Arch, Chosen, Platform, aarch64, x86_64};

/// Why a machine can not be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// A device of the profile that this build has no model of.
    #[error("this build has no model of `{kind}`")]
    Device {
        /// Its place among the profile's devices, from 0.
        index: usize,
        /// Its `type`.
        kind: &'static str,
    },
    /// This build was made without that kind of tables.
    #[error("this build has no `{0}` tables")]
    TableSet(&'static str),
    /// The tables can not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The hardware of a machine, on a host that offers this (aarch64 only; x86_64 machines are the same everywhere).
///
/// # Errors
/// Where this build does not know the architecture or a device.
pub fn platform(machine: &Machine, offered: Features) -> Result<Platform, DescribeError> {
    if let Some((index, Device::VirtioBlock { .. })) = machine.devices.iter().enumerate().next() {
        return Err(DescribeError::Device { index, kind: "virtio-block" });
    }
    match machine.arch {
        Arch::X86_64 => {
            let nodes = vec![
                serial::node(x86_64::SERIAL_PORT, x86_64::SERIAL_GSI),
                rtc::node(x86_64::RTC_PORT),
                i8042::node(x86_64::I8042_DATA_PORT),
                ged::node(x86_64::GED_BASE, x86_64::GED_GSI),
                power_button::x86_64_node(),
                error_device::node(),
            ];
            Ok(x86_64::platform(machine.vcpus, machine.memory.size, nodes, Some(serial::NAME)))
        }
        Arch::Aarch64 => {
            let nodes = vec![
                pl011::node(aarch64::SERIAL_BASE, aarch64::SERIAL_INTID),
                pl031::node(aarch64::RTC_BASE),
                pl061::node(aarch64::GPIO_BASE, aarch64::GPIO_INTID),
                ged::node(aarch64::GED_BASE, aarch64::GED_INTID),
                power_button::aarch64_node(),
                error_device::node(),
            ];
            let memory = machine.memory.size;
            Ok(aarch64::platform(machine.vcpus, memory, offered, nodes, Some(pl011::NAME)))
        }
    }
}

/// The tables of a machine, in the language that its profile names.
///
/// # Errors
/// Where this build has no such language, or the tables do not fit.
pub fn tables(machine: &Machine, platform: &Platform, chosen: &Chosen) -> Result<GuestTables, DescribeError> {
    let name = firmware_name(machine.firmware);
    let set = table_set(name).ok_or(DescribeError::TableSet(name))?;
    Ok(set.build(platform, chosen)?)
}

/// The word for a kind of tables, in profiles and in `firmware-tables`.
#[must_use]
pub const fn firmware_name(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Acpi => "acpi",
        Firmware::Devicetree => "devicetree",
        Firmware::MpTable => "mptable",
    }
}
