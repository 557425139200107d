//! Memory errors of a running machine. `ras-core` decides how they are reported; this module carries that out.
//!
//! ```text
//! vCPU thread   SIGBUS, KVM_EXIT_MEMORY_FAULT, KVM_EXIT_ARM_SEA ─► consumed ─┐
//! main thread   SIGBUS of the AO listener, access by a device ───► detected ─┼─► Responder ─► ActionExecutor ─► guest
//!               timer ───────────────────────────────────────────► tick ─────┘
//! ```
//!
//! [`request`] translates a profile's keys. [`Reporting`] owns the responder and takes errors from their sources.
//! [`ActionExecutor`] carries out the responder's actions: it writes to the record area, raises interrupts, injects
//! exceptions into vCPUs, and stops the machine. One lock serialises the errors of all vCPUs: a status block has one owner.

mod boot_record;
mod corrected;
mod executor;
pub mod fatal_signal;
mod handler;
pub mod inject;
mod ledger;
mod memslot_holes;
mod platform_memory;
mod records;
pub mod request;
mod restore;
mod sources;
mod unacknowledged;
mod vcpu_state;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use guest_memory::{AccessError, GuestRam, sigbus};
use ras_core::abilities::HostAbilities;
use ras_core::actions::{Action, ActionFailed, ActionSink, StopReason, StopReport};
use ras_core::plan::Plan;
use ras_core::reporters::{BuildError, ReporterContext};
use ras_core::request::Repair;
use ras_core::responder::{Responder, ResponderContext, ResponderOptions, own_memory};
use ras_core::vcpu_state::VcpuState;
use ras_core::{Kind, MemoryError, Origin, PartName, RecordArea, Response, Span};
use vcpu::PoisonAccess;

pub use boot_record::boot_record;
pub use executor::ActionExecutor;
pub use ledger::{LedgerSummary, LedgerVersion};
pub use memslot_holes::{Hole, MemslotHoles};
pub use platform_memory::PlatformMemory;
pub use records::RecordRefused;
pub use restore::RestoredHole;
pub use sources::DetectedError;

use crate::journal::{Journal, Note};
use crate::timings::Timings;

/// Reports a machine's memory errors to its guest, from the first boot to the end, across resets.
pub struct Reporting {
    ram: GuestRam,
    journal: Arc<Journal>,
    clock: Arc<Timings>,
    consumed_response: Response,
    detected_response: Response,
    corrected_response: Response,
    repair: Repair,
    /// Pages that injection requests removed from the memslots.
    memslot_holes: MemslotHoles,
    /// Bytes of guest memory that were moved away from suspect pages of the host.
    retired_bytes: AtomicU64,
    state: Mutex<State>,
    /// Whether `waiting_for_state` holds errors. Read before every entry of vCPU 0, without the lock.
    needs_vcpu_state: AtomicBool,
    /// The vCPU whose state the responder awaits, or [`NO_VCPU`]. Read before every entry, without the lock.
    awaited_vcpu: AtomicU32,
    /// Ends of the guest with an error that it had not acknowledged.
    deaths_after_error: AtomicU64,
}

/// No vCPU has this number.
const NO_VCPU: u32 = u32::MAX;

/// What the lock guards.
struct State {
    responder: Responder,
    /// `None` before the first boot.
    executor: Option<ActionExecutor>,
    /// What the guest's reserved memory holds.
    platform: PlatformMemory,
    /// Memslot holes in restored memory, to be filled by the main thread.
    restored_holes: Vec<RestoredHole>,
    /// Detected errors that are reported by a machine check on vCPU 0, as soon as its state is known.
    waiting_for_state: VecDeque<MemoryError>,
    /// Memslot holes in memory that a device gave back to the host, to be repaired by the main thread.
    discarded_holes: Vec<Span>,
    /// Spans whose pages could not be replaced. There is no second attempt.
    unrepairable: Vec<Span>,
}

/// Errors that can wait for vCPU 0 before the queue allocates memory.
const WAITING_CAPACITY: usize = 64;
/// The name of the guest's memory in its error records.
const PART_NAME: PartName = match PartName::new("ghest mem") {
    Some(name) => name,
    None => panic!("a part name has at most nine printable characters"),
};

impl Reporting {
    /// Carries out a plan, with the record area that the tables point to.
    ///
    /// # Errors
    /// Returns an error if this build has no reporter for one of the plan's responses.
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
            platform: PlatformMemory::default(),
            restored_holes: Vec::with_capacity(WAITING_CAPACITY),
            waiting_for_state: VecDeque::with_capacity(WAITING_CAPACITY),
            discarded_holes: Vec::new(),
            unrepairable: Vec::with_capacity(WAITING_CAPACITY),
        };
        Ok(Reporting {
            ram,
            journal,
            clock,
            consumed_response: plan.consumed.chosen,
            detected_response: plan.detected.chosen,
            corrected_response: plan.corrected.chosen,
            repair: plan.repair,
            memslot_holes: MemslotHoles::default(),
            retired_bytes: AtomicU64::new(0),
            state: Mutex::new(state),
            needs_vcpu_state: AtomicBool::new(false),
            awaited_vcpu: AtomicU32::new(NO_VCPU),
            deaths_after_error: AtomicU64::new(0),
        })
    }

    /// Takes what was loaded into the guest's reserved memory for the next boot.
    pub fn loaded(&self, platform: PlatformMemory) {
        self.lock().platform = platform;
    }

    /// Writes the bytes that were [loaded](Self::loaded) at this GPA to guest memory. If their page is still poisoned after a reset, it is
    /// replaced: it is not one of the guest's own.
    ///
    /// # Errors
    /// Returns an error if the bytes are not guest memory, or if the page cannot be replaced.
    pub fn write_loaded(&self, gpa: u64) -> Result<(), AccessError> {
        self.lock().platform.write_loaded(&self.ram, &self.journal, gpa)
    }

    /// Changes bytes that were loaded into the guest's reserved memory. A poisoned page of them is replaced.
    ///
    /// # Errors
    /// Returns the error of a system call that replaces a page, or of a write to guest memory.
    pub fn rewrite_reserved(&self, gpa: u64, bytes: &[u8]) -> io::Result<()> {
        self.lock().platform.rewrite(&self.ram, &self.journal, gpa, bytes)
    }

    /// Attaches the parts of a machine that is about to boot. If one was attached before, this is a reset. The new guest is notified of
    /// nothing: what is still poisoned is unusable by its memory map.
    pub fn attach(&self, executor: ActionExecutor) {
        let mut state = self.lock();
        state.waiting_for_state.clear();
        state.restored_holes.clear();
        self.awaited_vcpu.store(NO_VCPU, Ordering::Release);
        state.discarded_holes.clear();
        if state.executor.replace(executor).is_some() {
            self.step(&mut state, None, |responder, _, sink| responder.reset(false, sink));
        }
    }

    /// Reports an error that a vCPU consumed. `read_state` reads the vCPU's state, which costs ioctls: it is called only if the
    /// response needs it. Called on the vCPU's thread; on return, what the vCPU has to take is with its [`vcpu::Control`].
    pub fn consumed(
        &self,
        vcpu: u32,
        access: PoisonAccess,
        read_state: &mut dyn FnMut() -> Option<VcpuState>,
    ) {
        let mut state = self.lock();
        let (gpa, log2_len, origin) = match access {
            PoisonAccess::Sigbus(fault) => match self.error_of_signal(fault) {
                Some(error) => error,
                None => return self.stop_for_own_memory(&mut state, fault),
            },
            PoisonAccess::MemoryFault { gpa, size } => (gpa, log2(size), Origin::MemoryFault),
            PoisonAccess::ArmSea { gpa: Some(gpa) } => {
                (gpa, log2(self.ram.backing().page_size()), Origin::ArmSea)
            }
            PoisonAccess::ArmSea { gpa: None } => {
                let report = StopReport { reason: StopReason::AddressUnknown, error: None };
                return self.stop(&mut state, Action::Stop { report });
            }
        };
        if let PoisonAccess::ArmSea { gpa: Some(gpa) } = access {
            self.isolate_on_host(gpa);
        }
        let mut error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionRequired,
            severity: self.memslot_holes.severity_at(gpa),
            vcpu: Some(vcpu),
            origin,
            time_ns: self.now_ns(),
        };
        if self.restored(&mut state, &error) {
            return;
        }
        self.journal.note(Note::MemoryError { error, response: self.consumed_response });
        let needs_state = self.consumed_response.needs_vcpu_state();
        let mut vcpu_state = if needs_state { read_state() } else { None };
        // The vCPU has not taken the exception yet that is queued for it: its state will be another one then.
        if needs_state && state.executor.as_ref().is_some_and(|executor| executor.control.has_exception(vcpu))
        {
            match &mut vcpu_state {
                Some(VcpuState::X86_64(state)) => state.in_progress = true,
                // A second abort would overwrite the first. The vCPU consumes the error again if it accesses the page again.
                _ => error.kind = Kind::ActionOptional,
            }
        }
        self.step(&mut state, vcpu_state, |responder, context, sink| responder.report(&error, context, sink));
    }

    /// Reports an error that no vCPU consumed. Called on the main thread.
    pub fn detected(&self, error: DetectedError) {
        let mut state = self.lock();
        let is_notice = matches!(error, DetectedError::Noticed { .. });
        let (gpa, log2_len, origin) = match error {
            DetectedError::Signalled(fault) => match self.error_of_signal(fault) {
                Some(error) => error,
                None => return self.stop_for_own_memory(&mut state, fault),
            },
            DetectedError::Touched { gpa, log2_len } => (gpa, log2_len, Origin::Device),
            DetectedError::Noticed { span } => (span.gpa, span.log2_len, Origin::Injected),
        };
        let error = MemoryError {
            span: Span::around(gpa, log2_len),
            gpa,
            kind: Kind::ActionOptional,
            severity: self.memslot_holes.severity_at(gpa),
            vcpu: None,
            origin,
            time_ns: self.now_ns(),
        };
        // A request to notify the guest poisons no page.
        if !is_notice && !self.is_poisoned(gpa) {
            self.record_replaced(&mut state, &error);
        } else if is_notice || !self.restored(&mut state, &error) {
            self.report_detected(&mut state, error);
        }
    }

    fn report_detected(&self, state: &mut State, error: MemoryError) {
        self.journal.note(Note::MemoryError { error, response: self.detected_response });
        if self.detected_response == Response::Mce {
            state.responder.record(&error);
            // A device can access the page any number of times before the guest is notified of it.
            match state.waiting_for_state.iter_mut().find(|waiting| waiting.span == error.span) {
                Some(waiting) => waiting.severity = waiting.severity.worse(error.severity),
                None => state.waiting_for_state.push_back(error),
            }
            self.needs_vcpu_state.store(true, Ordering::Release);
        } else {
            self.step(state, None, |responder, context, sink| responder.report(&error, context, sink));
        }
    }

    /// Checks whether the guest has acknowledged a record, and whether a timeout has expired.
    pub fn tick(&self) {
        let mut state = self.lock();
        self.step(&mut state, None, |responder, context, sink| responder.tick(context, sink));
        let awaited = state.responder.awaits_state_of(self.now_ns());
        self.awaited_vcpu.store(awaited.unwrap_or(NO_VCPU), Ordering::Release);
    }

    /// Whether a record waits for the guest's acknowledgement.
    #[must_use]
    pub fn expects_acknowledgement(&self) -> bool {
        self.lock().responder.deadline_ns().is_some()
    }

    /// Pages that injection requests removed from the memslots.
    #[must_use]
    pub fn memslot_holes(&self) -> &MemslotHoles {
        &self.memslot_holes
    }

    /// The journal of its events.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn stop_for_own_memory(&self, state: &mut State, fault: sigbus::Fault) {
        self.journal.note(Note::OwnMemory(fault));
        self.stop(state, own_memory());
    }

    fn stop(&self, state: &mut State, action: Action<'_>) {
        if let Some(executor) = &mut state.executor {
            // A stop cannot fail.
            let _ = executor.carry_out(action, &mut state.platform, &self.ram, &self.journal);
        }
    }

    /// Runs a step of the responder and carries out its actions. Does nothing before the first boot.
    fn step(
        &self,
        state: &mut State,
        vcpu: Option<VcpuState>,
        run: impl FnOnce(&mut Responder, &ResponderContext, &mut dyn ActionSink),
    ) {
        let State { responder, executor, platform, .. } = state;
        let Some(executor) = executor else { return };
        // The time is read first: the register that is read after it holds at least what the guest had written by then.
        let now_ns = self.now_ns();
        let register = |kind| {
            responder.acknowledge_register(kind).map_or(0, |gpa| self.acknowledge_register(platform, gpa))
        };
        let context = ResponderContext {
            context: ReporterContext {
                now_ns,
                unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
                acknowledge_register: register(Kind::ActionRequired),
                vcpu,
            },
            detected_register: register(Kind::ActionOptional),
            corrected_register: register(Kind::Corrected),
        };
        run(responder, &context, &mut |action: Action<'_>| -> Result<(), ActionFailed> {
            executor.carry_out(action, platform, &self.ram, &self.journal)
        });
    }

    /// The value of an acknowledge register. One that cannot be read counts as not acknowledged.
    fn acknowledge_register(&self, platform: &PlatformMemory, gpa: u64) -> u64 {
        platform.access(&self.ram, &self.journal, || self.ram.load_u64(gpa)).unwrap_or(0)
    }

    /// Nanoseconds since the start of the process.
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

/// vCPU threads and the main thread share these.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Reporting>();
    is_send_and_sync::<MemslotHoles>();
    is_send_and_sync::<DetectedError>();
};
