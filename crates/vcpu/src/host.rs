//! What this host's KVM can do, and what each thing that it cannot do costs.

use std::path::Path;

use kvm_ioctls::Kvm;
use serde::Serialize;

/// What was found on this host.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Architecture of the host, and so of its guests.
    pub architecture: &'static str,
    /// Release of the host's kernel, as uname(2) says it.
    pub kernel: String,
    /// What was found at /dev/kvm.
    pub kvm: KvmState,
    /// KVM's abilities that matter here; empty where there is no KVM.
    pub capabilities: Vec<Capability>,
    /// vCPUs: what KVM recommends at most, and what it allows at most.
    pub vcpus: Option<VcpuLimits>,
    /// What the host's kernel does about broken memory.
    pub memory_failure: MemoryFailure,
}

/// What was found at /dev/kvm.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum KvmState {
    /// It opens and speaks the API's version 12.
    Present,
    /// It does not.
    Absent {
        /// Why.
        reason: String,
    },
}

/// One of KVM's capabilities.
#[derive(Clone, Debug, Serialize)]
pub struct Capability {
    /// Name, as in linux/kvm.h without `KVM_CAP_`.
    pub name: &'static str,
    /// Number.
    pub number: u32,
    /// What KVM_CHECK_EXTENSION said: 0 means no.
    pub value: i32,
    /// What its lack costs.
    pub without: &'static str,
}

/// How many vCPUs a machine may have.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct VcpuLimits {
    /// KVM_CAP_NR_VCPUS.
    pub recommended: usize,
    /// KVM_CAP_MAX_VCPUS.
    pub maximum: usize,
}

/// What the host's kernel does about broken memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryFailure {
    /// CONFIG_MEMORY_FAILURE: its sysctls exist.
    pub handled: bool,
    /// vm.memory_failure_recovery: whether the kernel goes on after an error; none where it has no such sysctl.
    pub recovery: Option<bool>,
    /// vm.memory_failure_early_kill: whether every process is told of an error before it touches the page.
    pub early_kill: Option<bool>,
}

/// Asks the host. Never fails: what is missing is part of the answer.
#[must_use]
pub fn probe() -> Host {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let (kvm, capabilities, vcpus) = match open() {
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
            (KvmState::Present, capabilities, Some(vcpus))
        }
        Err(error) => (KvmState::Absent { reason: error.to_string() }, Vec::new(), None),
    };
    let switch = |name: &str| match std::fs::read_to_string(Path::new("/proc/sys/vm").join(name)) {
        Ok(text) => Some(text.trim() != "0"),
        Err(_) => None,
    };
    let (recovery, early_kill) = (switch("memory_failure_recovery"), switch("memory_failure_early_kill"));
    let memory_failure = MemoryFailure { handled: recovery.is_some(), recovery, early_kill };
    Host { architecture: std::env::consts::ARCH, kernel, kvm, capabilities, vcpus, memory_failure }
}

/// KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// /dev/kvm does not open.
    #[error("/dev/kvm cannot be opened: {0}")]
    Open(kvm_ioctls::Error),
    /// It speaks another version of the API.
    #[error("/dev/kvm speaks version {0} of its API, not 12")]
    Version(i32),
}

/// Opens /dev/kvm.
///
/// # Errors
/// Where there is none, this user may not, or it speaks another version of the API than every kernel since 2.6.22.
pub fn open() -> Result<Kvm, OpenError> {
    let kvm = Kvm::new().map_err(OpenError::Open)?;
    match kvm.get_api_version() {
        12 => Ok(kvm),
        version => Err(OpenError::Version(version)),
    }
}

/// Name, number (linux/kvm.h) and what the lack of each costs.
const CAPABILITIES: &[(&str, u32, &str)] = &[
    ("USER_MEMORY", 3, "no guest can be given memory"),
    ("IMMEDIATE_EXIT", 136, "a vCPU cannot be taken out of the guest reliably"),
    ("IRQFD", 32, "devices cannot raise interrupts"),
    ("VCPU_EVENTS", 41, "an exception cannot be injected while the guest masks it"),
    ("MEMORY_FAULT_INFO", 232, "broken memory of a guest_memfd is not told apart from other faults"),
    #[cfg(target_arch = "x86_64")]
    ("IRQCHIP", 0, "no guest can be given interrupts"),
    #[cfg(target_arch = "x86_64")]
    ("MCE", 31, "errors cannot be told by machine check"),
    #[cfg(target_arch = "x86_64")]
    ("USER_NMI", 22, "errors cannot be told by NMI"),
    #[cfg(target_arch = "x86_64")]
    ("X2APIC_API", 129, "no more than 255 vCPUs"),
    #[cfg(target_arch = "x86_64")]
    ("TSC_DEADLINE_TIMER", 72, "the guest's local APIC timers are coarser"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_PSCI_0_2", 102, "no guest can be given more than one vCPU, nor switch itself off"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_NISV_TO_USER", 177, "a device access by an unusual instruction ends the guest without a word"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_INJECT_EXT_DABT", 178, "a synchronous external abort is injected by setting registers"),
    #[cfg(target_arch = "aarch64")]
    ("ARM_INJECT_SERROR_ESR", 158, "an SError is injected without a syndrome"),
    #[cfg(target_arch = "aarch64")]
    (
        "ARM_SEA_TO_USER",
        245,
        "aborts that the host does not claim reach the guest as an SError, not as what they are",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_with_or_without_kvm() {
        let host = probe();
        match host.kvm {
            KvmState::Present => assert_eq!(host.capabilities.len(), CAPABILITIES.len()),
            KvmState::Absent { reason } => assert!(reason.contains("/dev/kvm"), "{reason}"),
        }
    }
}
