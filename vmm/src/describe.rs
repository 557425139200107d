//! The hardware of a machine, as its guest sees it, and the tables that describe it.

use firmware_tables::{BuildError, GuestTables, OemInfo};
use machine_profile::{Machine, TableSet};
use platform::aarch64::Features;
use platform::{Arch, Chosen, Platform, RegionKind, aarch64, x86_64};

use crate::board::profile_devices::PlaceError;
use crate::board::{self, profile_devices};

/// Why a machine cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The devices of the profile have no place in the machine.
    #[error(transparent)]
    Devices(#[from] PlaceError),
    /// The tables cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The hardware of a machine on a host with these features (aarch64 only: x86_64 machines do not depend on the host).
///
/// # Errors
/// Returns an error if the devices of the profile have no place in the machine.
pub fn platform(machine: &Machine, offered: Features) -> Result<Platform, DescribeError> {
    let mut nodes = board::nodes(machine.arch);
    nodes.extend(profile_devices::nodes(machine)?);
    let (vcpus, memory, console) = (machine.vcpus, machine.memory.size, Some(board::console(machine.arch)));
    let mut platform = match machine.arch {
        Arch::X86_64 => x86_64::platform(&x86_64::Layout::REFERENCE, vcpus, memory, nodes, console),
        Arch::Aarch64 => {
            aarch64::platform(&aarch64::Layout::REFERENCE, vcpus, memory, offered, nodes, console)
        }
    };
    // A page of the tables that is poisoned is restored while the guest runs, so the guest must not use it for anything else.
    if machine.firmware == TableSet::Acpi {
        let regions = platform.memory.regions.iter_mut();
        regions
            .filter(|region| region.kind == RegionKind::AcpiReclaim)
            .for_each(|region| region.kind = RegionKind::AcpiNvs);
    }
    Ok(platform)
}

/// The tables of a machine: the table set that its profile names.
///
/// # Errors
/// Returns an error if this build has no such tables, if they cannot describe the machine, or if they do not fit.
pub fn tables(machine: &Machine, platform: &Platform, chosen: &Chosen) -> Result<GuestTables, DescribeError> {
    Ok(firmware_tables::build(machine.firmware, platform, chosen, &OEM)?)
}

/// The vendor of the machine, as its tables name it.
pub const OEM: OemInfo<'static> = OemInfo {
    oem_id: *b"GHEST ",
    oem_table_id: *b"GHESTVMM",
    oem_revision: 1,
    creator_id: *b"GHST",
    creator_revision: 1,
    hypervisor_vendor: *b"GHEST\0\0\0",
    firmware_vendor: "Ghesthouse",
    firmware_revision: 1,
    model: "ghest",
    compatible: &["linux,dummy-virt"],
    mp_oem_id: *b"GHEST   ",
    mp_product_id: *b"GHEST VMM   ",
};
