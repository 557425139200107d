//! The acknowledge handshake of one status block (GHESv2: ACPI 6.5, 18.3.2.8), on the VMM's side.
//!
//! A [`Handshake`] has no clock and accesses no memory. Its input is the time and bit 0 of the acknowledge register; its output are
//! [`Step`]s to carry out.
//!
//! ```text
//!             report                  deadline, driver seen
//!   Free ───────────────► Waiting ───────────────────────────► Overdue
//!    ▲                    │  ▲  │ deadline, driver never seen     │
//!    │    acknowledged    │  │  └────────────► Parked             │
//!    ├────────────────────┘  └────────────────  │                 │
//!    │                          driver is up    │                 │
//!    └──────────────────────────────────────────┴─────────────────┘
//!                         acknowledged, reset
//! ```
//!
//! Guarantees:
//! - A record is written only into a free block: at the start, after the guest's acknowledgement, or after a reset.
//! - Errors that arrive in between are queued in order, unless they are part of a written or queued record that is as severe. The queue is
//!   bounded. Errors that do not fit are counted and reported.
//! - A vCPU is held for a record until the timeout of the record before it at the longest; then it is given the fallback response. It is
//!   not held if the guest does not acknowledge, nor if the record before was reported to the same vCPU, which could not acknowledge it
//!   while held.
//! - A record that cannot be written, or of which the guest cannot be notified, leaves its block free, and its vCPU is given the
//!   fallback response.
//! - A record that was not acknowledged stays in the block: a driver that starts late (early boot, kdump) reads and acknowledges it, and
//!   the queue moves on.

use crate::memory_error::{Kind, MemoryError, Span};
use crate::queue::Queue;
use crate::severity::Severity;
use crate::vcpu_state::VcpuState;

/// A vCPU that consumed an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consumer {
    /// Its index.
    pub vcpu: u32,
    /// Its state at that time, if the response needs it. It does not change while the vCPU is held.
    pub state: Option<VcpuState>,
    /// The error.
    pub error: MemoryError,
}

/// The contents of one status block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The poisoned pages: no more than 2 to the power of [`Self::MAX_LOG2_LEN`] bytes.
    pub span: Span,
    /// The severity of the error.
    pub severity: Severity,
    /// The vCPU that consumed the error. `None` for a detected error.
    pub consumer: Option<Consumer>,
    /// When it was written, in nanoseconds of the VMM's monotonic clock.
    pub written_ns: u64,
}

impl Record {
    /// Binary logarithm of the largest span that one block reports: 16 pages of 4 KiB ([`crate::MAX_MEMORY_ENTRIES`]).
    pub const MAX_LOG2_LEN: u8 = 12 + crate::MAX_MEMORY_ENTRIES.ilog2() as u8;

    /// Whether the error was consumed.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.consumer.is_some() { Kind::ActionRequired } else { Kind::ActionOptional }
    }
}

/// A step to carry out, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write this record into the block and notify the guest.
    Write(Record),
    /// Hold this vCPU.
    Hold(u32),
    /// Release this vCPU.
    Release(u32),
    /// Give this vCPU the fallback response, which needs no record.
    Fallback(Consumer, Span),
    /// This error was queued.
    Queued(Span),
    /// This error is part of a written or queued record.
    Coalesced(Span),
    /// This record was acknowledged, that number of nanoseconds after it was written.
    Acknowledged(Record, u64),
    /// This record was not acknowledged in time, by a guest whose driver was seen, or one whose vCPU consumed the error.
    Overdue(Record),
    /// This error did not fit into the queue and will not be reported: the number of such errors so far.
    Overflowed(Span, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// The VMM may write the block.
    Free,
    /// A record was written; the guest has until then to acknowledge it.
    Waiting { record: Record, deadline_ns: u64 },
    /// A record was written, and no driver has been seen yet.
    Parked { record: Record },
    /// A record was written, and the guest's driver did not acknowledge it in time.
    Overdue { record: Record },
}

/// An error in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    /// All pages. A span that is wider than one block is reported in several.
    span: Span,
    severity: Severity,
    /// If there is one, the span is no wider than one block.
    consumer: Option<Consumer>,
    /// First GPA that no record has reported yet.
    next: u64,
}

/// The handshake of one status block, with a queue of `N` errors and up to `N` vCPUs that are held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handshake<const N: usize> {
    state: State,
    /// The guest's driver acknowledged a record, or its start was seen otherwise.
    driver_seen: bool,
    queue: Queue<Pending, N>,
    /// vCPUs that consumed a part of a record that is written or queued, and that part.
    waiters: Queue<(Consumer, Span), N>,
    timeout_ns: u64,
    overflowed: u64,
}

impl<const N: usize> Handshake<N> {
    /// The handshake of a free block. A record counts as not acknowledged `timeout_ns` after it was written.
    #[must_use]
    pub const fn new(timeout_ns: u64) -> Self {
        const { assert!(N > 0, "an error wider than a block is queued") };
        Handshake {
            state: State::Free,
            driver_seen: false,
            queue: Queue::new(),
            waiters: Queue::new(),
            timeout_ns,
            overflowed: 0,
        }
    }

    /// Reports an error; for a consumed one, `span` is no wider than one block ([`Record::MAX_LOG2_LEN`]). `free` is bit 0 of the
    /// acknowledge register at `now_ns`.
    pub fn report(
        &mut self,
        span: Span,
        severity: Severity,
        consumer: Option<Consumer>,
        free: bool,
        now_ns: u64,
        step: &mut impl FnMut(Step),
    ) {
        self.tick(free, now_ns, step);
        if self.covers(span, severity) {
            step(Step::Coalesced(span));
            if let Some(consumer) = consumer {
                self.wait(consumer, span, step);
            }
            return;
        }
        if let Some(consumer) = consumer
            && !self.may_hold(consumer)
        {
            return step(Step::Fallback(consumer, span));
        }
        self.enqueue(Pending { span, severity, consumer, next: span.gpa }, now_ns, step);
    }

    /// Reports what poisons no memory: it is written or queued, also if that span is reported by another record. Its severity is
    /// [`Severity::Corrected`] or [`Severity::Informational`]. `free` is bit 0 of the acknowledge register at `now_ns`.
    pub fn report_other(
        &mut self,
        span: Span,
        severity: Severity,
        free: bool,
        now_ns: u64,
        step: &mut impl FnMut(Step),
    ) {
        self.tick(free, now_ns, step);
        self.enqueue(Pending { span, severity, consumer: None, next: span.gpa }, now_ns, step);
    }

    fn enqueue(&mut self, pending: Pending, now_ns: u64, step: &mut impl FnMut(Step)) {
        let Pending { span, consumer, .. } = pending;
        let is_free = matches!(self.state, State::Free);
        if self.queue.push(pending).is_err() {
            self.overflowed = self.overflowed.saturating_add(1);
            step(Step::Overflowed(span, self.overflowed));
            if let Some(consumer) = consumer {
                step(Step::Fallback(consumer, span));
            }
        } else if is_free {
            self.write_next(now_ns, step);
        } else {
            step(Step::Queued(span));
            if let Some(consumer) = consumer {
                step(Step::Hold(consumer.vcpu));
            }
        }
    }

    /// Advances the time and checks for an acknowledgement: `free` is bit 0 of the acknowledge register at `now_ns`.
    pub fn tick(&mut self, free: bool, now_ns: u64, step: &mut impl FnMut(Step)) {
        // A register that was read no later than the record was written is not an acknowledgement of this record.
        if free
            && let Some(record) = self.written()
            && now_ns > record.written_ns
        {
            self.acknowledged(record, now_ns, step);
        }
        match self.state {
            State::Free => self.write_next(now_ns, step),
            State::Waiting { record, deadline_ns } if now_ns >= deadline_ns => self.time_out(record, step),
            State::Waiting { .. } | State::Parked { .. } | State::Overdue { .. } => {}
        }
    }

    /// The record of the last [`Step::Write`] could not be written, or the guest could not be notified of it: the block is free again. Its
    /// consumer is given the fallback response, and the vCPUs that wait for its acknowledgement are released: they access the page again.
    /// The next [`tick`](Self::tick) writes what is queued.
    pub fn not_written(&mut self, step: &mut impl FnMut(Step)) {
        let Some(record) = self.written() else { return };
        self.state = State::Free;
        if let Some(consumer) = record.consumer {
            step(Step::Fallback(consumer, record.span));
        }
        self.release_waiters(record.span, step);
    }

    /// The guest's driver is known to have started: from now on it is expected to acknowledge records.
    pub fn driver_up(&mut self, now_ns: u64) {
        self.driver_seen = true;
        if let State::Parked { record } = self.state {
            self.state = State::Waiting { record, deadline_ns: now_ns.saturating_add(self.timeout_ns) };
        }
    }

    /// The guest was reset and its record area initialised. Consumers no longer exist, and nothing is reported any more: pages that
    /// are still poisoned are reported to the new guest as new errors.
    pub fn reset(&mut self) {
        self.state = State::Free;
        self.driver_seen = false;
        self.waiters = Queue::new();
        self.queue = Queue::new();
    }

    /// When [`tick`](Self::tick) has to be called at the latest, whatever the guest does. `None`: only the guest can advance the state, or, after
    /// [`not_written`](Self::not_written), any tick.
    #[must_use]
    pub const fn deadline_ns(&self) -> Option<u64> {
        match self.state {
            State::Waiting { deadline_ns, .. } => Some(deadline_ns),
            State::Free | State::Parked { .. } | State::Overdue { .. } => None,
        }
    }

    /// The record in the block that the guest has not acknowledged.
    #[must_use]
    pub const fn written(&self) -> Option<Record> {
        match self.state {
            State::Free => None,
            State::Waiting { record, .. } | State::Parked { record } | State::Overdue { record } => {
                Some(record)
            }
        }
    }

    /// The record in the block, if it was not acknowledged in time: by a guest whose driver was seen, or one whose vCPU consumed the error
    /// and should have handled it.
    #[must_use]
    pub const fn overdue(&self) -> Option<Record> {
        match self.state {
            State::Overdue { record } => Some(record),
            State::Parked { record } if record.consumer.is_some() => Some(record),
            State::Free | State::Waiting { .. } | State::Parked { .. } => None,
        }
    }

    /// The first error of which the guest was notified, or is to be, and that it has not acknowledged, as the record that reports it. A fatal
    /// one that was written last counts even if it is acknowledged. What [poisons no memory](Self::report_other) does not count.
    /// `free` is bit 0 of the acknowledge register at `now_ns`.
    #[must_use]
    pub fn unacknowledged(&self, free: bool, now_ns: u64) -> Option<Record> {
        let is_acknowledged = |record: &Record| free && now_ns > record.written_ns;
        let is_error = |severity| !matches!(severity, Severity::Corrected | Severity::Informational);
        let written = self.written().filter(|record| is_error(record.severity));
        let written = written.filter(|record| record.severity == Severity::Fatal || !is_acknowledged(record));
        let as_record = |pending: &Pending| {
            let Pending { span, severity, consumer, .. } = *pending;
            Record { span, severity, consumer, written_ns: now_ns }
        };
        let queued = || self.queue.iter().find(|pending| is_error(pending.severity)).map(as_record);
        written.or_else(queued)
    }

    /// Number of errors that did not fit into the queue.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Number of errors in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.iter().count()
    }

    /// The vCPUs that are held.
    pub fn held(&self) -> impl Iterator<Item = u32> {
        let queued = self.queue.iter().filter_map(|pending| pending.consumer);
        queued.chain(self.waiters.iter().map(|(consumer, _)| *consumer)).map(|consumer| consumer.vcpu)
    }

    fn write_next(&mut self, now_ns: u64, step: &mut impl FnMut(Step)) {
        let Some(first) = self.queue.first_mut() else { return };
        let Pending { span: whole, severity, consumer, next } = *first;
        let span = Span::around(next, whole.log2_len.min(Record::MAX_LOG2_LEN));
        match span.gpa.checked_add(span.bytes()) {
            Some(next) if whole.contains(next) => first.next = next,
            _ => {
                self.queue.pop();
            }
        }
        let record = Record { span, severity, consumer, written_ns: now_ns };
        self.state = State::Waiting { record, deadline_ns: now_ns.saturating_add(self.timeout_ns) };
        step(Step::Write(record));
    }

    fn acknowledged(&mut self, record: Record, now_ns: u64, step: &mut impl FnMut(Step)) {
        self.state = State::Free;
        self.driver_seen = true;
        step(Step::Acknowledged(record, now_ns.saturating_sub(record.written_ns)));
        self.release_waiters(record.span, step);
    }

    /// Releases the vCPUs that wait for a record of that span.
    fn release_waiters(&mut self, span: Span, step: &mut impl FnMut(Step)) {
        while let Some((consumer, _)) = self.waiters.take_first(|(_, part)| span.contains(part.gpa)) {
            step(Step::Release(consumer.vcpu));
        }
    }

    /// The record was not acknowledged in time: no vCPU is held for it any longer.
    fn time_out(&mut self, record: Record, step: &mut impl FnMut(Step)) {
        self.state = if self.driver_seen { State::Overdue { record } } else { State::Parked { record } };
        // A record that nothing has consumed waits for the driver of a guest that is about to boot.
        if let Some(record) = self.overdue() {
            step(Step::Overdue(record));
        }
        while let Some((consumer, span)) = self.waiters.pop() {
            step(Step::Fallback(consumer, span));
        }
        while let Some(Pending { span, consumer, .. }) =
            self.queue.take_first(|pending| pending.consumer.is_some())
        {
            if let Some(consumer) = consumer {
                step(Step::Fallback(consumer, span));
            }
        }
    }

    /// Holds a vCPU that consumed a part of a record that is written or queued.
    fn wait(&mut self, consumer: Consumer, span: Span, step: &mut impl FnMut(Step)) {
        if !self.may_hold(consumer) {
            step(Step::Fallback(consumer, span));
        } else if self.waiters.push((consumer, span)).is_ok() {
            step(Step::Hold(consumer.vcpu));
        }
        // If the queue is full, the vCPU is entered again, accesses the page again, and is reported again.
    }

    fn may_hold(&self, consumer: Consumer) -> bool {
        match self.state {
            State::Free => true,
            State::Waiting { record, .. } => record.consumer.is_none_or(|other| other.vcpu != consumer.vcpu),
            State::Parked { .. } | State::Overdue { .. } => false,
        }
    }

    /// Whether written and queued records report all of `span`, as severely.
    fn covers(&self, span: Span, severity: Severity) -> bool {
        let block = span.log2_len.min(Record::MAX_LOG2_LEN);
        let covers = |wider: Span, other: Severity, gpa| {
            wider.log2_len >= block && wider.contains(gpa) && other.worse(severity) == other
        };
        (0..1_u64 << (span.log2_len - block)).map(|index| span.gpa + (index << block)).all(|gpa| {
            self.written().is_some_and(|record| covers(record.span, record.severity, gpa))
                || self
                    .queue
                    .iter()
                    .any(|pending| covers(pending.span, pending.severity, gpa) && gpa >= pending.next)
        })
    }
}
