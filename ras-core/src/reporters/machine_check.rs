//! Machine checks of 64-bit x86 guests.

use alloc::boxed::Box;

use super::stop::stop;
use super::{BuildError, Moment, Registration, Reporter, Setup};
use crate::abilities::{ArchAbilities, HostAbilities, MachineCheckAbilities, Vendor};
use crate::actions::{Action, ActionSink, MachineCheck, Mark, StopReason, Target};
use crate::memory_error::{Kind, MemoryError};
use crate::response::Response;
use crate::vcpu_state::{MachineCheckState, VcpuState};

pub(super) const REGISTRATION: Registration = Registration {
    name: "machine_check",
    carries: |response| matches!(response, Response::Mce),
    build: |Setup { answer, host, .. }| {
        let reporter = MachineCheckReporter::new(host).ok_or(BuildError::NoMachineCheck(answer.chosen))?;
        Ok(Box::new(reporter))
    },
};

/// Tells the guest by machine check.
///
/// | | Intel | AMD |
/// |---|---|---|
/// | consumed | SRAR, data load | uncorrected, poison |
/// | found | SRAO, memory scrub | deferred, poison |
/// | found, while no exception can be taken | UCNA, where KVM raises the interrupt for it | not told |
/// | who takes it | all vCPUs together, or one where the guest switched local machine checks on | one |
///
/// KVM_X86_SET_MCE raises no exception for what is not uncorrected: it stores a deferred error, and the guest finds it when it looks.
#[derive(Clone, Copy, Debug)]
pub struct MachineCheckReporter {
    vendor: Vendor,
    host: MachineCheckAbilities,
}

impl MachineCheckReporter {
    /// The reporter for that host; none where its machine checks have no software recovery.
    #[must_use]
    pub fn new(host: &HostAbilities) -> Option<Self> {
        let ArchAbilities::X86_64(host) = host.arch else { return None };
        let mce = host.mce.filter(|mce| mce.has(MachineCheckAbilities::SER_P) && mce.banks >= 2)?;
        Some(MachineCheckReporter { vendor: host.vendor.unwrap_or(Vendor::Intel), host: mce })
    }

    /// What MCG_CAP the guest's vCPUs are to be set up with (KVM_X86_SETUP_MCE): what these machine checks need of what KVM has.
    #[must_use]
    pub fn mcg_cap(&self) -> u64 {
        self.host.supported & !BANK_COUNT | u64::from(self.banks())
    }

    fn banks(&self) -> u8 {
        self.host.banks.min(BANKS)
    }

    /// The bank of an error: never the same for the two kinds, so that one that the guest has not read yet does not make the other look
    /// overflowed, which Linux takes as fatal. And not bank 0 where there are others: early Intel processors of family 6 keep something
    /// else there, and Linux leaves it alone.
    fn bank(&self, kind: Kind) -> u8 {
        let last = self.banks().saturating_sub(1);
        match kind {
            Kind::ActionRequired => last,
            Kind::ActionOptional => last.saturating_sub(1),
        }
    }

    fn registers(&self, kind: Kind, gpa: u64) -> MachineCheck {
        let (status, mcg_status) = match (self.vendor, kind) {
            (Vendor::Intel, Kind::ActionRequired) => {
                (status::UNCORRECTED | status::S | status::AR | status::DATA_LOAD, mcg::TAKEN | mcg::EIPV)
            }
            (Vendor::Intel, Kind::ActionOptional) => {
                (status::UNCORRECTED | status::S | status::SCRUB, mcg::TAKEN)
            }
            (Vendor::Amd, Kind::ActionRequired) => {
                (status::UNCORRECTED | status::POISON, mcg::TAKEN | mcg::EIPV)
            }
            (Vendor::Amd, Kind::ActionOptional) => {
                (status::REPORTED | status::DEFERRED | status::POISON, mcg::TAKEN)
            }
        };
        MachineCheck { bank: self.bank(kind), status, addr: page(gpa), misc: MISC, mcg_status }
    }

    /// All vCPUs take an Intel machine check together, unless it is local.
    fn is_broadcast(&self, vcpu: MachineCheckState) -> bool {
        self.vendor == Vendor::Intel && !(vcpu.local && self.host.has(MachineCheckAbilities::LMCE_P))
    }

    fn inject(&self, error: &MemoryError, vcpu: u32, state: MachineCheckState, sink: &mut dyn ActionSink) {
        let mut registers = self.registers(error.kind, error.gpa);
        if self.is_broadcast(state) {
            // Uncorrected and not enabled: the others meet, find nothing of theirs, and go on.
            let bystander = MachineCheck {
                bank: registers.bank,
                status: status::VAL | status::UC,
                addr: 0,
                misc: 0,
                mcg_status: mcg::TAKEN,
            };
            sink.act(Action::MachineCheck { target: Target::AllBut(vcpu), registers: bystander });
        } else if self.vendor == Vendor::Intel {
            registers.mcg_status |= mcg::LMCE;
        }
        sink.act(Action::MachineCheck { target: Target::Vcpu(vcpu), registers });
        sink.act(Action::Mark(Mark::Answered { span: error.span, response: Response::Mce }));
    }

    /// Uncorrected, no action required: stored, and told by the interrupt for corrected errors. Needs no exception.
    fn interrupt(&self, error: &MemoryError, vcpu: u32, sink: &mut dyn ActionSink) {
        if self.vendor != Vendor::Intel || !self.host.has(MachineCheckAbilities::CMCI_P) {
            sink.act(Action::Mark(Mark::Answered { span: error.span, response: Response::Ignore }));
            return;
        }
        let registers = MachineCheck {
            bank: self.bank(Kind::ActionOptional),
            status: status::UNCORRECTED | status::SCRUB,
            addr: page(error.gpa),
            misc: MISC,
            mcg_status: 0,
        };
        sink.act(Action::MachineCheck { target: Target::Vcpu(vcpu), registers });
        sink.act(Action::Mark(Mark::Answered { span: error.span, response: Response::Mce }));
    }
}

impl Reporter for MachineCheckReporter {
    fn name(&self) -> &'static str {
        REGISTRATION.name
    }

    fn report(&mut self, error: &MemoryError, moment: &Moment, sink: &mut dyn ActionSink) {
        let state = match moment.vcpu {
            Some(VcpuState::X86_64(state)) => Some(state),
            _ => None,
        };
        let takes = |state: &MachineCheckState| {
            state.enabled && !state.in_progress && (state.others_ready || !self.is_broadcast(*state))
        };
        match (error.kind, error.vcpu, state) {
            (Kind::ActionRequired, Some(vcpu), Some(state)) if takes(&state) => {
                self.inject(error, vcpu, state, sink);
            }
            (Kind::ActionRequired, Some(_), Some(state)) if state.enabled => {
                stop(*error, StopReason::Unacknowledged, sink);
            }
            (Kind::ActionRequired, ..) => stop(*error, StopReason::NotDeliverable, sink),
            // Nobody consumed it: the first vCPU is told.
            (Kind::ActionOptional, _, Some(state)) if takes(&state) => self.inject(error, 0, state, sink),
            (Kind::ActionOptional, ..) => self.interrupt(error, 0, sink),
        }
    }
}

/// Banks that a guest gets where the host has more: 10, as other machines of this kind have.
const BANKS: u8 = 10;
/// MCG_CAP bits 7:0.
const BANK_COUNT: u64 = 0xff;
/// MCi_MISC: a physical address (mode 2, bits 8:6), good to 4 KiB (12, bits 5:0). Linux clears the address's bits below, so that a coarser
/// granule would take the wrong page from the guest.
const MISC: u64 = 2 << 6 | 12;

/// First address of the page of 4 KiB.
const fn page(gpa: u64) -> u64 {
    gpa & !0xfff
}

/// MCi_STATUS (Intel SDM volume 3, Machine-Check Architecture, IA32_MCi_STATUS; AMD APM volume 2, chapter 9).
mod status {
    /// The bank holds something.
    pub(super) const VAL: u64 = 1 << 63;
    /// Uncorrected.
    pub(super) const UC: u64 = 1 << 61;
    /// Reported, with a physical address and the detail about it: VAL, EN, MISCV, ADDRV.
    pub(super) const REPORTED: u64 = VAL | 1 << 60 | 1 << 59 | 1 << 58;
    /// The same and UC.
    pub(super) const UNCORRECTED: u64 = REPORTED | UC;
    /// Intel: told by an exception.
    pub(super) const S: u64 = 1 << 56;
    /// Intel: action required.
    pub(super) const AR: u64 = 1 << 55;
    /// AMD: nobody consumed it yet.
    pub(super) const DEFERRED: u64 = 1 << 44;
    /// AMD: the data is marked as lost.
    pub(super) const POISON: u64 = 1 << 43;
    /// Intel: data load, an architecturally defined SRAR error.
    pub(super) const DATA_LOAD: u64 = 0x134;
    /// Intel: memory scrub, channel 0, an architecturally defined SRAO error.
    pub(super) const SCRUB: u64 = 0xc0;
}

/// MCG_STATUS (Intel SDM volume 3, Machine-Check Architecture, IA32_MCG_STATUS).
mod mcg {
    /// The exception is being taken, and the program can go on where it was: MCIP and RIPV.
    pub(super) const TAKEN: u64 = 1 << 2 | 1;
    /// The instruction that was interrupted is the one that consumed the error.
    pub(super) const EIPV: u64 = 1 << 1;
    /// Only this processor takes it.
    pub(super) const LMCE: u64 = 1 << 3;
}
