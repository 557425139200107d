//! Memory errors of a running machine: what `ras-core` decides, carried out.
//!
//! ```text
//! vCPU thread   SIGBUS, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_ARM_SEA ─► consumed ─┐
//! main thread   SIGBUS of the finder's thread, a device's touch ─► found ────┼─► Responder ─► ActionExecutor ─► guest
//!               time that passes ────────────────────────────────► tick ─────┘
//! ```
//!
//! [`request`] says what a profile asks for; [`Reporting`] owns the responder, takes errors in, and has [`ActionExecutor`] do what
//! comes out: writes to the record area, interrupts, exceptions of vCPUs, the end of the machine. One lock is on the way: a
//! status block has one owner, and errors of several vCPUs come one after the other.

mod executor;
pub mod fatal_signal;
pub mod inject;
mod ledger;
mod memslot_holes;
pub mod request;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use guest_memory::{AccessError, GuestRam, sigbus};
use ras_core::abilities::HostAbilities;
use ras_core::actions::{Action, ActionSink, StopReason, StopReport};
use ras_core::plan::Plan;
use ras_core::reporters::{BuildError, ReporterContext};
use ras_core::request::Repair;
use ras_core::responder::{Responder, ResponderContext, ResponderOptions, own_memory};
use ras_core::vcpu_state::VcpuState;
use ras_core::{Kind, MemoryError, Origin, PartName, RecordArea, Response, Span};
use vcpu::PoisonAccess;

pub use executor::ActionExecutor;
pub use memslot_holes::MemslotHoles;

use crate::journal::{Journal, Note};
use crate::timings::Timings;

/// What answers a machine's memory errors, from its first boot to its end, through all its resets.
pub struct Reporting {
    ram: GuestRam,
    journal: Arc<Journal>,
    clock: Arc<Timings>,
    consumed_response: Response,
    detected_response: Response,
    repair: Repair,
    /// Pages that were taken from the guest on purpose.
    memslot_holes: MemslotHoles,
    state: Mutex<State>,
    /// Whether vCPU 0 is to be asked how it stands.
    asks: AtomicBool,
}

/// What the lock guards.
struct State {
    responder: Responder,
    /// None before the first boot.
    executor: Option<ActionExecutor>,
    /// Errors that vCPU 0 takes a machine check for, once it is known how it stands.
    asked: VecDeque<MemoryError>,
    /// Spans that fresh memory could not be had for: they are not tried again.
    unrepairable: Vec<Span>,
}

/// An error that nobody consumed, as the main thread hears of it.
#[derive(Clone, Copy, Debug)]
pub enum DetectedError {
    /// The host's signal.
    Signalled(sigbus::Fault),
    /// A device touched it.
    Touched {
        /// The GPA that it touched.
        gpa: u64,
        /// Base-two logarithm of the bytes that were lost.
        log2_len: u8,
    },
    /// A person says so.
    Noticed {
        /// What is said to be lost.
        span: Span,
    },
}

/// Errors that may wait for vCPU 0 before memory is allocated for them.
const CAPACITY: usize = 64;
/// The name of the guest's memory in its error records.
const PART_NAME: PartName = match PartName::new("ghest mem") {
    Some(name) => name,
    None => panic!("a part name has at most nine printable characters"),
};

impl Reporting {
    /// What carries a plan out, over the record area that the tables point at.
    ///
    /// # Errors
    /// Where this build has no reporter for an answer.
    pub fn new(
        plan: &Plan,
        host: &HostAbilities,
        area: Option<&RecordArea>,
        ram: GuestRam,
        journal: Arc<Journal>,
        clock: Arc<Timings>,
    ) -> Result<Self, BuildError> {
        let state = State {
            responder: Responder::new(plan, host, area, ResponderOptions::new().with_part(PART_NAME))?,
            executor: None,
            asked: VecDeque::with_capacity(CAPACITY),
            unrepairable: Vec::new(),
        };
        Ok(Reporting {
            ram,
            journal,
            clock,
            consumed_response: plan.consumed.chosen,
            detected_response: plan.detected.chosen,
            repair: plan.repair,
            memslot_holes: MemslotHoles::default(),
            state: Mutex::new(state),
            asks: AtomicBool::new(false),
        })
    }

    /// Gives it the parts of a machine that boots. Where one was there before, that was reset: what was found and not
    /// acknowledged is told again, where it is lost still.
    pub fn attach(&self, executor: ActionExecutor) {
        let mut state = self.lock();
        state.asked.clear();
        if state.executor.replace(executor).is_some() {
            let still_poisoned = self.repair == Repair::Never;
            self.act(&mut state, None, |responder, context, sink| {
                responder.reset(still_poisoned, context, sink)
            });
        }
        drop(state);
        self.journal.flush();
    }

    /// Answers an error that a vCPU consumed, standing as `how` says if it is asked: some of the host's calls are behind that. On
    /// its own thread; what it is to take was left with its control then.
    pub fn consumed(&self, vcpu: u32, lost: PoisonAccess, how: &mut dyn FnMut() -> Option<VcpuState>) {
        let mut state = self.lock();
        let (gpa, log2_len, origin) = match lost {
            PoisonAccess::Signalled(fault) => match self.of_signal(fault) {
                Some(error) => error,
                None => return self.stop_for_own_memory(&mut state, fault),
            },
            PoisonAccess::Named { gpa, size } => (gpa, log2(size), Origin::MemoryFault),
            PoisonAccess::Unclaimed { gpa: Some(gpa) } => {
                (gpa, log2(self.ram.backing().page_size()), Origin::ArmSea)
            }
            PoisonAccess::Unclaimed { gpa: None } => {
                let report = StopReport { reason: StopReason::AddressUnknown, error: None };
                return self.carry_out(&mut state, Action::Stop { report });
            }
        };
        if let PoisonAccess::Unclaimed { gpa: Some(gpa) } = lost {
            self.take_out_of_use(gpa);
        }
        let mut error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionRequired,
            vcpu: Some(vcpu),
            origin,
            time_ns: self.now_ns(),
        };
        self.journal.note(Note::MemoryError { error, response: self.consumed_response });
        let asks = self.consumed_response.needs_vcpu_state();
        let mut vcpu_state = if asks { how() } else { None };
        // What was left for the vCPU already, it has not taken yet: it does not stand as it will then.
        if asks && state.executor.as_ref().is_some_and(|executor| executor.control.has_exception(vcpu)) {
            match &mut vcpu_state {
                Some(VcpuState::X86_64(state)) => state.in_progress = true,
                // A second abort would hide the first. It touches the page again, if it still wants it.
                _ => error.kind = Kind::ActionOptional,
            }
        }
        self.act(&mut state, vcpu_state, |responder, context, sink| responder.report(&error, context, sink));
    }

    /// Answers an error that nobody consumed. On the main thread.
    pub fn found(&self, found: DetectedError) {
        let mut state = self.lock();
        let (gpa, log2_len, origin) = match found {
            DetectedError::Signalled(fault) => match self.of_signal(fault) {
                Some(error) => error,
                None => {
                    self.stop_for_own_memory(&mut state, fault);
                    drop(state);
                    return self.journal.flush();
                }
            },
            DetectedError::Touched { gpa, log2_len } => (gpa, log2_len, Origin::Device),
            DetectedError::Noticed { span } => (span.gpa, span.log2_len, Origin::Injected),
        };
        let error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionOptional,
            vcpu: None,
            origin,
            time_ns: self.now_ns(),
        };
        self.journal.note(Note::MemoryError { error, response: self.detected_response });
        if self.detected_response == Response::Mce {
            state.responder.record(&error);
            state.asked.push_back(error);
            self.asks.store(true, Ordering::Release);
        } else {
            self.act(&mut state, None, |responder, context, sink| responder.report(&error, context, sink));
        }
        drop(state);
        self.journal.flush();
    }

    /// Answers what vCPU 0 had to be asked about: it is about to enter the guest, and stands as `how` says. A machine check
    /// that it is still to take is waited for, and so is a bank that the guest has not read: both would be overwritten.
    pub fn ask(&self, vcpu: u32, how: &mut dyn FnMut() -> Option<VcpuState>) {
        if vcpu != 0 || !self.asks.load(Ordering::Acquire) {
            return;
        }
        let vcpu_state = how();
        if matches!(vcpu_state, Some(VcpuState::X86_64(state)) if state.in_progress || state.detected_unread)
        {
            return;
        }
        let mut state = self.lock();
        if state.executor.as_ref().is_some_and(|executor| executor.control.has_exception(vcpu)) {
            return;
        }
        // One at a time: the next is asked about when this one was taken.
        if let Some(error) = state.asked.pop_front() {
            self.act(&mut state, vcpu_state, |responder, context, sink| {
                responder.respond(&error, context, sink)
            });
        }
        self.asks.store(!state.asked.is_empty(), Ordering::Release);
    }

    /// Whether vCPU 0 is to be asked something: it has to leave the guest for it.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks.load(Ordering::Acquire)
    }

    /// Looks whether the guest has acknowledged something, and lets time pass.
    pub fn tick(&self) {
        let mut state = self.lock();
        self.act(&mut state, None, |responder, context, sink| responder.tick(context, sink));
        drop(state);
        self.journal.flush();
    }

    /// Whether the guest is expected to acknowledge a record soon.
    #[must_use]
    pub fn expects_guest(&self) -> bool {
        self.lock().responder.deadline_ns().is_some()
    }

    /// Writes down what was noted.
    pub fn flush(&self) {
        self.journal.flush();
    }

    /// Pages that were taken from the guest on purpose.
    #[must_use]
    pub fn memslot_holes(&self) -> &MemslotHoles {
        &self.memslot_holes
    }

    /// A vCPU touched an address that neither memory nor a device answered. True where that is a page which was left out, or one
    /// that the host lost and KVM came upon itself, in an instruction that it emulates; a signal was raised for it then.
    pub fn touched_lost(&self, gpa: u64) -> bool {
        let Some(hva) = self.ram.host_address(gpa) else { return false };
        let log2_len = match (self.memslot_holes.around(gpa), self.ram.probe(gpa, 1)) {
            (Some(span), _) => span.log2_len,
            (None, Err(AccessError::Poisoned(page))) => page.log2_len,
            (None, _) => return false,
        };
        let fault = sigbus::Fault { hva, log2_len, action: sigbus::Action::Required };
        match sigbus::listening(|| sigbus::raise(fault)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, gpa, "no signal can be raised for a page that is lost");
                false
            }
        }
    }

    /// An abort of the hardware came through to us: the host goes on using the page unless it is told.
    fn take_out_of_use(&self, gpa: u64) {
        if let Err(error) = self.ram.poison(gpa, 1) {
            tracing::error!(%error, gpa, "the host cannot be told that this page is lost: it stays in use");
        }
    }

    /// The GPA, the logarithm of what is lost and its origin; none where it is no memory of the guest.
    fn of_signal(&self, fault: sigbus::Fault) -> Option<(u64, u8, Origin)> {
        let gpa = self.ram.guest_address(fault.hva)?;
        let origin = if self.memslot_holes.contains(gpa) { Origin::Injected } else { Origin::Sigbus };
        Some((gpa, fault.log2_len, origin))
    }

    fn stop_for_own_memory(&self, state: &mut State, fault: sigbus::Fault) {
        self.journal.note(Note::OwnMemory(fault));
        self.carry_out(state, own_memory());
    }

    fn carry_out(&self, state: &mut State, action: Action<'_>) {
        if let Some(executor) = &mut state.executor {
            executor.carry_out(action, &self.ram, &self.journal);
        }
    }

    fn act(
        &self,
        state: &mut State,
        vcpu: Option<VcpuState>,
        step: impl FnOnce(&mut Responder, &ResponderContext, &mut dyn ActionSink),
    ) {
        let State { responder, executor, .. } = state;
        let Some(executor) = executor else { return };
        // The time first: a register that is read after it holds what the guest had written by then.
        let now_ns = self.now_ns();
        // A register that cannot be read says nothing: not acknowledged.
        let register = |kind| {
            responder.acknowledge_register(kind).and_then(|gpa| self.ram.load_u64(gpa).ok()).unwrap_or(0)
        };
        let context = ResponderContext {
            context: ReporterContext {
                now_ns,
                unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
                acknowledge_register: register(Kind::ActionRequired),
                vcpu,
            },
            detected_register: register(Kind::ActionOptional),
        };
        step(responder, &context, &mut |action: Action<'_>| {
            executor.carry_out(action, &self.ram, &self.journal)
        });
    }

    /// The time of this machine's clock, in nanoseconds.
    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Base-two logarithm of a size, rounded up.
const fn log2(bytes: u64) -> u8 {
    (u64::BITS - bytes.saturating_sub(1).leading_zeros()) as u8
}
