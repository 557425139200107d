//! The responder: carries out a plan, from the first access to the acknowledgement.

use alloc::boxed::Box;

use crate::abilities::HostAbilities;
use crate::actions::{Action, ActionFailed, ActionSink, ErrorEvent, StopReason, StopReport, Unacknowledged};
use crate::corrected::CorrectedErrors;
use crate::handshake::Record;
use crate::ledger::Ledger;
use crate::memory_blocks::PartName;
use crate::memory_error::{Kind, MemoryError, Origin, Span};
use crate::plan::{Plan, ResponsePlan};
use crate::progress::Progress;
use crate::record_area::{RecordArea, RecordSlot};
use crate::reporters::stop::stop;
use crate::reporters::{self, BuildError, Claims, NotInjected, Reporter, ReporterContext, Setup};
use crate::response::Response;
use crate::severity::Severity;

/// Responds to errors as a plan says: keeps the ledger, calls the reporter for the error's class, and stops the VM if a vCPU makes no
/// progress.
///
/// The VMM calls [`report`](Self::report) for each error and [`tick`](Self::tick) periodically, at [`deadline_ns`](Self::deadline_ns) at
/// the latest, and carries out the actions that the sink is given.
#[derive(Debug)]
pub struct Responder {
    consumed: Channel,
    detected: Channel,
    corrected: Channel,
    progress: Progress,
    ledger: Ledger,
    /// How often what is poisoned, or was repaired, has changed.
    ledger_changes: u64,
    /// Index of the first ledger entry that may be poisoned and not reported yet: all entries after a reset, and entries that did not
    /// fit into the reporter's queue. `None` if there is none.
    unreported: Option<usize>,
}

/// The reporter for one of the classes of error that a guest is notified of.
#[derive(Debug)]
struct Channel {
    reporter: Box<dyn Reporter>,
    /// It writes records.
    records: bool,
}

impl Channel {
    fn slot(&self) -> Option<&RecordSlot> {
        self.reporter.slot()
    }
}

/// What the VMM chooses for its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponderOptions {
    /// The name of the guest's memory in error records.
    pub part: PartName,
}

impl ResponderOptions {
    /// The default options.
    #[must_use]
    pub const fn new() -> Self {
        ResponderOptions { part: PartName::MEMORY }
    }

    /// Names the guest's memory in error records.
    #[must_use]
    pub const fn with_part(self, part: PartName) -> Self {
        ResponderOptions { part }
    }
}

/// The state of clock and guest when the responder acts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponderContext {
    /// Time, state of the vCPU, and the acknowledge register of consumed errors ([`Kind::ActionRequired`]).
    pub context: ReporterContext,
    /// The acknowledge register of detected errors ([`Kind::ActionOptional`]); 0 if it cannot be read.
    pub detected_register: u64,
    /// The acknowledge register of corrected errors ([`Kind::Corrected`]); 0 if it cannot be read.
    pub corrected_register: u64,
}

impl Responder {
    /// Entries of the ledger that are allocated ahead: enough for two errors of the largest span and 1024 of single pages. The host
    /// provides the memory when it is used.
    const LEDGER_RESERVE: usize = 2 * Ledger::MAX_ENTRIES_OF_ONE_ERROR + 1024;

    /// The responder for a plan, with the host and the record area that the plan was made for.
    ///
    /// # Errors
    /// Returns an error if a reporter is not part of this build, or if the area is not the one of the plan.
    pub fn new(
        plan: &Plan,
        host: &HostAbilities,
        area: Option<&RecordArea>,
        options: ResponderOptions,
    ) -> Result<Self, BuildError> {
        let mut claims = Claims::of(area);
        let mut channel = |response: &ResponsePlan| {
            let mut setup = Setup { response, host, claims: &mut claims, part: options.part };
            Ok(Channel { reporter: reporters::build(&mut setup)?, records: response.source.is_some() })
        };
        Ok(Responder {
            consumed: channel(&plan.consumed)?,
            detected: channel(&plan.detected)?,
            corrected: channel(&plan.corrected)?,
            progress: Progress::new(&plan.consumed.timeouts),
            ledger: Ledger::with_capacity(Self::LEDGER_RESERVE),
            ledger_changes: 0,
            unreported: None,
        })
    }

    /// Records an error in the ledger and responds to it. A corrected one is not recorded: no page is poisoned. The vCPU that consumed it must not be entered before every action was carried
    /// out.
    pub fn report(&mut self, error: &MemoryError, context: &ResponderContext, sink: &mut dyn ActionSink) {
        // An acknowledgement that is visible now came before this error. The vCPU state belongs to this error only.
        let before =
            ResponderContext { context: ReporterContext { vcpu: None, ..context.context }, ..*context };
        self.tick(&before, sink);
        if error.kind == Kind::Corrected {
            // Past the ledger: what is acknowledged is not an error of a page that is poisoned too.
            return self.corrected.reporter.report(error, &context.of_corrected(), sink);
        }
        self.record(error);
        self.respond(error, context, sink);
    }

    /// Records an error in the ledger; [`respond`](Self::respond) is to follow, once it is possible.
    pub fn record(&mut self, error: &MemoryError) {
        self.ledger_changes += 1;
        self.ledger.record(error);
    }

    /// Records an error in memory that the VMM has replaced with its contents, so that the guest need not be notified.
    pub fn record_restored(&mut self, error: &MemoryError, now_ns: u64) {
        self.record(error);
        self.ledger.handled(error.span, Response::Ignore);
        self.ledger.repaired(error.span, now_ns);
    }

    /// Responds to an error that was recorded before. As with [`report`](Self::report), the vCPU must not be entered before every action
    /// was carried out.
    pub fn respond(&mut self, error: &MemoryError, context: &ResponderContext, sink: &mut dyn ActionSink) {
        let mut error = *error;
        if error.origin == Origin::Device || error.vcpu.is_none() {
            // No instruction of a vCPU consumed it: the guest is notified as of a detected error.
            error.kind = Kind::ActionOptional;
        }
        if error.kind == Kind::ActionOptional {
            return self.report_detected(&error, context, sink);
        }
        let mut recorder = LedgerRecorder { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        if self.progress.is_stuck(&error) {
            return stop(error, StopReason::NoProgress, &mut recorder);
        }
        self.consumed.reporter.report(&error, &context.context, &mut recorder);
        // The rest of a larger span was not consumed: it is reported as detected, unless it was reported before.
        let reported = if self.consumed.records { Record::MAX_LOG2_LEN } else { Span::around(0, 0).log2_len };
        if self.detected.records {
            for log2_len in reported..error.span.log2_len {
                let half = Span::around(error.gpa ^ 1 << log2_len, log2_len);
                let known = self.ledger.within(half.gpa, half.bytes());
                if known.iter().all(|entry| entry.response.is_some()) {
                    continue;
                }
                let rest = MemoryError {
                    span: half,
                    gpa: half.gpa,
                    kind: Kind::ActionOptional,
                    vcpu: None,
                    ..error
                };
                self.report_detected(&rest, context, sink);
            }
        }
    }

    /// Writes a status block of others ([`Decoded::to_block`](crate::Decoded::to_block)) into that of an error source, as soon as that is
    /// free, and notifies the guest. No page is poisoned by it.
    ///
    /// # Errors
    /// Returns an error, and does nothing, if there is no such source, or if its block cannot have it.
    pub fn inject_block(
        &mut self,
        source: u16,
        block: &[u8],
        context: &ResponderContext,
        sink: &mut dyn ActionSink,
    ) -> Result<(), NotInjected> {
        let mut recorder = LedgerRecorder { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        let is_source = |channel: &Channel| channel.slot().is_some_and(|slot| slot.source.id == source);
        if is_source(&self.consumed) {
            self.consumed.reporter.inject_block(block, &context.context, &mut recorder)
        } else if is_source(&self.detected) {
            self.detected.reporter.inject_block(block, &context.of_detected(), &mut recorder)
        } else if is_source(&self.corrected) {
            self.corrected.reporter.inject_block(block, &context.of_corrected(), sink)
        } else {
            Err(NotInjected::NoSource)
        }
    }

    /// The error sources whose status blocks it writes.
    pub fn slots(&self) -> impl Iterator<Item = &RecordSlot> {
        [&self.consumed, &self.detected, &self.corrected].into_iter().filter_map(Channel::slot)
    }

    /// Advances the time, and checks whether the guest has acknowledged a record.
    pub fn tick(&mut self, context: &ResponderContext, sink: &mut dyn ActionSink) {
        let mut recorder = LedgerRecorder { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        self.consumed.reporter.tick(&context.context, &mut recorder);
        self.detected.reporter.tick(&context.of_detected(), &mut recorder);
        self.corrected.reporter.tick(&context.of_corrected(), sink);
        if let Some(index) = self.unreported {
            self.report_unreported(index, context, sink);
        }
    }

    /// The guest's driver is known to have started.
    pub fn driver_up(&mut self, context: &ResponderContext) {
        self.consumed.reporter.driver_up(&context.context);
        self.detected.reporter.driver_up(&context.of_detected());
        self.corrected.reporter.driver_up(&context.of_corrected());
    }

    /// The guest was reset and its memory initialised again. If pages are `still_poisoned` and detected errors are reported by records,
    /// every poisoned page of the ledger is reported to the new guest, from the next [`tick`](Self::tick) on. Pass `false` if the pages
    /// were replaced, or if the new guest cannot use them ([`Ledger::poisoned_ranges`]).
    pub fn reset(&mut self, still_poisoned: bool, sink: &mut dyn ActionSink) {
        self.progress.clear();
        self.ledger.clear_responses();
        self.unreported = (still_poisoned && self.detected.records).then_some(0);
        self.consumed.reporter.reset(sink);
        self.detected.reporter.reset(sink);
        self.corrected.reporter.reset(sink);
    }

    /// These pages were replaced by new memory.
    pub fn repaired(&mut self, span: Span, now_ns: u64) {
        self.ledger_changes += 1;
        self.ledger.repaired(span, now_ns);
    }

    /// When [`tick`](Self::tick) has to be called at the latest: nanoseconds of the VMM's monotonic clock. `None`: never.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let reporters = [&self.consumed, &self.detected, &self.corrected].into_iter();
        reporters.filter_map(|channel| channel.reporter.deadline_ns()).min()
    }

    /// GPA of the 64-bit acknowledge register for errors of that kind. `None` if they are reported without records.
    #[must_use]
    pub fn acknowledge_register(&self, kind: Kind) -> Option<u64> {
        match kind {
            Kind::ActionRequired => self.consumed.reporter.acknowledge_register(),
            Kind::ActionOptional => self.detected.reporter.acknowledge_register(),
            Kind::Corrected => self.corrected.reporter.acknowledge_register(),
        }
    }

    /// The vCPU whose state is to be passed to [`observe`](Self::observe) before it enters the guest again. `None` if there is none: ask
    /// after each [`tick`](Self::tick).
    #[must_use]
    pub fn awaits_state_of(&self, now_ns: u64) -> Option<u32> {
        self.consumed.reporter.awaits_state_of(now_ns)
    }

    /// A vCPU has the state of the context.
    pub fn observe(&mut self, vcpu: u32, context: &ResponderContext, sink: &mut dyn ActionSink) {
        self.consumed.reporter.observe(vcpu, &context.context, sink);
        self.detected.reporter.observe(vcpu, &context.of_detected(), sink);
    }

    /// The first error of this boot that the guest has not acknowledged, or that was reported as fatal; a consumed one before a detected one.
    /// If the guest dies with it, it may have died of it. An error of which the guest is not notified does not count.
    ///
    /// | response | acknowledged |
    /// |---|---|
    /// | with a record | when the guest has set the source's acknowledge register |
    /// | `mce`, consumed | when the vCPU was [observed](Self::observe) without a machine check in progress (MCG_STATUS.MCIP) |
    /// | `mce`, detected | when vCPU 0 was observed with a clear bank (MCi_STATUS.VAL) |
    /// | `abort`, `serror` | never: nothing shows it |
    #[must_use]
    pub fn unacknowledged(&self, context: &ResponderContext) -> Option<Unacknowledged> {
        let consumed = self.consumed.reporter.unacknowledged(&context.context);
        consumed.or_else(|| self.detected.reporter.unacknowledged(&context.of_detected()))
    }

    /// The records that the guest has not acknowledged in time, and machine checks that it has not ended.
    pub fn overdue(&self) -> impl Iterator<Item = Unacknowledged> {
        let reporters = [&self.consumed, &self.detected, &self.corrected].into_iter();
        reporters.filter_map(|channel| channel.reporter.overdue())
    }

    /// The numbers of corrected errors so far.
    #[must_use]
    pub fn corrected_errors(&self) -> CorrectedErrors {
        self.corrected.reporter.corrected_errors()
    }

    /// Takes over the ledger of an earlier process, before the first error of this one: what it has as poisoned is in use by no guest.
    pub fn restore(&mut self, ledger: Ledger) {
        self.ledger_changes += 1;
        self.ledger = ledger;
        self.reserve();
    }

    /// Allocates memory for the errors to come, so that none has to while a vCPU waits. Call it from time to time, outside the error path.
    pub fn reserve(&mut self) {
        self.ledger.reserve(Self::LEDGER_RESERVE);
    }

    /// The poisoned pages so far.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How often an error was recorded, or pages were repaired: if it is the same, nothing has changed in the ledger but responses and
    /// acknowledgements.
    #[must_use]
    pub const fn ledger_changes(&self) -> u64 {
        self.ledger_changes
    }

    /// Reports what is poisoned and not reported, from that ledger entry on, until the reporter's queue is full.
    fn report_unreported(&mut self, mut index: usize, context: &ResponderContext, sink: &mut dyn ActionSink) {
        while self.detected.reporter.has_capacity() {
            let Some((span, next)) = self.ledger.next_unreported(index) else {
                self.unreported = None;
                return;
            };
            let origin = self.ledger.at(span.gpa).map_or(Origin::Sigbus, |entry| entry.origin);
            let (kind, time_ns) = (Kind::ActionOptional, context.context.now_ns);
            let entries = self.ledger.within(span.gpa, span.bytes()).iter();
            let severity = entries.fold(Severity::Recoverable, |worst, entry| worst.worse(entry.severity));
            let error = MemoryError { span, gpa: span.gpa, kind, severity, vcpu: None, origin, time_ns };
            self.report_detected(&error, context, sink);
            index = next;
        }
        self.unreported = Some(index);
    }

    fn report_detected(
        &mut self,
        error: &MemoryError,
        context: &ResponderContext,
        sink: &mut dyn ActionSink,
    ) {
        if !self.detected.reporter.has_capacity() {
            // The ledger keeps it; it is reported once there is capacity.
            self.unreported = Some(0);
        }
        let mut recorder = LedgerRecorder { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        self.detected.reporter.report(error, &context.of_detected(), &mut recorder);
    }
}

/// The response to an error in the VMM's own memory, whatever the plan.
#[must_use]
pub const fn own_memory() -> Action<'static> {
    Action::Stop { report: StopReport { reason: StopReason::OwnMemory, error: None } }
}

impl ResponderContext {
    fn of_detected(&self) -> ReporterContext {
        ReporterContext { acknowledge_register: self.detected_register, ..self.context }
    }

    fn of_corrected(&self) -> ReporterContext {
        ReporterContext { acknowledge_register: self.corrected_register, ..self.context }
    }
}

/// A sink that records responses and acknowledgements in the ledger and passes every action on.
struct LedgerRecorder<'a> {
    ledger: &'a mut Ledger,
    sink: &'a mut dyn ActionSink,
    now_ns: u64,
}

impl ActionSink for LedgerRecorder<'_> {
    fn act(&mut self, action: Action<'_>) -> Result<(), ActionFailed> {
        match action {
            Action::Event(ErrorEvent::Handled { span, response }) => self.ledger.handled(span, response),
            Action::Event(ErrorEvent::Acknowledged { span, .. }) => {
                self.ledger.acknowledged(span, self.now_ns)
            }
            _ => {}
        }
        self.sink.act(action)
    }
}
