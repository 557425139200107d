//! What else is worth knowing.

use alloc::vec::Vec;
use core::fmt;

use crate::abilities::{ArchAbilities, Fact, HostAbilities};
use crate::response::Response;

/// Something that changes no answer, but what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Note {
    /// KVM cannot be used on this host.
    NoKvm,
    /// The host's kernel reports no poisoned memory.
    HostReportsNothing,
    /// Nobody could tell whether it does.
    HostMayReportNothing,
    /// It panics at poisoned memory.
    HostPanics,
    /// Poisoned pages of a guest_memfd are not told apart from other faults.
    NoMemoryFaultInfo,
    /// What is found lost reaches only those who ask for it.
    FoundIfAsked,
    /// Without privilege the VMM cannot poison its own pages to try this plan.
    CannotTry,
    /// Aborts that the host's firmware does not claim reach the guest as SErrors, not as this plan has them.
    UnclaimedAborts,
    /// Linux refuses sources that are notified by SError.
    LinuxRefusesSei,
    /// SErrors carry no syndrome.
    NoSyndrome,
    /// An NMI is not synchronous.
    NmiIsNotSynchronous,
    /// Machine checks of which vendor is not known.
    VendorUnknown,
}

pub(super) fn notes(host: &HostAbilities, chosen: [Response; 2]) -> Vec<Note> {
    let chose = |response| chosen.contains(&response);
    let no = |fact: Fact| fact == Fact::No;
    let mut notes = Vec::new();
    let mut note = |applies: bool, note: Note| {
        if applies {
            notes.push(note);
        }
    };
    note(no(host.kvm), Note::NoKvm);
    note(no(host.memory_failure.handled), Note::HostReportsNothing);
    note(host.memory_failure.handled == Fact::Unknown, Note::HostMayReportNothing);
    note(no(host.memory_failure.recovery), Note::HostPanics);
    note(no(host.memory_failure.early_kill), Note::FoundIfAsked);
    note(no(host.memory_fault_info), Note::NoMemoryFaultInfo);
    note(no(host.privileged), Note::CannotTry);
    note(chose(Response::Sei), Note::LinuxRefusesSei);
    note(chose(Response::Nmi), Note::NmiIsNotSynchronous);
    match host.arch {
        ArchAbilities::Aarch64(host) => {
            note(no(host.sea_to_user), Note::UnclaimedAborts);
            let syndrome = host.inject_serror_esr.holds() && host.vcpu_ras.holds();
            note((chose(Response::Sei) || chose(Response::Serror)) && !syndrome, Note::NoSyndrome);
        }
        ArchAbilities::X86_64(host) => {
            note(chose(Response::Mce) && host.vendor.is_none(), Note::VendorUnknown);
        }
    }
    notes
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Note::NoKvm => "KVM cannot be used on this host: nothing boots here",
            Note::HostReportsNothing => {
                "the host's kernel was built without CONFIG_MEMORY_FAILURE: like a memory controller that reports \
                 nothing, it will never tell of an error"
            }
            Note::HostMayReportNothing => "it is not known whether the host's kernel reports poisoned memory",
            Note::HostPanics => "vm.memory_failure_recovery is 0: the host panics before any guest is told",
            Note::NoMemoryFaultInfo => "poisoned pages of a guest_memfd are not told apart from other faults",
            Note::FoundIfAsked => {
                "vm.memory_failure_early_kill is 0: found errors reach only a thread that asks by prctl(PR_MCE_KILL)"
            }
            Note::CannotTry => "without CAP_SYS_ADMIN no page can be poisoned to try this plan",
            Note::UnclaimedAborts => {
                "without KVM_CAP_ARM_SEA_TO_USER aborts that the host's firmware does not claim reach the guest as SErrors"
            }
            Note::LinuxRefusesSei => "Linux refuses error sources notified by SError: it sees an SError and panics",
            Note::NoSyndrome => "SErrors carry no syndrome: the guest sees an implementation-defined one",
            Note::NmiIsNotSynchronous => {
                "an NMI is taken by whoever runs: Linux treats the record as action optional, and the vCPU may touch the \
                 page again before it is dealt with"
            }
            Note::VendorUnknown => "the processor's vendor is not known: machine checks are encoded as Intel's",
        })
    }
}
