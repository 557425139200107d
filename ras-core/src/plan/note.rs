//! What limits a plan on this host.

use alloc::vec::Vec;
use core::fmt;

use crate::abilities::{ArchAbilities, Fact, HostAbilities};
use crate::response::Response;

/// A limit of this host or of a chosen response. It does not change the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Note {
    /// KVM cannot be used on this host.
    NoKvm,
    /// The host's kernel does not report poisoned memory.
    HostReportsNothing,
    /// It is unknown whether it does.
    HostMayReportNothing,
    /// The host's kernel panics at poisoned memory.
    HostPanics,
    /// Poisoned pages of a guest_memfd cannot be distinguished from other faults.
    NoMemoryFaultInfo,
    /// Detected errors are reported only to threads that request early kill.
    #[cfg_attr(feature = "serde", serde(rename = "found-if-asked"))]
    DetectedIfRequested,
    /// Without privilege the VMM cannot poison its own pages to test this plan.
    #[cfg_attr(feature = "serde", serde(rename = "cannot-try"))]
    CannotInject,
    /// On x86_64, simulated poison, the only kind that this host can inject, drops the stores to it.
    SimulatedStoresAreDropped,
    /// Aborts that the host's firmware does not claim reach the guest as SErrors, not as planned.
    UnclaimedAborts,
    /// Linux refuses error sources that notify by SError.
    LinuxRefusesSei,
    /// SErrors carry no syndrome.
    NoSyndrome,
    /// An NMI is not synchronous.
    NmiIsNotSynchronous,
    /// The processor's vendor is unknown.
    VendorUnknown,
}

pub(super) fn notes(host: &HostAbilities, chosen: [Response; 2]) -> Vec<Note> {
    let is_chosen = |response| chosen.contains(&response);
    let no = |fact: Fact| fact == Fact::No;
    let HostAbilities { memory_failure, privileged, .. } = *host;
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
    note(no(host.memory_failure.early_kill), Note::DetectedIfRequested);
    note(no(host.memory_fault_info), Note::NoMemoryFaultInfo);
    note(no(host.privileged), Note::CannotInject);
    note(is_chosen(Response::Sei), Note::LinuxRefusesSei);
    note(is_chosen(Response::Nmi), Note::NmiIsNotSynchronous);
    match host.arch {
        ArchAbilities::Aarch64(host) => {
            note(no(host.sea_to_user), Note::UnclaimedAborts);
            let syndrome = host.inject_serror_esr.holds() && host.vcpu_ras.holds();
            note((is_chosen(Response::Sei) || is_chosen(Response::Serror)) && !syndrome, Note::NoSyndrome);
        }
        ArchAbilities::X86_64(host) => {
            note(is_chosen(Response::Mce) && host.vendor.is_none(), Note::VendorUnknown);
            note(no(memory_failure.handled) || no(privileged), Note::SimulatedStoresAreDropped);
        }
    }
    notes
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Note::NoKvm => "KVM cannot be used on this host: nothing boots here",
            Note::HostReportsNothing => {
                "the host's kernel was built without CONFIG_MEMORY_FAILURE: it reports no memory error"
            }
            Note::HostMayReportNothing => "it is unknown whether the host's kernel reports poisoned memory",
            Note::HostPanics => "vm.memory_failure_recovery is 0: the host panics before any guest is notified",
            Note::NoMemoryFaultInfo => "poisoned pages of a guest_memfd cannot be distinguished from other faults",
            Note::DetectedIfRequested => {
                "vm.memory_failure_early_kill is 0: detected errors are reported only to threads that called prctl(PR_MCE_KILL)"
            }
            Note::CannotInject => "without CAP_SYS_ADMIN no page can be poisoned to test this plan",
            Note::SimulatedStoresAreDropped => {
                "errors can only be simulated here (`via=simulate`): KVM has completed a store when it exits, so a store to \
                 simulated poison is reported to the guest and dropped"
            }
            Note::UnclaimedAborts => {
                "without KVM_CAP_ARM_SEA_TO_USER aborts that the host's firmware does not claim reach the guest as SErrors"
            }
            Note::LinuxRefusesSei => "Linux refuses error sources that notify by SError: it takes a plain SError and panics",
            Note::NoSyndrome => "SErrors carry no syndrome: the guest sees an implementation-defined one",
            Note::NmiIsNotSynchronous => {
                "an NMI is not synchronous: Linux handles the record as action optional, and the vCPU may access the page \
                 again before it is handled"
            }
            Note::VendorUnknown => "the processor's vendor is unknown: machine checks are encoded as Intel's",
        })
    }
}
