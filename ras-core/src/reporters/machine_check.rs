//! Machine checks of 64-bit x86 guests.

mod in_progress;
mod registers;

use alloc::boxed::Box;

use super::stop::stop;
use super::{BuildError, Registration, Reporter, ReporterContext, Setup};
use crate::abilities::{ArchAbilities, HostAbilities, MachineCheckAbilities, Vendor};
use crate::actions::{
    Action, ActionFailed, ActionSink, ErrorEvent, MachineCheck, StopReason, Target, Unacknowledged,
};
use crate::memory_error::{Kind, MemoryError};
use crate::plan::Timeouts;
use crate::queue::Queue;
use crate::response::Response;
use crate::severity::Severity;
use crate::vcpu_state::{MachineCheckState, VcpuState};
use in_progress::InProgress;
use registers::{MISC, mcg, status};

pub(super) const REGISTRATION: Registration = Registration {
    carries: |response| matches!(response, Response::Mce),
    build: |Setup { response, host, .. }| {
        let reporter = MachineCheckReporter::new(host).ok_or(BuildError::NoMachineCheck(response.chosen))?;
        Ok(Box::new(reporter.with_timeouts(&response.timeouts)))
    },
};

/// Notifies the guest by machine checks.
///
/// | | Intel | AMD |
/// |---|---|---|
/// | consumed | SRAR, data load | uncorrected, poison |
/// | detected | SRAO, memory scrub | deferred, poison |
/// | detected, while no exception can be taken | UCNA, if KVM supports its interrupt (CMCI) | the same: it needs no exception |
/// | taken by | all vCPUs together, or one if the guest enabled local machine checks | one vCPU |
///
/// A fatal error, consumed or detected, is an exception with a corrupt processor context (PCC), which no operating system survives.
///
/// KVM_X86_SET_MCE raises no exception for an error that is not uncorrected: it stores a deferred error, which the guest reads when it polls
/// its banks.
///
/// A machine check while another is in progress would shut the guest down (KVM: triple fault), and an UCNA would clear the MCG_STATUS that
/// the handler is about to read (KVM stores the zero that defines an UCNA). Both are avoided. If several vCPUs access poisoned memory at the
/// same time, this is the normal case: each takes part in the machine check of the other. The vCPU is held for a moment and entered again:
/// it takes the pending machine check, then accesses the page again and is notified. The guest is only stopped if a machine check stays in
/// progress for longer than the timeout. Detected errors are retried for that time, and then left to the ledger.
///
/// A machine check has no record to acknowledge, but its handler ends by clearing MCG_STATUS.MCIP (Intel SDM volume 3, IA32_MCG_STATUS). The
/// state of a vCPU that was notified is observed when the timeout has passed: if the machine check is still in progress, it is overdue. A
/// detected error is acknowledged when its bank is clear.
#[derive(Clone, Debug)]
pub struct MachineCheckReporter {
    vendor: Vendor,
    host: MachineCheckAbilities,
    timeout_ns: u64,
    /// vCPUs that consumed an error and cannot be notified yet.
    busy: Queue<Busy, CAPACITY>,
    /// Detected errors that cannot be reported yet.
    deferred: Queue<Deferred, CAPACITY>,
    in_progress: InProgress<CAPACITY>,
    /// The last detected error, until its bank was observed to be clear.
    unread: Option<Unacknowledged>,
}

/// A vCPU that cannot be notified because another machine check is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Busy {
    vcpu: u32,
    since_ns: u64,
    /// When it last accessed poisoned memory.
    last_ns: u64,
    held: bool,
}

/// A detected error that could not be reported yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deferred {
    error: MemoryError,
    since_ns: u64,
    /// When reporting was last tried.
    last_ns: u64,
}

/// Number of vCPUs, and of errors, that can be queued.
const CAPACITY: usize = 64;
/// Interval between attempts.
const RETRY_INTERVAL_NS: u64 = 1_000_000;

impl MachineCheckReporter {
    /// The reporter for that host. `None` if its machine checks have no software recovery.
    #[must_use]
    pub fn new(host: &HostAbilities) -> Option<Self> {
        let ArchAbilities::X86_64(host) = host.arch else { return None };
        let mce = host.mce.filter(MachineCheckAbilities::has_software_recovery)?;
        Some(MachineCheckReporter {
            vendor: host.vendor.unwrap_or(Vendor::Intel),
            host: mce,
            timeout_ns: 2_000_000_000,
            busy: Queue::new(),
            deferred: Queue::new(),
            in_progress: InProgress::default(),
            unread: None,
        })
    }

    /// Sets how long a machine check may be in progress ([`Timeouts::acknowledge_ms`]). The default is two seconds.
    #[must_use]
    pub fn with_timeouts(self, timeouts: &Timeouts) -> Self {
        MachineCheckReporter { timeout_ns: timeouts.acknowledge_ns(), ..self }
    }

    fn banks(&self) -> u8 {
        self.host.banks.min(BANKS)
    }

    /// The bank of an error: different for the two kinds, so that an unread error of one does not make the other look overflowed, which is
    /// fatal for Linux. Not bank 0 if there are others: early Intel processors of family 6 use it otherwise, and Linux skips it.
    fn bank(&self, kind: Kind) -> u8 {
        let last = self.banks().saturating_sub(1);
        match kind {
            Kind::ActionRequired => last,
            Kind::ActionOptional | Kind::Corrected => last.saturating_sub(1),
        }
    }

    fn registers(&self, error: &MemoryError) -> MachineCheck {
        let kind = error.kind;
        let (status, mcg_status) = match (self.vendor, kind) {
            (_, kind) if error.severity == Severity::Fatal => {
                let code = if kind == Kind::ActionRequired { status::DATA_LOAD } else { status::SCRUB };
                (status::UNCORRECTED | status::PCC | code, mcg::MCIP)
            }
            (Vendor::Intel, Kind::ActionRequired) => {
                (status::UNCORRECTED | status::S | status::AR | status::DATA_LOAD, mcg::TAKEN | mcg::EIPV)
            }
            (Vendor::Intel, Kind::ActionOptional | Kind::Corrected) => {
                (status::UNCORRECTED | status::S | status::SCRUB, mcg::TAKEN)
            }
            (Vendor::Amd, Kind::ActionRequired) => {
                (status::UNCORRECTED | status::POISON, mcg::TAKEN | mcg::EIPV)
            }
            (Vendor::Amd, Kind::ActionOptional | Kind::Corrected) => {
                (status::REPORTED | status::DEFERRED | status::POISON, mcg::TAKEN)
            }
        };
        MachineCheck { bank: self.bank(kind), status, addr: page(error.gpa), misc: MISC, mcg_status }
    }

    /// Whether all vCPUs take it together: Intel's, unless it is local.
    fn is_broadcast(&self, vcpu: MachineCheckState) -> bool {
        self.vendor == Vendor::Intel && !(vcpu.local && self.host.has(MachineCheckAbilities::LMCE_P))
    }

    fn inject(
        &self,
        error: &MemoryError,
        vcpu: u32,
        state: MachineCheckState,
        sink: &mut dyn ActionSink,
    ) -> Result<(), ActionFailed> {
        let mut registers = self.registers(error);
        if self.is_broadcast(state) {
            // Uncorrected and not enabled: the other vCPUs rendezvous, see no error of their own, and continue. Linux leaves this in the bank
            // until it polls for corrected errors, minutes later: in the bank of the next error it would look like an overflow.
            let bystander = MachineCheck {
                bank: self.banks().saturating_sub(3),
                status: status::VAL | status::UC,
                addr: 0,
                misc: 0,
                mcg_status: mcg::TAKEN,
            };
            sink.act(Action::MachineCheck { target: Target::AllBut(vcpu), registers: bystander })?;
        } else if self.vendor == Vendor::Intel {
            registers.mcg_status |= mcg::LMCE;
        }
        report_to(vcpu, registers, error, sink)
    }

    /// UCNA: uncorrected, no action required. It is stored and signalled by the interrupt for corrected errors, without an exception.
    fn inject_ucna(&self, error: &MemoryError, sink: &mut dyn ActionSink) -> Result<(), ActionFailed> {
        let registers = MachineCheck {
            bank: self.bank(Kind::ActionOptional),
            status: status::UNCORRECTED | status::SCRUB,
            addr: page(error.gpa),
            misc: MISC,
            mcg_status: 0,
        };
        report_to(0, registers, error, sink)
    }

    /// Reports a detected error to vCPU 0, if that is possible now. Returns whether it was.
    fn try_report_detected(
        &mut self,
        error: &MemoryError,
        state: Option<MachineCheckState>,
        sink: &mut dyn ActionSink,
    ) -> bool {
        let is_fatal = error.severity == Severity::Fatal;
        let outcome = match (self.vendor, state) {
            (Vendor::Amd, _) if !is_fatal => report_to(0, self.registers(error), error, sink),
            (_, Some(state)) if can_take(state) => self.inject(error, 0, state, sink),
            (Vendor::Intel, Some(state))
                if !is_fatal && !state.in_progress && self.host.has(MachineCheckAbilities::CMCI_P) =>
            {
                self.inject_ucna(error, sink)
            }
            _ => return false,
        };
        if outcome.is_ok() {
            let MemoryError { span, severity, .. } = *error;
            self.unread = Some(Unacknowledged { source: None, span, severity, consumed_by: None });
        }
        outcome.is_ok()
    }

    /// Holds a vCPU until the next attempt. Returns an error if it could not be notified for longer than the timeout.
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
            // A VMM can always hold its vCPUs.
            let _ = sink.act(Action::Hold { vcpu });
        }
        // If the queue is full, the vCPU is not held: it is entered again immediately, and is reported again.
        Ok(())
    }
}

/// A machine check has been in progress for longer than the timeout.
struct StillBusy;

/// Whether a vCPU in that state can take the exception. A bystander of a broadcast takes its part once it can: the VMM keeps it pending.
const fn can_take(state: MachineCheckState) -> bool {
    state.enabled && !state.in_progress
}

/// Reports an error to a vCPU by these registers.
fn report_to(
    vcpu: u32,
    registers: MachineCheck,
    error: &MemoryError,
    sink: &mut dyn ActionSink,
) -> Result<(), ActionFailed> {
    sink.act(Action::MachineCheck { target: Target::Vcpu(vcpu), registers })?;
    sink.event(ErrorEvent::Handled { span: error.span, response: Response::Mce });
    Ok(())
}

impl Reporter for MachineCheckReporter {
    fn report(&mut self, error: &MemoryError, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let state = match context.vcpu {
            Some(VcpuState::X86_64(state)) => Some(state),
            _ => None,
        };
        match (error.kind, error.vcpu, state) {
            (Kind::ActionRequired, Some(vcpu), Some(state)) if can_take(state) => {
                self.busy.take_first(|busy| busy.vcpu == vcpu);
                if self.inject(error, vcpu, state, sink).is_err() {
                    return stop(*error, StopReason::NotDeliverable, sink);
                }
                let observe_ns = context.now_ns.saturating_add(self.timeout_ns);
                if self.is_broadcast(state) {
                    self.in_progress.postpone(observe_ns);
                }
                self.in_progress.start(vcpu, error, observe_ns);
            }
            (Kind::ActionRequired, Some(vcpu), Some(state)) if state.enabled => {
                if self.hold(vcpu, context.now_ns, sink).is_err() {
                    stop(*error, StopReason::Unacknowledged, sink);
                }
            }
            (Kind::ActionRequired, ..) => stop(*error, StopReason::NotDeliverable, sink),
            (Kind::ActionOptional | Kind::Corrected, ..) => {
                let deferred = Deferred { error: *error, since_ns: context.now_ns, last_ns: context.now_ns };
                if !self.try_report_detected(error, state, sink) && self.deferred.push(deferred).is_err() {
                    sink.event(ErrorEvent::Handled { span: error.span, response: Response::Ignore });
                }
            }
        }
    }

    fn tick(&mut self, context: &ReporterContext, sink: &mut dyn ActionSink) {
        for busy in self.busy.iter_mut() {
            if busy.held && context.now_ns.saturating_sub(busy.last_ns) >= RETRY_INTERVAL_NS {
                busy.held = false;
                // A VMM can always release its vCPUs.
                let _ = sink.act(Action::Release { vcpu: busy.vcpu });
            }
        }
        let state = match context.vcpu {
            Some(VcpuState::X86_64(state)) => Some(state),
            _ => None,
        };
        // One at a time: after the first, a machine check is in progress.
        let Some(&Deferred { error, since_ns, .. }) = self.deferred.iter().next() else { return };
        if self.try_report_detected(&error, state, sink) {
            self.deferred.pop();
        } else if context.now_ns.saturating_sub(since_ns) >= self.timeout_ns {
            self.deferred.pop();
            sink.event(ErrorEvent::Handled { span: error.span, response: Response::Ignore });
        } else if let Some(first) = self.deferred.first_mut() {
            first.last_ns = context.now_ns;
        }
    }

    fn awaits_state_of(&self, now_ns: u64) -> Option<u32> {
        self.in_progress.due(now_ns)
    }

    fn observe(&mut self, vcpu: u32, context: &ReporterContext, sink: &mut dyn ActionSink) {
        let Some(VcpuState::X86_64(state)) = context.vcpu else { return };
        if vcpu == 0 && !state.detected_unread {
            self.unread = None;
        }
        if !state.in_progress {
            self.in_progress.end(vcpu);
        } else if let Some(overdue) =
            self.in_progress.continues(vcpu, context.now_ns.saturating_add(self.timeout_ns))
        {
            sink.event(ErrorEvent::Overdue(overdue));
        }
    }

    fn overdue(&self) -> Option<Unacknowledged> {
        self.in_progress.overdue()
    }

    fn unacknowledged(&self, _context: &ReporterContext) -> Option<Unacknowledged> {
        self.in_progress.first().or(self.unread)
    }

    fn reset(&mut self, _sink: &mut dyn ActionSink) {
        self.unread = None;
        self.busy = Queue::new();
        self.deferred = Queue::new();
        self.in_progress = InProgress::default();
    }

    fn deadline_ns(&self) -> Option<u64> {
        let held = self.busy.iter().filter(|busy| busy.held).map(|busy| busy.last_ns);
        // The first is retried: nothing signals that the guest is ready.
        let deferred = self.deferred.iter().take(1).map(|deferred| deferred.last_ns);
        held.chain(deferred).map(|last_ns| last_ns.saturating_add(RETRY_INTERVAL_NS)).min()
    }
}

/// Number of banks of a guest, if the host has more: 10, as other VMMs have.
pub const BANKS: u8 = 10;
/// The bank of consumed errors in a guest with [`BANKS`].
pub const CONSUMED_BANK: u8 = BANKS - 1;
/// The bank of detected errors in a guest with [`BANKS`].
pub const DETECTED_BANK: u8 = BANKS - 2;

/// MCG_CAP of the guest's vCPUs (KVM_X86_SETUP_MCE): the supported bits that these machine checks need.
#[must_use]
pub const fn guest_mcg_cap(supported: u64) -> u64 {
    let wanted = MachineCheckAbilities::CTL_P | MachineCheckAbilities::SER_P | MachineCheckAbilities::CMCI_P;
    supported & wanted | BANKS as u64
}

/// First address of the 4 KiB page.
const fn page(gpa: u64) -> u64 {
    gpa & !0xfff
}
