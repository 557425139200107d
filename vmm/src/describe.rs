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
    /// There is too little memory for the area of error injection.
    #[error("the machine has too little memory for the trigger table of error injection (EINJ)")]
    NoMemoryForInjection,
    /// Guests of the host have fewer address bits than the machine needs.
    #[error(
        "the machine's physical addresses end at {end:#x}, which takes {needed} bits, \
         and guests of this host have {bits} ({limit})"
    )]
    AddressBits {
        /// The first address after its memory map.
        end: u64,
        /// Bits that these addresses take.
        needed: u32,
        /// Bits of a guest physical address on the host.
        bits: u8,
        /// What limits them.
        limit: &'static str,
    },
}

/// Checks that a host whose guest physical addresses have `bits` bits can map all of a platform.
///
/// # Errors
/// Returns an error if it cannot.
pub fn check_addresses(platform: &Platform, bits: Option<u8>) -> Result<(), DescribeError> {
    let end = platform.memory.regions.iter().map(|region| region.range.end()).max().unwrap_or_default();
    let needed = u64::BITS - end.saturating_sub(1).leading_zeros();
    let limit = match platform.arch {
        Arch::X86_64 => "CPUID leaf 8000_0008",
        Arch::Aarch64 => "KVM_CAP_ARM_VM_IPA_SIZE",
    };
    match bits {
        Some(bits) if needed > bits.into() => Err(DescribeError::AddressBits { end, needed, bits, limit }),
        _ => Ok(()),
    }
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
    if machine.ras.injection {
        platform = platform.with_error_injection(|memory| board::error_injection(machine.arch, memory));
        if platform.error_injection.is_none() {
            return Err(DescribeError::NoMemoryForInjection);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_map_is_compared_with_the_address_bits_of_the_host() {
        // The memory map of x86_64 ends 1 GiB, that of aarch64 1 GiB after the size of memory.
        for (arch, memory, bits) in [
            (Arch::X86_64, 1_u64 << 40, 41),
            (Arch::X86_64, (1 << 40) - (1 << 30), 40),
            (Arch::X86_64, 2 << 20, 32),
            (Arch::Aarch64, 1 << 40, 41),
            (Arch::Aarch64, (1 << 40) - (1 << 30), 40),
        ] {
            let platform = match arch {
                Arch::X86_64 => x86_64::platform(&x86_64::Layout::REFERENCE, 1, memory, vec![], None),
                Arch::Aarch64 => {
                    let features = Features::default();
                    aarch64::platform(&aarch64::Layout::REFERENCE, 1, memory, features, vec![], None)
                }
            };
            assert!(check_addresses(&platform, Some(bits)).is_ok(), "{arch} {memory:#x}");
            assert!(check_addresses(&platform, None).is_ok());
            assert!(check_addresses(&platform, Some(bits - 1)).is_err(), "{arch} {memory:#x}");
        }
        let platform = x86_64::platform(&x86_64::Layout::REFERENCE, 1, 1 << 40, vec![], None);
        let error = check_addresses(&platform, Some(39)).expect_err("too few").to_string();
        assert_eq!(
            error,
            "the machine's physical addresses end at 0x10040000000, which takes 41 bits, \
             and guests of this host have 39 (CPUID leaf 8000_0008)"
        );
    }
}
