//! How one status block goes to and fro between the VMM and its guest.
//!
//! A block has one owner on our side, a [`Handover`]. It has no clock, reads no memory and writes none: it is told the time and whether
//! the acknowledge register says "free", and says [`Step`] by step what is to be done.
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
//! What it keeps to:
//! - A record is written only into a block that is free: at the start, after the guest's acknowledgement, or after a reset.
//! - What comes in between waits in order. An error that a written or waiting record tells of already is not queued again.
//! - The queue is bounded. What finds no room is counted and said.
//! - A vCPU that waits for a record is held, but never for longer than the patience of the record before; then it is answered without a
//!   record. It is not held at all where the guest has shown that it does not acknowledge, nor where the record before was told to the
//!   same vCPU, which could not acknowledge it while held.
//! - A record that was never acknowledged stays: a driver that starts late (early boot, kdump) finds it, acknowledges it, and records
//!   flow again.

use crate::memory_error::{Kind, MemoryError, Span};
use crate::queue::Queue;
use crate::vcpu_state::VcpuState;

/// A vCPU that consumed an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consumer {
    /// Which, by index.
    pub vcpu: u32,
    /// How it stood then, where its answer asks for that. It stays so while it is held.
    pub state: Option<VcpuState>,
    /// What it met.
    pub error: MemoryError,
}

/// A loss that is to be told, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PendingError {
    /// What was lost. More than a block holds is told in several.
    pub span: Span,
    /// Who consumed it; then its span is no wider than one block tells: [`Record::LOG2_MOST`].
    pub consumer: Option<Consumer>,
}

/// What one block tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// What was lost, no more than one block tells.
    pub span: Span,
    /// Who consumed it.
    pub consumer: Option<Consumer>,
    /// When it was written, in nanoseconds.
    pub written_ns: u64,
}

impl Record {
    /// Binary logarithm of the most bytes that one block tells of: 16 pages of 4 KiB ([`crate::MAX_MEMORY_ENTRIES`]).
    pub const LOG2_MOST: u8 = 12 + crate::MAX_MEMORY_ENTRIES.ilog2() as u8;

    /// Whether someone consumed it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.consumer.is_some() { Kind::ActionRequired } else { Kind::ActionOptional }
    }
}

/// Something to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// This record is written into the block, and the guest is notified.
    Write(Record),
    /// This vCPU waits.
    Hold(u32),
    /// This one no longer does.
    Release(u32),
    /// This vCPU is answered without a record.
    Fallback(Consumer, Span),
    /// This waits for the record before.
    Queued(Span),
    /// This is told of by a record that is written or waits.
    Coalesced(Span),
    /// This record was acknowledged, so many nanoseconds after it was written.
    Acknowledged(Record, u64),
    /// This record should have been.
    Overdue(Record),
    /// No room: this will not be told of. So many were not.
    Overflowed(Span, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Ours to write.
    Free,
    /// Written; the guest has until then.
    Waiting { record: Record, deadline_ns: u64 },
    /// Written, and nobody seems to be there yet.
    Parked { record: Record },
    /// Written, and the guest that was there does not answer.
    Overdue { record: Record },
}

/// What waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    loss: PendingError,
    /// First GPA that no block told of.
    next: u64,
}

/// The owner of one status block, with room for `N` losses and as many vCPUs that wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handover<const N: usize> {
    state: State,
    /// The guest's driver acknowledged something, or its start was seen otherwise.
    driver_seen: bool,
    queue: Queue<Pending, N>,
    /// vCPUs that touched what a record tells of already, and what.
    waiters: Queue<(Consumer, Span), N>,
    timeout_ns: u64,
    overflowed: u64,
}

impl<const N: usize> Handover<N> {
    /// The owner of a free block. A guest that has not acknowledged a record `timeout_ns` after it was written is taken not to.
    #[must_use]
    pub const fn new(timeout_ns: u64) -> Self {
        const { assert!(N > 0, "a loss wider than a block waits in the queue") };
        Handover {
            state: State::Free,
            driver_seen: false,
            queue: Queue::new(),
            waiters: Queue::new(),
            timeout_ns,
            overflowed: 0,
        }
    }

    /// Tells of a loss. `free` is bit 0 of the acknowledge register, as it was at `now_ns`.
    pub fn report(&mut self, loss: PendingError, free: bool, now_ns: u64, step: &mut impl FnMut(Step)) {
        self.tick(free, now_ns, step);
        if self.tells_of(loss.span) {
            step(Step::Coalesced(loss.span));
            if let Some(consumer) = loss.consumer {
                self.wait(consumer, loss.span, step);
            }
            return;
        }
        if let Some(consumer) = loss.consumer
            && !self.may_hold(consumer)
        {
            return step(Step::Fallback(consumer, loss.span));
        }
        let is_free = matches!(self.state, State::Free);
        if self.queue.push(Pending { loss, next: loss.span.gpa }).is_err() {
            self.overflow(loss.span, step);
            if let Some(consumer) = loss.consumer {
                step(Step::Fallback(consumer, loss.span));
            }
        } else if is_free {
            self.write_next(now_ns, step);
        } else {
            step(Step::Queued(loss.span));
            if let Some(consumer) = loss.consumer {
                step(Step::Hold(consumer.vcpu));
            }
        }
    }

    /// Lets time pass, or looks at the acknowledge register, whose bit 0 was `free` at `now_ns`.
    pub fn tick(&mut self, free: bool, now_ns: u64, step: &mut impl FnMut(Step)) {
        // A register that was read no later than the record was written says nothing about this record.
        if free
            && let Some(record) = self.written()
            && now_ns > record.written_ns
        {
            self.acknowledged(record, now_ns, step);
        }
        match self.state {
            State::Free => self.write_next(now_ns, step),
            State::Waiting { record, deadline_ns } if now_ns >= deadline_ns => self.give_up(record, step),
            State::Waiting { .. } | State::Parked { .. } | State::Overdue { .. } => {}
        }
    }

    /// The guest's driver is known to be there: from now on it is expected to acknowledge what is written.
    pub fn driver_up(&mut self, now_ns: u64) {
        self.driver_seen = true;
        if let State::Parked { record } = self.state {
            self.state = State::Waiting { record, deadline_ns: now_ns.saturating_add(self.timeout_ns) };
        }
    }

    /// The guest was reset and its record area restored. Who consumed something is gone; what was found and not acknowledged is told
    /// again at the next [`tick`](Self::tick) where the pages are `still_poisoned`, and forgotten where they were repaired.
    pub fn reset(&mut self, still_poisoned: bool, step: &mut impl FnMut(Step)) {
        let unread = self.written().filter(|record| record.consumer.is_none());
        self.state = State::Free;
        self.driver_seen = false;
        self.waiters = Queue::new();
        while self.queue.take_first(|pending| !still_poisoned || pending.loss.consumer.is_some()).is_some() {}
        if let Some(record) = unread.filter(|_| still_poisoned) {
            let loss = PendingError { span: record.span, consumer: None };
            if self.queue.push_front(Pending { loss, next: record.span.gpa }).is_err() {
                self.overflow(record.span, step);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do, whatever the guest does; none where only the guest can go on.
    #[must_use]
    pub const fn deadline_ns(&self) -> Option<u64> {
        match self.state {
            State::Waiting { deadline_ns, .. } => Some(deadline_ns),
            State::Free | State::Parked { .. } | State::Overdue { .. } => None,
        }
    }

    /// The record that the block holds and that the guest has not acknowledged.
    #[must_use]
    pub const fn written(&self) -> Option<Record> {
        match self.state {
            State::Free => None,
            State::Waiting { record, .. } | State::Parked { record } | State::Overdue { record } => {
                Some(record)
            }
        }
    }

    /// Losses that found no room.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Losses that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.iter().count()
    }

    /// vCPUs that are held.
    pub fn held(&self) -> impl Iterator<Item = u32> {
        let queued = self.queue.iter().filter_map(|pending| pending.loss.consumer);
        queued.chain(self.waiters.iter().map(|(consumer, _)| *consumer)).map(|consumer| consumer.vcpu)
    }

    fn write_next(&mut self, now_ns: u64, step: &mut impl FnMut(Step)) {
        let Some(first) = self.queue.first_mut() else { return };
        let PendingError { span: loss, consumer } = first.loss;
        let span = Span::around(first.next, loss.log2_len.min(Record::LOG2_MOST));
        match span.gpa.checked_add(span.bytes()) {
            Some(next) if loss.contains(next) => first.next = next,
            _ => {
                self.queue.pop();
            }
        }
        let record = Record { span, consumer, written_ns: now_ns };
        self.state = State::Waiting { record, deadline_ns: now_ns.saturating_add(self.timeout_ns) };
        step(Step::Write(record));
    }

    fn acknowledged(&mut self, record: Record, now_ns: u64, step: &mut impl FnMut(Step)) {
        self.state = State::Free;
        self.driver_seen = true;
        step(Step::Acknowledged(record, now_ns.saturating_sub(record.written_ns)));
        while let Some((consumer, _)) = self.waiters.take_first(|(_, span)| record.span.contains(span.gpa)) {
            step(Step::Release(consumer.vcpu));
        }
    }

    /// Nobody waits any longer for the guest to read this one.
    fn give_up(&mut self, record: Record, step: &mut impl FnMut(Step)) {
        if self.driver_seen {
            self.state = State::Overdue { record };
            step(Step::Overdue(record));
        } else {
            self.state = State::Parked { record };
        }
        while let Some((consumer, span)) = self.waiters.pop() {
            step(Step::Fallback(consumer, span));
        }
        while let Some(Pending { loss, .. }) =
            self.queue.take_first(|pending| pending.loss.consumer.is_some())
        {
            if let Some(consumer) = loss.consumer {
                step(Step::Fallback(consumer, loss.span));
            }
        }
    }

    /// A vCPU touched what a record tells of already.
    fn wait(&mut self, consumer: Consumer, span: Span, step: &mut impl FnMut(Step)) {
        if !self.may_hold(consumer) {
            step(Step::Fallback(consumer, span));
        } else if self.waiters.push((consumer, span)).is_ok() {
            step(Step::Hold(consumer.vcpu));
        }
        // Where there is no room to hold it, it is entered again, touches the page again, and asks again.
    }

    fn may_hold(&self, consumer: Consumer) -> bool {
        match self.state {
            State::Free => true,
            State::Waiting { record, .. } => record.consumer.is_none_or(|told| told.vcpu != consumer.vcpu),
            State::Parked { .. } | State::Overdue { .. } => false,
        }
    }

    /// Whether records that are written or wait tell of all of `span`.
    fn tells_of(&self, span: Span) -> bool {
        let block = span.log2_len.min(Record::LOG2_MOST);
        let covers = |wider: Span, gpa| wider.log2_len >= block && wider.contains(gpa);
        (0..1_u64 << (span.log2_len - block)).map(|index| span.gpa + (index << block)).all(|gpa| {
            self.written().is_some_and(|record| covers(record.span, gpa))
                || self.queue.iter().any(|pending| covers(pending.loss.span, gpa) && gpa >= pending.next)
        })
    }

    fn overflow(&mut self, span: Span, step: &mut impl FnMut(Step)) {
        self.overflowed = self.overflowed.saturating_add(1);
        step(Step::Overflowed(span, self.overflowed));
    }
}
