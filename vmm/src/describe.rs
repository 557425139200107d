//! A machine as the hardware that its guest sees, and the tables that tell the guest of it.

use devices::{ged, i8042, rtc, serial};
use firmware_tables::{BuildError, GuestTables, table_set};
use machine_profile::{Device, Firmware, Machine};
use platform::{Arch, Platform, x86_64};

/// Why a machine can not be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Machines of that architecture are not described yet.
    #[error("{0} machines can not be described by this build")]
    Architecture(Arch),
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

/// The hardware of a machine.
///
/// # Errors
/// Where this build does not know the architecture or a device.
pub fn platform(machine: &Machine) -> Result<Platform, DescribeError> {
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
                ged::power_button_node(),
            ];
            Ok(x86_64::platform(machine.vcpus, machine.memory.size, nodes, Some(serial::NAME)))
        }
        Arch::Aarch64 => Err(DescribeError::Architecture(machine.arch)),
    }
}

/// The tables of a machine, in the language that its profile names.
///
/// # Errors
/// Where this build has no such language, or the tables do not fit.
pub fn tables(machine: &Machine, platform: &Platform) -> Result<GuestTables, DescribeError> {
    let name = firmware_name(machine.firmware);
    let set = table_set(name).ok_or(DescribeError::TableSet(name))?;
    Ok(set.build(platform)?)
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
