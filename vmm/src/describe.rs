//! A machine as the hardware that its guest sees, and the tables that tell the guest of it.

use firmware_tables::{BuildError, GuestTables, table_set};
use machine_profile::{Firmware, Machine};
use platform::aarch64::Features;
use platform::{Arch, Chosen, Platform, aarch64, x86_64};

use crate::board::profile_devices::PlaceError;
use crate::board::{self, profile_devices};

/// Why a machine cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The devices of the profile have no place in the machine.
    #[error(transparent)]
    Devices(#[from] PlaceError),
    /// This build was made without that kind of tables.
    #[error("this build has no `{0}` tables")]
    TableSet(&'static str),
    /// The tables cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The hardware of a machine on a host with these features (aarch64 only: x86_64 machines do not depend on the host).
///
/// # Errors
/// Returns an error if the machine has more devices than there is room for.
pub fn platform(machine: &Machine, offered: Features) -> Result<Platform, DescribeError> {
    let mut nodes = board::nodes(machine.arch);
    nodes.extend(profile_devices::nodes(machine)?);
    let (vcpus, memory, console) = (machine.vcpus, machine.memory.size, Some(board::console(machine.arch)));
    Ok(match machine.arch {
        Arch::X86_64 => x86_64::platform(vcpus, memory, nodes, console),
        Arch::Aarch64 => aarch64::platform(vcpus, memory, offered, nodes, console),
    })
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
