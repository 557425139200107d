//! What a host can do, as plain data.
//!
//! Whoever can ask a host fills it in; it can be written to a file there and planned with here.

use alloc::vec::Vec;

use crate::request::Arch;

/// Something about a host that may not be known. Where an answer depends on it, not known counts as no: nothing is promised on a guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Fact {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// Nobody could tell.
    #[default]
    Unknown,
}

impl Fact {
    /// All of them.
    pub const ALL: [Fact; 3] = [Fact::Yes, Fact::No, Fact::Unknown];

    /// Whether it is known to be so.
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

/// What a host can do. What a file leaves out is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct HostAbilities {
    /// What depends on its architecture.
    pub arch: ArchAbilities,
    /// Whether KVM can be used there.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kvm: Fact,
    /// KVM_CAP_MEMORY_FAULT_INFO: a poisoned page of a guest_memfd is told apart from other faults.
    #[cfg_attr(feature = "serde", serde(default))]
    pub memory_fault_info: Fact,
    /// What its kernel does about poisoned memory.
    #[cfg_attr(feature = "serde", serde(default))]
    pub memory_failure: MemoryFailure,
    /// CAP_SYS_ADMIN: the VMM may poison its own pages, to try what happens.
    #[cfg_attr(feature = "serde", serde(default))]
    pub privileged: Fact,
    /// Bytes of the pages that it can back a guest with, smallest first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub page_sizes: Vec<u64>,
}

/// What depends on the host's architecture, which is that of every guest it runs.
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

/// What matters on a 64-bit Arm host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct Aarch64Abilities {
    /// KVM_CAP_VCPU_EVENTS: an SError can be made pending while the guest masks it.
    pub vcpu_events: Fact,
    /// KVM_CAP_ARM_INJECT_SERROR_ESR: and with a syndrome.
    pub inject_serror_esr: Fact,
    /// KVM_CAP_ARM_INJECT_EXT_DABT: KVM makes an external data abort of itself.
    pub inject_ext_dabt: Fact,
    /// KVM_CAP_ARM_SEA_TO_USER: aborts that the host's firmware does not claim come to the VMM.
    pub sea_to_user: Fact,
    /// FEAT_RAS: vCPUs have the RAS extension, and with it SError syndromes (ID_AA64PFR0_EL1.RAS is not 0).
    pub vcpu_ras: Fact,
    /// An abort can say that its fault address is not valid: the VMM writes ESR_EL1 and enters the exception itself. KVM's own abort
    /// always shows the address of the last one.
    pub far_not_valid: Fact,
}

/// What matters on a 64-bit x86 host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct X86Abilities {
    /// KVM_CAP_USER_NMI.
    pub user_nmi: Fact,
    /// KVM_CAP_MCE; none where it is not known. A KVM without it has no bits and no banks.
    pub mce: Option<MachineCheckAbilities>,
    /// Whose machine checks its processors have; none where it is not known, and then Intel's are used: they are the architecture's.
    pub vendor: Option<Vendor>,
}

/// What KVM's emulated machine check can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct MachineCheckAbilities {
    /// What KVM_X86_GET_MCE_CAP_SUPPORTED said: bits of MCG_CAP.
    pub supported: u64,
    /// What KVM_CHECK_EXTENSION said for KVM_CAP_MCE: banks at most.
    pub banks: u8,
}

impl MachineCheckAbilities {
    /// MCG_CTL_P: reporting is switched on and off in one register for all.
    pub const CTL_P: u64 = 1 << 8;
    /// MCG_CMCI_P: a corrected error raises an interrupt (Intel SDM volume 3, Machine-Check Architecture, IA32_MCG_CAP).
    pub const CMCI_P: u64 = 1 << 10;
    /// MCG_SER_P: software error recovery; without it every uncorrected error ends the guest.
    pub const SER_P: u64 = 1 << 24;
    /// MCG_LMCE_P: a machine check may be told to one processor only.
    pub const LMCE_P: u64 = 1 << 27;

    /// Whether all those bits are supported.
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.supported & bits == bits
    }
}

/// Whose machine checks a processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Vendor {
    /// Intel's: also of Zhaoxin and Centaur.
    Intel,
    /// AMD's: also of Hygon.
    Amd,
}

/// What the host's kernel does about poisoned memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case", deny_unknown_fields, default)
)]
pub struct MemoryFailure {
    /// CONFIG_MEMORY_FAILURE: it does something at all. Its sysctls show it; prctl(PR_MCE_KILL) succeeds without.
    pub handled: Fact,
    /// vm.memory_failure_recovery: it goes on after an error instead of panicking.
    pub recovery: Fact,
    /// vm.memory_failure_early_kill: every process is told before it touches the page, not only those that asked for it by prctl(2).
    pub early_kill: Fact,
}

impl HostAbilities {
    /// A host of which nothing is known.
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
