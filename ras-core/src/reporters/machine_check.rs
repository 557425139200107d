//! Machine checks of 64-bit x86 guests.

use alloc::boxed::Box;

use super::stop::stop;
use super::{BuildError, Registration, Reporter, ReporterContext, Setup};
use crate::abilities::{ArchAbilities, HostAbilities, MachineCheckAbilities, Vendor};
use crate::actions::{Action, ActionSink, ErrorEvent, MachineCheck, StopReason, Target};
use crate::memory_error::{Kind, MemoryError};
use crate::plan::Timeouts;
use crate::queue::Queue;
use crate::response::Response;
use crate::vcpu_state::{MachineCheckState, VcpuState};

pub(super) const REGISTRATION: Registration = Registration {
    name: "machine_check",
    carries: |response| matches!(response, Response::Mce),
    build: |Setup { answer, host, .. }| {
        let reporter = MachineCheckReporter::new(host).ok_or(BuildError::NoMachineCheck(answer.chosen))?;
        Ok(Box::new(reporter.with_timeouts(&answer.timeouts)))
    },
};

/// Tells the guest by machine check.
///
/// | | Intel | AMD |
/// |---|---|---|
/// | consumed | SRAR, data load | uncorrected, poison |
/// | found | SRAO, memory scrub | deferred, poison |
/// | found, while no exception can be taken | UCNA, where KVM raises the interrupt for it | as before: it takes none |
/// | who takes it | all vCPUs together, or one where the guest switched local machine checks on | one |
///
/// KVM_X86_SET_MCE raises no exception for what is not uncorrected: it stores a deferred error, and the guest finds it when it looks.
///
/// A machine check while another is in progress would end the guest (KVM: triple fault), and an UCNA would clear the MCG_STATUS that the
/// handler is about to read (KVM stores the zero that makes it one). Neither is tried. Where several vCPUs touch poisoned memory at once this
/// is the rule, not the exception: each takes part in the machine check of the other. The vCPU is held for a moment and entered again: it
/// takes the machine check that waits for it, then touches the page again and is told. Only a guest that leaves one in progress for longer
/// than the patience is stopped. What nobody consumed waits as long, and is then left to the ledger.
#[derive(Clone, Debug)]
pub struct MachineCheckReporter {
    vendor: Vendor,
    host: MachineCheckAbilities,
    timeout_ns: u64,
    /// vCPUs that cannot be told yet of what they consumed.
    busy: Queue<Busy, CAPACITY>,
    /// What nobody consumed and cannot be told yet.
    later: Queue<Later, CAPACITY>,
}

/// A vCPU that another machine check stands in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Busy {
    vcpu: u32,
    since_ns: u64,
    /// When it last touched poisoned memory.
    last_ns: u64,
    held: bool,
}

/// Something that nobody consumed and that could not be told yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Later {
    error: MemoryError,
    since_ns: u64,
    /// When it was last tried.
    last_ns: u64,
}

/// vCPUs, and errors, that wait at once.
const CAPACITY: usize = 64;
/// How long is waited before the next attempt.
const PAUSE_NS: u64 = 1_000_000;

impl MachineCheckReporter {
    /// The reporter for that host; none where its machine checks have no software recovery.
    #[must_use]
    pub fn new(host: &HostAbilities) -> Option<Self> {
        let ArchAbilities::X86_64(host) = host.arch else { return None };
        let mce = host.mce.filter(|mce| mce.has(MachineCheckAbilities::SER_P) && mce.banks >= 2)?;
        Some(MachineCheckReporter {
            vendor: host.vendor.unwrap_or(Vendor::Intel),
            host: mce,
            timeout_ns: 2_000_000_000,
            busy: Queue::new(),
            later: Queue::new(),
        })
    }

    /// Waits so long for a machine check that is in progress ([`Timeouts::acknowledge_ms`]); without this, two seconds.
    #[must_use]
    pub fn with_timeouts(self, timeouts: &Timeouts) -> Self {
        MachineCheckReporter { timeout_ns: timeouts.acknowledge_ns(), ..self }
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
            // Uncorrected and not enabled: the others meet, find nothing of theirs, and go on. Linux leaves this in the bank until it looks
            // for corrected errors, minutes later: in the bank of the next error it would look overflowed.
            let bystander = MachineCheck {
                bank: self.banks().saturating_sub(3),
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
        sink.act(Action::Event(ErrorEvent::Answered { span: error.span, response: Response::Mce }));
    }

    /// Uncorrected, no action required: stored, and told by the interrupt for corrected errors. Needs no exception.
    fn interrupt(&self, error: &MemoryError, sink: &mut dyn ActionSink) {
        let registers = MachineCheck {
            bank: self.bank(Kind::ActionOptional),
            status: status::UNCORRECTED | status::SCRUB,
            addr: page(error.gpa),
            misc: MISC,
            mcg_status: 0,
        };
        sink.act(Action::MachineCheck { target: Target::Vcpu(0), registers });
        sink.act(Action::Event(ErrorEvent::Answered { span: error.span, response: Response::Mce }));
    }

    /// Whether a vCPU that stands so, and all that take part, can take the exception.
    fn takes(&self, state: MachineCheckState) -> bool {
        state.enabled && !state.in_progress && (state.others_ready || !self.is_broadcast(state))
    }

    /// Tells vCPU 0 of what nobody consumed, where it can be told now.
    fn report_detected(
        &self,
        error: &MemoryError,
        state: Option<MachineCheckState>,
        sink: &mut dyn ActionSink,
    ) -> bool {
        match (self.vendor, state) {
            (Vendor::Amd, _) => {
                let registers = self.registers(Kind::ActionOptional, error.gpa);
                sink.act(Action::MachineCheck { target: Target::Vcpu(0), registers });
                sink.act(Action::Event(ErrorEvent::Answered { span: error.span, response: Response::Mce }));
            }
            (Vendor::Intel, Some(state)) if self.takes(state) => self.inject(error, 0, state, sink),
            (Vendor::Intel, Some(state))
                if !state.in_progress && self.host.has(MachineCheckAbilities::CMCI_P) =>
            {
                self.interrupt(error, sink);
            }
            (Vendor::Intel, _) => return false,
        }
        true
    }

    /// Has a vCPU try again a moment later, or says that it has tried for too long.
    fn hold(&mut self, vcpu: u32, now_ns: u64, sink: &mut dyn ActionSink) -> Result<(), StillBusy> {
        let before = self.busy.take_first(|busy| busy.vcpu == vcpu);
        let since_ns = before
            .filter(|busy| now_ns.saturating_sub(busy.last_ns) <= self.timeout_ns)
            .map_or(now_ns, |busy| busy.since_ns);
        if now_ns.saturating_sub(since_ns) >= self.timeout_ns && before.is_some() {
            return Err(StillBusy);
        }
        let busy = Busy { vcpu, since_ns, last_ns: now_ns, held: true };
        let mut pushed = self.busy.push(busy);
        if pushed.is_err() && self.busy.take_first(|busy| !busy.held).is_some() {
            pushed = self.busy.push(busy);
        }
        if pushed.is_ok() {
            sink.act(Action::Hold { vcpu });
        }
        // Where there is no room to hold it, it is entered again at once, and asks again.
        Ok(())
    }
}

/// A machine check has been in progress for longer than the patience.
struct StillBusy;

impl Reporter for MachineCheckReporter {
    fn name(&self) -> &'static str {
        REGISTRATION.name
    }

    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let state = match context.vcpu {
            Some(VcpuState::X86_64(state)) => Some(state),
            _ => None,
        };
        match (error.kind, error.vcpu, state) {
            (Kind::ActionRequired, Some(vcpu), Some(state)) if self.takes(state) => {
                self.busy.take_first(|busy| busy.vcpu == vcpu);
                self.inject(error, vcpu, state, sink);
            }
            (Kind::ActionRequired, Some(vcpu), Some(state)) if state.enabled => {
                if self.hold(vcpu, context.now_ns, sink).is_err() {
                    stop(*error, StopReason::Unacknowledged, sink);
                }
            }
            (Kind::ActionRequired, ..) => stop(*error, StopReason::NotDeliverable, sink),
            (Kind::ActionOptional, ..) => {
                let later = Later { error: *error, since_ns: context.now_ns, last_ns: context.now_ns };
                if !self.report_detected(error, state, sink) && self.later.push(later).is_err() {
                    sink.act(Action::Event(ErrorEvent::Answered {
                        span: error.span,
                        response: Response::Ignore,
                    }));
                }
            }
        }
    }

    fn tick(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        for busy in self.busy.iter_mut() {
            if busy.held && context.now_ns.saturating_sub(busy.last_ns) >= PAUSE_NS {
                busy.held = false;
                sink.act(Action::Release { vcpu: busy.vcpu });
            }
        }
        let state = match context.vcpu {
            Some(VcpuState::X86_64(state)) => Some(state),
            _ => None,
        };
        // One at a time: with the first, a machine check is in progress.
        let Some(&Later { error, since_ns, .. }) = self.later.iter().next() else { return };
        if self.report_detected(&error, state, sink) {
            self.later.pop();
        } else if context.now_ns.saturating_sub(since_ns) >= self.timeout_ns {
            self.later.pop();
            sink.act(Action::Event(ErrorEvent::Answered { span: error.span, response: Response::Ignore }));
        } else if let Some(first) = self.later.first_mut() {
            first.last_ns = context.now_ns;
        }
    }

    fn reset(&mut self, _still_lost: bool, _moment: &ReporterContext, _sink: &mut dyn ActionSink) {
        self.busy = Queue::new();
        self.later = Queue::new();
    }

    fn deadline_ns(&self) -> Option<u64> {
        let held = self.busy.iter().filter(|busy| busy.held).map(|busy| busy.last_ns);
        // The first is tried each moment; nobody tells when the guest is ready.
        let later = self.later.iter().take(1).map(|later| later.last_ns);
        held.chain(later).map(|last_ns| last_ns.saturating_add(PAUSE_NS)).min()
    }
}

/// Banks that a guest gets where the host has more: 10, as other machines of this kind have.
pub const BANKS: u8 = 10;
/// The bank of consumed errors in a guest with so many.
pub const CONSUMED_BANK: u8 = BANKS - 1;
/// The bank of found errors in a guest with so many.
pub const DETECTED_BANK: u8 = BANKS - 2;

/// What MCG_CAP the guest's vCPUs are to be set up with (KVM_X86_SETUP_MCE): what these machine checks need of what KVM supports.
#[must_use]
pub const fn guest_mcg_cap(supported: u64) -> u64 {
    let wanted = MachineCheckAbilities::CTL_P | MachineCheckAbilities::SER_P | MachineCheckAbilities::CMCI_P;
    supported & wanted | BANKS as u64
}

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
