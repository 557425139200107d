//! One error in, what is to be done out: the plan, carried out from the first touch to the acknowledgement.

use alloc::boxed::Box;

use crate::abilities::HostAbilities;
use crate::actions::{Action, ActionSink, ErrorEvent, StopReason, StopReport};
use crate::handover::Record;
use crate::ledger::Ledger;
use crate::memory_error::{Kind, MemoryError, Origin, Span};
use crate::plan::{Answer, Plan};
use crate::progress::Progress;
use crate::record_area::RecordArea;
use crate::reporters::stop::stop;
use crate::reporters::{self, BuildError, Claims, Reporter, ReporterContext, Setup};

/// Answers errors as a plan says: the ledger is kept, the right reporter is asked, and a vCPU that gets nowhere is not waited for.
///
/// It owns everything that an answer needs but the machine. Whoever holds it calls [`report`](Self::report) for each error and
/// [`tick`](Self::tick) now and then, at [`deadline_ns`](Self::deadline_ns) at the latest, and carries out what the sink is given.
#[derive(Debug)]
pub struct Responder {
    consumed: Channel,
    detected: Channel,
    progress: Progress,
    ledger: Ledger,
    /// What the ledger has as lost and the guest was not told of yet, from this entry on: all of it to a guest that is new, and what
    /// found no room in the queue when it came.
    unreported: Option<usize>,
}

/// One of the two kinds of error, and who answers it.
#[derive(Debug)]
struct Channel {
    reporter: Box<dyn Reporter>,
    /// Its answers are records.
    records: bool,
}

/// Which of the two reporters is meant: each has an acknowledge register of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one for consumed errors.
    Consumed,
    /// The one for found errors.
    Detected,
}

/// What the world looks like when the responder acts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponderContext {
    /// The time and the state of the vCPU, as [`ReporterContext`] has them; its register is that of the consumed side.
    pub context: ReporterContext,
    /// The found side's acknowledge register; 0 where it cannot be read.
    pub detected_register: u64,
}

impl Responder {
    /// Entries that the ledger has room for before it allocates memory.
    const LEDGER_CAPACITY: usize = 1024;

    /// The responder for a plan, on the host that it was made for, with the record area that it was made with.
    ///
    /// # Errors
    /// When a reporter is not part of this build, or the area is not the one of the plan.
    pub fn new(plan: &Plan, host: &HostAbilities, area: Option<&RecordArea>) -> Result<Self, BuildError> {
        let mut claims = Claims::of(area);
        let mut channel = |answer: &Answer| {
            let reporter = reporters::build(&mut Setup { answer, host, claims: &mut claims })?;
            Ok(Channel { reporter, records: answer.source.is_some() })
        };
        Ok(Responder {
            consumed: channel(&plan.consumed)?,
            detected: channel(&plan.detected)?,
            progress: Progress::new(&plan.consumed.timeouts),
            ledger: Ledger::with_capacity(Self::LEDGER_CAPACITY),
            unreported: None,
        })
    }

    /// Answers an error. A vCPU that consumed it is not entered before every action was taken.
    pub fn report(&mut self, error: &MemoryError, context: &ResponderContext, sink: &mut dyn ActionSink) {
        // What the guest has acknowledged by now, it acknowledged before this error; the state that came with it is not of every vCPU.
        let before =
            ResponderContext { context: ReporterContext { vcpu: None, ..context.context }, ..*context };
        self.tick(&before, sink);
        self.ledger.record(error);
        self.answer(error, context, sink);
    }

    /// Writes an error down that cannot be answered yet: [`answer`](Self::answer) follows.
    pub fn record(&mut self, error: &MemoryError) {
        self.ledger.record(error);
    }

    /// Answers an error that was written down before. As with [`report`](Self::report), the vCPU is not entered before every action was
    /// taken.
    pub fn answer(&mut self, error: &MemoryError, context: &ResponderContext, sink: &mut dyn ActionSink) {
        let mut error = *error;
        if error.origin == Origin::Device || error.vcpu.is_none() {
            // No vCPU stands at an instruction that could be answered: the guest is told as of what was found.
            error.kind = Kind::ActionOptional;
        }
        if error.kind == Kind::ActionOptional {
            return self.report_detected(&error, context, sink);
        }
        let mut written = Written { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        if self.progress.is_stuck(&error) {
            return stop(error, StopReason::NoProgress, &mut written);
        }
        self.consumed.reporter.report(&error, &context.context, &mut written);
        // The rest of what was lost with it: nobody consumed that yet. A guest that walks over it page by page has been told.
        let told = if self.consumed.records { Record::LOG2_MOST } else { Span::around(0, 0).log2_len };
        if self.detected.records {
            for log2_len in told..error.span.log2_len {
                let half = Span::around(error.gpa ^ 1 << log2_len, log2_len);
                let known = self.ledger.within(half.gpa, half.bytes());
                if known.iter().all(|entry| entry.answered.is_some()) {
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

    /// Lets time pass, and looks whether the guest has acknowledged something.
    pub fn tick(&mut self, context: &ResponderContext, sink: &mut dyn ActionSink) {
        let mut written = Written { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        self.consumed.reporter.tick(&context.context, &mut written);
        self.detected.reporter.tick(&context.of_detected(), &mut written);
        if let Some(index) = self.unreported {
            self.report_unreported(index, context, sink);
        }
    }

    /// The guest's driver is known to have started.
    pub fn driver_up(&mut self, context: &ResponderContext) {
        self.consumed.reporter.driver_up(&context.context);
        self.detected.reporter.driver_up(&context.of_detected());
    }

    /// The guest was reset and its memory filled anew. Whoever consumed something is gone, and so is what the guest knew: where pages are
    /// `still_poisoned`, all that the ledger has as lost is told as found at the next [`tick`](Self::tick), if that is told by records; a
    /// driver that starts finds them. Where the new guest cannot use those pages ([`Ledger::lost`] says which), or none is left, say that
    /// none is.
    pub fn reset(&mut self, still_poisoned: bool, context: &ResponderContext, sink: &mut dyn ActionSink) {
        self.progress.forget();
        self.ledger.forget_answers();
        self.unreported = (still_poisoned && self.detected.records).then_some(0);
        self.consumed.reporter.reset(false, &context.context, sink);
        self.detected.reporter.reset(false, &context.of_detected(), sink);
    }

    /// Fresh memory took the place of these pages.
    pub fn repaired(&mut self, span: Span, now_ns: u64) {
        self.ledger.repaired(span, now_ns);
    }

    /// When [`tick`](Self::tick) has something to do at the latest, in nanoseconds; none if never.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let deadlines = [self.consumed.reporter.deadline_ns(), self.detected.reporter.deadline_ns()];
        deadlines.into_iter().flatten().min()
    }

    /// GPA of the 64-bit acknowledge register of a side; none where it writes no records.
    #[must_use]
    pub fn acknowledge_register(&self, side: Side) -> Option<u64> {
        match side {
            Side::Consumed => self.consumed.reporter.acknowledge_register(),
            Side::Detected => self.detected.reporter.acknowledge_register(),
        }
    }

    /// What was lost so far.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Tells of what is lost and not answered, from that entry of the ledger on, as far as there is room for it.
    fn report_unreported(&mut self, mut index: usize, context: &ResponderContext, sink: &mut dyn ActionSink) {
        while self.detected.reporter.has_room() {
            let Some((span, next)) = self.ledger.next_unreported(index) else {
                self.unreported = None;
                return;
            };
            let origin = self.ledger.at(span.gpa).map_or(Origin::Sigbus, |entry| entry.origin);
            let (kind, time_ns) = (Kind::ActionOptional, context.context.now_ns);
            let error = MemoryError { span, gpa: span.gpa, kind, vcpu: None, origin, time_ns };
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
        if !self.detected.reporter.has_room() {
            // The ledger keeps it until there is room.
            self.unreported = Some(0);
        }
        let mut written = Written { ledger: &mut self.ledger, sink, now_ns: context.context.now_ns };
        self.detected.reporter.report(error, &context.of_detected(), &mut written);
    }
}

/// The answer to an error in the VMM's own memory, whatever the plan.
#[must_use]
pub const fn own_memory() -> Action<'static> {
    Action::Stop { report: StopReport { reason: StopReason::OwnMemory, error: None } }
}

impl ResponderContext {
    fn of_detected(&self) -> ReporterContext {
        ReporterContext { acknowledge_register: self.detected_register, ..self.context }
    }
}

/// Writes down what passes.
struct Written<'a> {
    ledger: &'a mut Ledger,
    sink: &'a mut dyn ActionSink,
    now_ns: u64,
}

impl ActionSink for Written<'_> {
    fn act(&mut self, action: Action<'_>) {
        match action {
            Action::Event(ErrorEvent::Answered { span, response }) => self.ledger.answered(span, response),
            Action::Event(ErrorEvent::Acknowledged { span, .. }) => {
                self.ledger.acknowledged(span, self.now_ns)
            }
            _ => {}
        }
        self.sink.act(action);
    }
}
