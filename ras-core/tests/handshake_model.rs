//! An exhaustive model check of the handshake of one status block.
//!
//! The model is a block with a queue of two errors, two vCPUs, a guest that reads and acknowledges or does not, a clock that can reach a
//! deadline, a driver whose start may be seen, a record that cannot be written, and resets. It is checked for every reachable state that
//! - no record is overwritten before its acknowledgement;
//! - exactly as many records of a page are written as reports of it were accepted;
//! - a coalesced error is part of a record that is written or queued;
//! - every vCPU that consumed an error resumes, whether the guest acknowledges or never does;
//! - errors that did not fit into the queue are counted.

use std::collections::{HashSet, VecDeque};

use ras_core::handshake::{Consumer, Handshake, Step};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Severity, Span};

const VCPUS: usize = 2;
/// Blocks of 64 KiB, the size of one record. The last four can also be poisoned together.
const BLOCKS: usize = 7;
const TIMEOUT_NS: u64 = 10;
const REPORTS: u8 = 4;
const RESETS: u8 = 1;
const FAILURES: u8 = 1;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Model {
    host: Handshake<2>,
    now: u64,
    guest: Guest,
    /// Records that are due for each block: accepted and not written.
    due: [u8; BLOCKS],
    vcpus: [Vcpu; VCPUS],
    overflowed: u64,
    reports_left: u8,
    resets_left: u8,
    failures_left: u8,
    /// The next record cannot be written.
    next_fails: bool,
    driver_marked: bool,
}

/// The state of the block in guest memory, and of the guest's driver.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Guest {
    /// The record in the block: its index, and whether it was consumed.
    block: Option<(usize, bool)>,
    has_read: bool,
    /// Bit 0 of the acknowledge register.
    free: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Vcpu {
    Running,
    /// It consumed an error, and the response is outstanding.
    Faulted,
    Held,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// An error was detected.
    Detected(Span, View),
    /// A vCPU consumed a block.
    Consumed(usize, usize, View),
    Tick,
    Deadline,
    GuestReads,
    GuestAcknowledges,
    DriverSeen,
    NextFails,
    Reset,
}

/// The value of the acknowledge register that the VMM read: it may race with the guest's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// The current value.
    Now,
    /// Not free, although the guest has acknowledged.
    TooEarly,
    /// Free, read before the current record was written.
    BeforeTheRecord,
}

fn block(index: usize) -> Span {
    Span::around((index as u64) << 16, 16)
}

/// The last four blocks, poisoned together: four records.
fn wide() -> Span {
    Span { gpa: 4 << 16, log2_len: 18 }
}

fn blocks(span: Span) -> impl Iterator<Item = usize> {
    // The wide span is aligned to its size: it starts at 4 x 64 KiB, which is index 3.
    let first = if span == wide() { 3 } else { index_of(span) };
    first..first + (1 << (span.log2_len - 16))
}

fn index_of(span: Span) -> usize {
    let index = (span.gpa >> 16) as usize;
    if index >= 4 { index - 1 } else { index }
}

fn span_of(index: usize) -> Span {
    block(if index >= 3 { index + 1 } else { index })
}

impl Model {
    fn new() -> Self {
        Model {
            host: Handshake::new(TIMEOUT_NS),
            now: 0,
            guest: Guest { free: true, ..Guest::default() },
            due: [0; BLOCKS],
            vcpus: [Vcpu::Running; VCPUS],
            overflowed: 0,
            reports_left: REPORTS,
            resets_left: RESETS,
            failures_left: FAILURES,
            next_fails: false,
            driver_marked: false,
        }
    }

    fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Tick];
        let mut views = vec![View::Now];
        if self.guest.free {
            views.push(View::TooEarly);
        } else {
            views.push(View::BeforeTheRecord);
        }
        if self.reports_left > 0 {
            for &view in &views {
                events.extend((0..3).map(|index| Event::Detected(span_of(index), view)));
                events.push(Event::Detected(wide(), view));
                for vcpu in 0..VCPUS {
                    if self.vcpus[vcpu] == Vcpu::Running {
                        // A block that is also detected alone, and the first of the wide span.
                        events.extend([1, 3].map(|index| Event::Consumed(vcpu, index, view)));
                    }
                }
            }
        }
        if self.host.deadline_ns().is_some() {
            events.push(Event::Deadline);
        }
        if self.guest.block.is_some() && !self.guest.has_read {
            events.push(Event::GuestReads);
        }
        if self.guest.has_read {
            events.push(Event::GuestAcknowledges);
        }
        if !self.driver_marked {
            events.push(Event::DriverSeen);
        }
        if self.failures_left > 0 {
            events.push(Event::NextFails);
        }
        if self.resets_left > 0 {
            events.push(Event::Reset);
        }
        events
    }

    fn after(&self, event: Event) -> Model {
        let mut model = self.clone();
        match event {
            Event::Detected(span, view) => {
                model.reports_left -= 1;
                model.report(span, None, view);
            }
            Event::Consumed(vcpu, index, view) => {
                model.reports_left -= 1;
                model.vcpus[vcpu] = Vcpu::Faulted;
                let coalesced = model.report(span_of(index), Some(consumer(vcpu, index)), view);
                // Neither held nor notified: it is entered again, and may fault again.
                if model.vcpus[vcpu] == Vcpu::Faulted {
                    assert!(coalesced, "vCPU {vcpu} got no response");
                    model.vcpus[vcpu] = Vcpu::Running;
                }
            }
            Event::Tick => model.tick(),
            Event::Deadline => {
                model.now = model.host.deadline_ns().unwrap();
                model.tick();
            }
            Event::GuestReads => model.guest.has_read = true,
            Event::GuestAcknowledges => {
                model.guest = Guest { block: None, has_read: false, free: true };
            }
            Event::DriverSeen => {
                model.driver_marked = true;
                model.host.driver_up(model.now);
            }
            Event::NextFails => {
                model.failures_left -= 1;
                model.next_fails = true;
            }
            Event::Reset => model.reset(),
        }
        model.check();
        model.pass_time();
        model
    }

    /// A register that is read after a record was written is read at a later time.
    fn pass_time(&mut self) {
        if let Some(record) = self.host.written() {
            self.now = self.now.max(record.written_ns + 1);
        }
    }

    /// Returns whether it was coalesced.
    fn report(&mut self, span: Span, consumer: Option<Consumer>, view: View) -> bool {
        let mut steps = Vec::new();
        let (free, then) = match view {
            View::Now => (self.guest.free, self.now),
            View::TooEarly => (false, self.now),
            View::BeforeTheRecord => (true, self.host.written().map_or(self.now, |record| record.written_ns)),
        };
        self.host.report(span, Severity::Recoverable, consumer, free, then, &mut |step| steps.push(step));
        let coalesced = steps.contains(&Step::Coalesced(span));
        let overflowed =
            steps.iter().any(|step| matches!(step, Step::Overflowed(other, _) if *other == span));
        let fallback =
            steps.iter().any(|step| matches!(step, Step::Fallback(other, _) if Some(*other) == consumer));
        if !coalesced && !overflowed && !fallback {
            // The record that is unread as far as the VMM knows; it reads the register first, which may free the block.
            let unread =
                self.guest.block.filter(|_| !steps.iter().any(|step| matches!(step, Step::Acknowledged(..))));
            let reported = |index| self.due[index] > 0 || unread.is_some_and(|(unread, _)| unread == index);
            assert!(!blocks(span).all(reported), "{span} was reported already");
            blocks(span).for_each(|index| self.due[index] += 1);
        }
        self.carry_out_all(steps);
        if coalesced {
            for index in blocks(span) {
                let reported =
                    self.due[index] > 0 || self.guest.block.is_some_and(|(unread, _)| unread == index);
                // The guest may have acknowledged a record that the VMM has not seen acknowledged yet; it was reported then.
                assert!(reported || self.guest.free, "{span} was coalesced into no record");
            }
        }
        coalesced
    }

    fn tick(&mut self) {
        let mut steps = Vec::new();
        self.host.tick(self.guest.free, self.now, &mut |step| steps.push(step));
        self.carry_out_all(steps);
    }

    fn carry_out_all(&mut self, steps: Vec<Step>) {
        let mut has_failed = false;
        for step in steps {
            match step {
                // The record is dropped; the block is as it was.
                Step::Write(record) if std::mem::take(&mut self.next_fails) => {
                    self.due[index_of(record.span)] -= 1;
                    has_failed = true;
                }
                step => self.carry_out(step),
            }
        }
        if has_failed {
            let mut steps = Vec::new();
            self.host.not_written(&mut |step| steps.push(step));
            steps.into_iter().for_each(|step| self.carry_out(step));
            assert!(self.host.written().is_none(), "the block is taken for a record that was not written");
        }
    }

    fn reset(&mut self) {
        self.resets_left -= 1;
        self.driver_marked = false;
        let held: Vec<usize> = self.host.held().map(|vcpu| vcpu as usize).collect();
        assert!(held.iter().all(|vcpu| self.vcpus[*vcpu] == Vcpu::Held));
        self.host.reset();
        self.guest = Guest { block: None, has_read: false, free: true };
        self.vcpus = [Vcpu::Running; VCPUS];
        assert!(self.host.written().is_none(), "a record is left after a reset");
        self.due = self.drained();
        assert_eq!(self.due, [0; BLOCKS], "a record is queued after a reset");
    }

    /// The number of records for each block that a guest that acknowledges everything would read from here on.
    fn drained(&self) -> [u8; BLOCKS] {
        let mut host = self.host.clone();
        let mut reported = [0; BLOCKS];
        for later in 1..64 {
            host.tick(true, self.now + later, &mut |step| {
                if let Step::Write(record) = step {
                    reported[index_of(record.span)] += 1;
                }
            });
        }
        reported
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Write(record) => {
                assert!(self.guest.free, "{record:?} overwrites a record that is not acknowledged");
                let index = index_of(record.span);
                assert!(self.due[index] > 0, "{record:?} is reported twice");
                self.due[index] -= 1;
                self.guest =
                    Guest { block: Some((index, record.consumer.is_some())), has_read: false, free: false };
                if let Some(consumer) = record.consumer {
                    self.resume(consumer.vcpu);
                }
            }
            Step::Hold(vcpu) => {
                assert_eq!(self.vcpus[vcpu as usize], Vcpu::Faulted, "vCPU {vcpu} is held without an error");
                let notified = self.host.written().and_then(|record| record.consumer);
                assert!(notified.is_none_or(|it| it.vcpu != vcpu), "the vCPU that must acknowledge is held");
                self.vcpus[vcpu as usize] = Vcpu::Held;
            }
            Step::Release(vcpu) => {
                assert_eq!(self.vcpus[vcpu as usize], Vcpu::Held, "vCPU {vcpu} is released but was not held");
                self.vcpus[vcpu as usize] = Vcpu::Running;
            }
            Step::Fallback(consumer, span) => {
                // It was queued with a record of its own, which is no longer due.
                let was_held = self.vcpus[consumer.vcpu as usize] == Vcpu::Held;
                let index = index_of(span);
                if was_held && self.due[index] > 0 && self.drained()[index] < self.due[index] {
                    self.due[index] -= 1;
                }
                self.resume(consumer.vcpu);
            }
            Step::Acknowledged(..) => assert!(self.guest.free, "acknowledged without the guest"),
            Step::Overflowed(_, times) => {
                self.overflowed += 1;
                assert_eq!(times, self.overflowed);
            }
            Step::Queued(_) | Step::Coalesced(_) | Step::Overdue(_) => {}
        }
    }

    fn resume(&mut self, vcpu: u32) {
        let vcpu = &mut self.vcpus[vcpu as usize];
        assert_ne!(*vcpu, Vcpu::Running, "a running vCPU got a response");
        *vcpu = Vcpu::Running;
    }

    fn check(&self) {
        let mut held: Vec<usize> = self.host.held().map(|vcpu| vcpu as usize).collect();
        held.sort_unstable();
        let expected: Vec<usize> = (0..VCPUS).filter(|vcpu| self.vcpus[*vcpu] == Vcpu::Held).collect();
        assert_eq!(held, expected, "held vCPUs");
        assert_eq!(self.host.overflowed(), self.overflowed);
        // The VMM may not have seen the acknowledgement yet, but it has marked the record as written.
        assert!(self.guest.free || self.host.written().is_some(), "a record that the VMM does not know of");
    }

    /// If the guest reads and acknowledges, all records that are due are written and all vCPUs run.
    fn everything_is_reported_to_a_guest_that_acknowledges(mut self) {
        for _ in 0..32 {
            self.tick();
            self.pass_time();
            if self.guest.block.is_some() {
                self.guest = Guest { block: None, has_read: false, free: true };
            }
        }
        self.check();
        assert_eq!(self.due, [0; BLOCKS], "records are missing");
        assert!(self.host.written().is_none() && self.host.queued() == 0, "records are stuck");
        assert!(self.vcpus.iter().all(|vcpu| *vcpu == Vcpu::Running), "a vCPU is stuck");
    }

    /// If the guest never acknowledges, all vCPUs still run after a bounded time.
    fn no_vcpu_waits_for_a_guest_that_does_not_acknowledge(mut self) {
        for _ in 0..4 {
            if let Some(deadline) = self.host.deadline_ns() {
                assert!(deadline <= self.now + TIMEOUT_NS, "a vCPU waits forever");
                self.now = deadline;
            }
            let free = self.guest.free;
            self.tick();
            assert!(free || self.vcpus.iter().all(|vcpu| *vcpu == Vcpu::Running), "a vCPU waits forever");
        }
        assert!(self.vcpus.iter().all(|vcpu| *vcpu == Vcpu::Running), "a vCPU waits forever");
    }
}

fn consumer(vcpu: usize, index: usize) -> Consumer {
    let span = span_of(index);
    Consumer {
        vcpu: vcpu as u32,
        state: Some(VcpuState::Aarch64(Consumption {
            level: ExceptionLevel::El0,
            access: Access::Read,
            far: None,
        })),
        error: MemoryError {
            span,
            gpa: span.gpa,
            kind: Kind::ActionRequired,
            severity: Severity::Recoverable,
            vcpu: Some(vcpu as u32),
            origin: Origin::Sigbus,
            time_ns: 0,
        },
    }
}

#[test]
fn the_guarantees_hold_in_every_reachable_state() {
    let start = Model::new();
    let mut seen = HashSet::from([start.clone()]);
    let mut frontier = VecDeque::from([start]);
    let mut transitions = 0_u64;
    while let Some(model) = frontier.pop_front() {
        model.clone().everything_is_reported_to_a_guest_that_acknowledges();
        model.clone().no_vcpu_waits_for_a_guest_that_does_not_acknowledge();
        for event in model.events() {
            transitions += 1;
            let next = model.after(event);
            if seen.insert(next.clone()) {
                frontier.push_back(next);
            }
        }
    }
    println!("{} states, {transitions} transitions", seen.len());
    assert!(seen.len() > 10_000, "the state space is smaller than intended");
}
