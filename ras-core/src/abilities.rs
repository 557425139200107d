//! The abilities of a host, as plain data.
//!
//! They are probed on the host; they can be written to a file there, and a plan for that host can be made anywhere.

use alloc::vec::Vec;

use crate::request::Arch;

/// A property of a host that may be unknown. For a decision, unknown counts as no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Fact {
    /// It has the property.
    Yes,
    /// It does not have it.
    No,
    /// It could not be determined.
    #[default]
    Unknown,
}

impl Fact {
    /// All values.
    pub const ALL: [Fact; 3] = [Fact::Yes, Fact::No, Fact::Unknown];

    /// Whether it is known to be true.
    #[must_use]
    pub const fn holds(self) -> bool {
        matches!(self, Fact::Yes)
    }
}

impl From<bool> for Fact {
    fn from(yes: bool) -> Self {
        if yes { Fact::Yes } else { Fact::No }
    }
}

impl From<Option<bool>> for Fact {
    fn from(known: Option<bool>) -> Self {
        known.map_or(Fact::Unknown, Fact::from)
    }
}

/// The abilities of a host. What a file omits is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct HostAbilities {
    /// Abilities of its architecture.
    pub arch: ArchAbilities,
    /// Whether KVM can be used.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kvm: Fact,
    /// KVM_CAP_MEMORY_FAULT_INFO: an access to a poisoned page of a guest_memfd can be distinguished from other faults.
    #[cfg_attr(feature = "serde", serde(default))]
    pub memory_fault_info: Fact,
    /// How its kernel handles poisoned memory.
    #[cfg_attr(feature = "serde", serde(default))]
    pub memory_failure: MemoryFailure,
    /// CAP_SYS_ADMIN: the VMM may poison its own pages, for tests.
    #[cfg_attr(feature = "serde", serde(default))]
    pub privileged: Fact,
    /// Sizes in bytes of the pages that can back a guest, smallest first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub page_sizes: Vec<u64>,
    /// Bits of a guest physical address that KVM supports. `None` if it is unknown.
    #[cfg_attr(feature = "serde", serde(default))]
    pub address_bits: Option<u8>,
}

/// Abilities of the host's architecture, which is that of its guests too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ArchAbilities {
    /// 64-bit Arm.
    #[cfg_attr(feature = "serde", serde(rename = "aarch64"))]
    Aarch64(Aarch64Abilities),
    /// 64-bit x86.
    #[cfg_attr(feature = "serde", serde(rename = "x86_64"))]
    X86_64(X86Abilities),
}

/// Abilities of a 64-bit Arm host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct Aarch64Abilities {
    /// KVM_CAP_VCPU_EVENTS: an SError can be made pending while the guest masks it.
    pub vcpu_events: Fact,
    /// KVM_CAP_ARM_INJECT_SERROR_ESR: the SError can have a syndrome.
    pub inject_serror_esr: Fact,
    /// KVM_CAP_ARM_INJECT_EXT_DABT: KVM can inject an external data abort.
    pub inject_ext_dabt: Fact,
    /// KVM_CAP_ARM_SEA_TO_USER: aborts that the host's firmware does not claim are reported to the VMM.
    pub sea_to_user: Fact,
    /// FEAT_RAS: vCPUs have the RAS extension, which defines SError syndromes (ID_AA64PFR0_EL1.RAS is not 0).
    pub vcpu_ras: Fact,
    /// An abort can be marked as having no valid fault address (FnV): the VMM writes ESR_EL1 and enters the exception itself. KVM's own
    /// injection leaves the address of the last abort.
    pub far_not_valid: Fact,
}

/// Abilities of a 64-bit x86 host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct X86Abilities {
    /// KVM_CAP_USER_NMI.
    pub user_nmi: Fact,
    /// KVM_CAP_MCE. `None` if it is unknown. A KVM without it has no bits and no banks.
    pub mce: Option<MachineCheckAbilities>,
    /// The vendor whose machine check format its processors have. `None` if it is unknown: then Intel's is used, which is architectural.
    pub vendor: Option<Vendor>,
}

/// Abilities of KVM's emulated machine check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct MachineCheckAbilities {
    /// Bits of MCG_CAP, from KVM_X86_GET_MCE_CAP_SUPPORTED.
    pub supported: u64,
    /// Largest number of banks, from KVM_CHECK_EXTENSION(KVM_CAP_MCE).
    pub banks: u8,
}

impl MachineCheckAbilities {
    /// MCG_CTL_P: one register (MCG_CTL) enables reporting globally.
    pub const CTL_P: u64 = 1 << 8;
    /// MCG_CMCI_P: a corrected error raises an interrupt (Intel SDM volume 3, Machine-Check Architecture, IA32_MCG_CAP).
    pub const CMCI_P: u64 = 1 << 10;
    /// MCG_SER_P: software error recovery; without it every uncorrected error is fatal for the guest.
    pub const SER_P: u64 = 1 << 24;
    /// MCG_LMCE_P: a machine check may be delivered to one processor only.
    pub const LMCE_P: u64 = 1 << 27;

    /// Whether an uncorrected error can be reported that the guest recovers from: with software recovery, and in a bank other than the
    /// first.
    #[must_use]
    pub const fn has_software_recovery(&self) -> bool {
        self.has(Self::SER_P) && self.banks >= 2
    }

    /// Whether all of these bits are supported.
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.supported & bits == bits
    }
}

/// The vendor whose machine check format a processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Vendor {
    /// Intel; also Zhaoxin and Centaur.
    Intel,
    /// AMD; also Hygon.
    Amd,
}

/// How the host's kernel handles poisoned memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct MemoryFailure {
    /// CONFIG_MEMORY_FAILURE: it handles poisoned memory. Its sysctls show that; prctl(PR_MCE_KILL) succeeds without it too.
    pub handled: Fact,
    /// vm.memory_failure_recovery: it recovers from an error instead of panicking.
    pub recovery: Fact,
    /// vm.memory_failure_early_kill: every process is notified before it accesses the page, not only those that request it by prctl(2).
    pub early_kill: Fact,
}

impl HostAbilities {
    /// A host whose abilities are all unknown.
    #[must_use]
    pub fn unknown(arch: Arch) -> Self {
        HostAbilities {
            arch: match arch {
                Arch::Aarch64 => ArchAbilities::Aarch64(Aarch64Abilities::default()),
                Arch::X86_64 => ArchAbilities::X86_64(X86Abilities::default()),
            },
            kvm: Fact::Unknown,
            memory_fault_info: Fact::Unknown,
            memory_failure: MemoryFailure::default(),
            privileged: Fact::Unknown,
            page_sizes: Vec::new(),
            address_bits: None,
        }
    }

    /// The architecture of the host.
    #[must_use]
    pub const fn architecture(&self) -> Arch {
        match self.arch {
            ArchAbilities::Aarch64(_) => Arch::Aarch64,
            ArchAbilities::X86_64(_) => Arch::X86_64,
        }
    }
}
