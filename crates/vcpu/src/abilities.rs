//! What this host can do about memory errors, in the form that [`ras_core`] plans with.

use std::path::Path;

use ras_core::abilities::{ArchAbilities, Fact, HostAbilities, MemoryFailure};
use ras_core::request::Arch;

use crate::host::{Host, KvmState};

/// The abilities of a probed host. Probes what [`crate::host::probe`] does not.
#[must_use]
pub fn of(host: &Host) -> HostAbilities {
    HostAbilities {
        arch: arch(host),
        kvm: matches!(host.kvm, KvmState::Present).into(),
        memory_fault_info: capability(host, "MEMORY_FAULT_INFO"),
        memory_failure: MemoryFailure {
            handled: host.memory_failure.handled.into(),
            recovery: host.memory_failure.recovery.into(),
            early_kill: host.memory_failure.early_kill.into(),
        },
        privileged: effective_capabilities().map(|bits| bits & CAP_SYS_ADMIN != 0).into(),
        page_sizes: page_sizes(),
        address_bits: host.address_bits,
    }
}

/// The abilities of this host for guests of an architecture. All are unknown if it is not the host's own.
#[must_use]
pub fn of_this_host(arch: Arch) -> HostAbilities {
    if arch == Arch::NATIVE { of(&crate::host::probe()) } else { HostAbilities::unknown(arch) }
}

/// CAP_SYS_ADMIN (linux/capability.h).
const CAP_SYS_ADMIN: u64 = 1 << 21;

fn capability(host: &Host, name: &str) -> Fact {
    let found = host.capabilities.iter().find(|capability| capability.name == name);
    found.map(|capability| capability.value > 0).into()
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn page_sizes() -> Vec<u64> {
    let mut sizes = vec![rustix::param::page_size() as u64];
    let pools = Path::new("/sys/kernel/mm/hugepages").read_dir().into_iter().flatten().flatten();
    sizes.extend(pools.filter_map(|pool| {
        let name = pool.file_name();
        let kib: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(kib << 10)
    }));
    sizes.sort_unstable();
    sizes
}

#[cfg(target_arch = "x86_64")]
fn arch(host: &Host) -> ArchAbilities {
    use ras_core::abilities::{MachineCheckAbilities, Vendor, X86Abilities};
    let banks = host.capabilities.iter().find(|capability| capability.name == "MCE").map(|found| found.value);
    let banks = banks.and_then(|banks| u8::try_from(banks).ok()).filter(|&banks| banks > 0);
    let supported =
        crate::host::open().ok().and_then(|kvm| crate::x86_64::machine_check::supported(&kvm).ok());
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = cpuinfo.lines().find_map(|line| line.strip_prefix("vendor_id")).and_then(|line| match line
        .trim_start_matches([' ', '\t', ':'])
    {
        "GenuineIntel" | "CentaurHauls" | "  Shanghai  " => Some(Vendor::Intel),
        "AuthenticAMD" | "HygonGenuine" => Some(Vendor::Amd),
        _ => None,
    });
    let mce = banks.zip(supported).map(|(banks, supported)| MachineCheckAbilities { supported, banks });
    ArchAbilities::X86_64(X86Abilities { user_nmi: capability(host, "USER_NMI"), mce, vendor })
}

#[cfg(target_arch = "aarch64")]
fn arch(host: &Host) -> ArchAbilities {
    use ras_core::abilities::Aarch64Abilities;
    let kvm = crate::host::open().ok();
    let vcpu_ras = kvm.and_then(|kvm| crate::aarch64::has_ras_extension(&kvm));
    ArchAbilities::Aarch64(Aarch64Abilities {
        vcpu_events: capability(host, "VCPU_EVENTS"),
        inject_serror_esr: capability(host, "ARM_INJECT_SERROR_ESR"),
        inject_ext_dabt: capability(host, "ARM_INJECT_EXT_DABT"),
        sea_to_user: capability(host, "ARM_SEA_TO_USER"),
        vcpu_ras: vcpu_ras.into(),
        // KVM_SET_ONE_REG can set the registers of an exception on every host.
        far_not_valid: matches!(host.kvm, KvmState::Present).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_abilities_of_this_host_are_of_its_architecture() {
        let arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };
        let abilities = of_this_host(arch);
        assert_eq!(abilities.architecture(), arch);
        assert_eq!(abilities.page_sizes.first(), Some(&(rustix::param::page_size() as u64)));
        assert!(abilities.page_sizes.is_sorted(), "{:?}", abilities.page_sizes);
        // Each fact is that of its own source.
        let host = crate::host::probe();
        assert_eq!(abilities.kvm, Fact::from(matches!(host.kvm, KvmState::Present)));
        let handled = Path::new("/proc/sys/vm/memory_failure_recovery").exists();
        assert_eq!(abilities.memory_failure.handled, Fact::from(handled));
        let number = kvm_bindings::KVM_CAP_MEMORY_FAULT_INFO;
        let fault_info = crate::host::open().ok().map(|kvm| kvm.check_extension_raw(number.into()) > 0);
        assert_eq!(abilities.memory_fault_info, Fact::from(fault_info));
    }

    #[test]
    fn abilities_for_another_architecture_are_unknown() {
        let other = if cfg!(target_arch = "x86_64") { Arch::Aarch64 } else { Arch::X86_64 };
        assert_eq!(of_this_host(other), HostAbilities::unknown(other));
    }
}
