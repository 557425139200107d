//! What this host's KVM supports, and the effect of each capability that it lacks.

use std::path::Path;

use kvm_ioctls::Kvm;
use serde::Serialize;

/// The result of [`probe`].
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Architecture of the host, and so of its guests.
    pub architecture: &'static str,
    /// Release of the host's kernel, as uname(2) returns it.
    pub kernel: String,
    /// Whether /dev/kvm can be used.
    pub kvm: KvmState,
    /// The capabilities that this crate uses. Empty if KVM is absent.
    pub capabilities: Vec<Capability>,
    /// Limits of the number of vCPUs. `None` if KVM is absent.
    pub vcpus: Option<VcpuLimits>,
    /// Bits of a guest physical address. `None` if KVM is absent.
    pub address_bits: Option<u8>,
    /// How the host's kernel handles memory errors.
    pub memory_failure: MemoryFailure,
}

/// Whether /dev/kvm can be used.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum KvmState {
    /// It can be opened and has API version 12.
    Present,
    /// It cannot be used.
    Absent {
        /// Why.
        reason: String,
    },
}

/// A capability of KVM.
#[derive(Clone, Debug, Serialize)]
pub struct Capability {
    /// Name, as in linux/kvm.h without `KVM_CAP_`.
    pub name: &'static str,
    /// Number.
    pub number: u32,
    /// The result of KVM_CHECK_EXTENSION. 0 or less: not supported.
    pub value: i32,
    /// The effect of its absence.
    pub without: &'static str,
}

/// Limits of the number of vCPUs of a machine.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct VcpuLimits {
    /// KVM_CAP_NR_VCPUS.
    pub recommended: usize,
    /// KVM_CAP_MAX_VCPUS.
    pub maximum: usize,
}

/// How the host's kernel handles memory errors.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryFailure {
    /// CONFIG_MEMORY_FAILURE: its sysctls exist.
    pub handled: bool,
    /// vm.memory_failure_recovery: whether the kernel continues after an uncorrected error. `None` without this sysctl.
    pub recovery: Option<bool>,
    /// vm.memory_failure_early_kill: whether every process is notified of an error before it accesses the page. `None` without this
    /// sysctl.
    pub early_kill: Option<bool>,
}

/// Probes this host. It does not fail: what is absent is part of the result.
#[must_use]
pub fn probe() -> Host {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let (kvm, capabilities, vcpus, address_bits) = match open() {
        Ok(kvm) => {
            let capabilities = CAPABILITIES
                .iter()
                .map(|&(name, number, without)| Capability {
                    name,
                    number,
                    value: kvm.check_extension_raw(number.into()),
                    without,
                })
                .collect();
            let vcpus = VcpuLimits { recommended: kvm.get_nr_vcpus(), maximum: kvm.get_max_vcpus() };
            (KvmState::Present, capabilities, Some(vcpus), address_bits(&kvm))
        }
        Err(error) => (KvmState::Absent { reason: error.to_string() }, Vec::new(), None, None),
    };
    let switch = |name: &str| match std::fs::read_to_string(Path::new("/proc/sys/vm").join(name)) {
        Ok(text) => Some(text.trim() != "0"),
        Err(_) => None,
    };
    let (recovery, early_kill) = (switch("memory_failure_recovery"), switch("memory_failure_early_kill"));
    let memory_failure = MemoryFailure { handled: recovery.is_some(), recovery, early_kill };
    let architecture = std::env::consts::ARCH;
    Host { architecture, kernel, kvm, capabilities, vcpus, address_bits, memory_failure }
}

/// Bits of a guest physical address that KVM supports: CPUID leaf 8000_0008 of its guests. `None` if KVM does not tell.
#[cfg(target_arch = "x86_64")]
fn address_bits(kvm: &Kvm) -> Option<u8> {
    let supported = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).ok()?;
    Some(crate::x86_64::address_bits(supported.as_slice()))
}

/// Bits of a guest physical address that KVM supports: KVM_CAP_ARM_VM_IPA_SIZE, or 40 if it does not have this capability
/// (Documentation/virt/kvm/api.rst, 4.2).
#[cfg(target_arch = "aarch64")]
fn address_bits(kvm: &Kvm) -> Option<u8> {
    match u8::try_from(kvm.get_host_ipa_limit()) {
        Ok(bits) if bits > 0 => Some(bits),
        _ => Some(40),
    }
}

/// /dev/kvm cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be opened.
    #[error("/dev/kvm: open(2): {0}")]
    Open(kvm_ioctls::Error),
    /// It has another API version than every Linux since 2.6.22.
    #[error("/dev/kvm: KVM_GET_API_VERSION: version {0}, expected 12")]
    Version(i32),
}

/// Opens /dev/kvm.
///
/// # Errors
/// Returns an error if it does not exist, this user has no access to it, or its API version is not 12.
pub fn open() -> Result<Kvm, OpenError> {
    let kvm = Kvm::new().map_err(OpenError::Open)?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        version => Err(OpenError::Version(version)),
    }
}

/// Name, number (linux/kvm.h) and effect of the absence of each.
const CAPABILITIES: &[(&str, u32, &str)] = &[
    ("USER_MEMORY", 3, "guests have no memory"),
    ("IMMEDIATE_EXIT", 136, "a kick may be missed just before KVM_RUN"),
    ("IRQFD", 32, "devices cannot raise interrupts"),
    ("VCPU_EVENTS", 41, "pending exceptions of a vCPU cannot be set"),
    ("MEMORY_FAULT_INFO", 232, "poisoned memory of a guest_memfd cannot be distinguished from other faults"),
    #[cfg(target_arch = "x86_64")]
    ("IRQCHIP", 0, "guests have no interrupt controllers"),
    #[cfg(target_arch = "x86_64")]
    ("MCE", 31, "memory errors cannot be notified by machine check"),
    #[cfg(target_arch = "x86_64")]
    ("USER_NMI", 22, "memory errors cannot be notified by NMI"),
    #[cfg(target_arch = "x86_64")]
    ("X2APIC_API", 129, "at most 255 vCPUs"),
    #[cfg(target_arch = "x86_64")]
    ("TSC_DEADLINE_TIMER", 72, "local APIC timers have no TSC-deadline mode"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_PSCI_0_2", 102, "guests have one vCPU and no power-off"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_NISV_TO_USER", 177, "an MMIO access without a valid syndrome ends the guest"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_INJECT_EXT_DABT", 178, "synchronous external aborts are injected by setting registers"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_INJECT_SERROR_ESR", 158, "SErrors are injected without a syndrome"),
    #[cfg(target_arch = "aarch64")]
    (
        "ARM_SEA_TO_USER",
        245,
        "synchronous external aborts that no host driver claims reach the guest as an SError",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_succeeds_with_and_without_kvm() {
        let Host { kvm, capabilities, vcpus, .. } = probe();
        let value = |name: &str| {
            capabilities.iter().find(|capability| capability.name == name).map(|capability| capability.value)
        };
        match kvm {
            KvmState::Present => {
                // What KVM cannot be without, and what every KVM since 2.6.35 has.
                assert!(value("USER_MEMORY") > Some(0) && value("VCPU_EVENTS") > Some(0), "{capabilities:?}");
                let VcpuLimits { recommended, maximum } = vcpus.expect("limits");
                assert!(0 < recommended && recommended <= maximum, "{recommended} of {maximum}");
            }
            KvmState::Absent { reason } => {
                assert!(reason.contains("/dev/kvm"), "{reason}");
                assert!(capabilities.is_empty() && vcpus.is_none());
            }
        }
    }

    /// A wrong number is an ability of another name.
    #[test]
    fn numbers_are_those_of_the_kernel() {
        use kvm_bindings as linux;
        let number = |name: &str| CAPABILITIES.iter().find(|known| known.0 == name).map(|known| known.1);
        for (name, expected) in [
            ("USER_MEMORY", linux::KVM_CAP_USER_MEMORY),
            ("IMMEDIATE_EXIT", linux::KVM_CAP_IMMEDIATE_EXIT),
            ("IRQFD", linux::KVM_CAP_IRQFD),
            ("MEMORY_FAULT_INFO", linux::KVM_CAP_MEMORY_FAULT_INFO),
            #[cfg(target_arch = "x86_64")]
            ("IRQCHIP", linux::KVM_CAP_IRQCHIP),
            #[cfg(target_arch = "x86_64")]
            ("TSC_DEADLINE_TIMER", linux::KVM_CAP_TSC_DEADLINE_TIMER),
            #[cfg(target_arch = "aarch64")]
            ("ARM_PSCI_0_2", linux::KVM_CAP_ARM_PSCI_0_2),
            #[cfg(target_arch = "aarch64")]
            ("ARM_NISV_TO_USER", linux::KVM_CAP_ARM_NISV_TO_USER),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
    }
}
