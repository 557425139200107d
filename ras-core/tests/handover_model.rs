//! Every order of what the VMM and its guest can do with one status block, exhausted.
//!
//! The world is a block with room for two losses, two vCPUs, a guest that reads and acknowledges or does not, a clock that can reach a
//! deadline, a driver whose start may be seen, and resets. From every state that can be reached it is shown that
//! - no record is overwritten before its acknowledgement;
//! - as many records are written of a page as reports of it were accepted: none is lost, none is told twice;
//! - what was coalesced is told by a record that is written or waits;
//! - every vCPU that consumed something goes on: with a guest that acknowledges and with one that never does;
//! - what found no room was counted.

use std::collections::{HashSet, VecDeque};

use ras_core::handover::{Consumer, Handover, PendingError, Step};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Span};

const VCPUS: usize = 2;
/// Places of 64 KiB, what one record tells of. The last four can also be lost together.
const PLACES: usize = 7;
const PATIENCE: u64 = 10;
const REPORTS: u8 = 4;
const RESETS: u8 = 1;

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    host: Handover<2>,
    now: u64,
    guest: Guest,
    /// Records that are owed for each place: accepted and not written.
    owed: [u8; PLACES],
    vcpus: [Vcpu; VCPUS],
    overflowed: u64,
    reports_left: u8,
    resets_left: u8,
    driver_marked: bool,
}

/// What lies in the guest's memory, and what its driver did about it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Guest {
    /// The record in the block: its place, and whether someone consumed it.
    block: Option<(usize, bool)>,
    has_read: bool,
    /// Bit 0 of the acknowledge register.
    free: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Vcpu {
    Runs,
    /// It consumed something and was not answered yet.
    Asks,
    Held,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A loss was found.
    Found(Span, View),
    /// A vCPU consumed a place.
    Consumed(usize, usize, View),
    Look,
    Deadline,
    GuestReads,
    GuestAcknowledges,
    DriverSeen,
    Reset {
        still_poisoned: bool,
    },
}

/// What the VMM saw of the acknowledge register: who looks while another writes is a matter of luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// What is there now.
    Now,
    /// Nothing, although the guest has acknowledged.
    TooEarly,
    /// That the block was free, before the record was written that is in it now.
    BeforeTheRecord,
}

fn place(index: usize) -> Span {
    Span::around((index as u64) << 16, 16)
}

/// The last four places, lost together: four records.
fn wide() -> Span {
    Span { gpa: 4 << 16, log2_len: 18 }
}

fn places(span: Span) -> impl Iterator<Item = usize> {
    // The wide loss is aligned to its size: it starts at 4 x 64 KiB, which stands for the index 3.
    let first = if span == wide() { 3 } else { index_of(span) };
    first..first + (1 << (span.log2_len - 16))
}

fn index_of(span: Span) -> usize {
    let index = (span.gpa >> 16) as usize;
    if index >= 4 { index - 1 } else { index }
}

fn span_of(index: usize) -> Span {
    place(if index >= 3 { index + 1 } else { index })
}

impl World {
    fn new() -> Self {
        World {
            host: Handover::new(PATIENCE),
            now: 0,
            guest: Guest { free: true, ..Guest::default() },
            owed: [0; PLACES],
            vcpus: [Vcpu::Runs; VCPUS],
            overflowed: 0,
            reports_left: REPORTS,
            resets_left: RESETS,
            driver_marked: false,
        }
    }

    fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Look];
        let mut views = vec![View::Now];
        if self.guest.free {
            views.push(View::TooEarly);
        } else {
            views.push(View::BeforeTheRecord);
        }
        if self.reports_left > 0 {
            for &sees in &views {
                events.extend((0..3).map(|index| Event::Found(span_of(index), sees)));
                events.push(Event::Found(wide(), sees));
                for vcpu in 0..VCPUS {
                    if self.vcpus[vcpu] == Vcpu::Runs {
                        // One place that is also found alone, and the first of the wide loss.
                        events.extend([1, 3].map(|index| Event::Consumed(vcpu, index, sees)));
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
        if self.resets_left > 0 {
            events.extend([Event::Reset { still_poisoned: true }, Event::Reset { still_poisoned: false }]);
        }
        events
    }

    fn after(&self, event: Event) -> World {
        let mut world = self.clone();
        match event {
            Event::Found(span, sees) => {
                world.reports_left -= 1;
                world.report(PendingError { span, consumer: None }, sees);
            }
            Event::Consumed(vcpu, index, sees) => {
                world.reports_left -= 1;
                world.vcpus[vcpu] = Vcpu::Asks;
                let coalesced = world.report(
                    PendingError { span: span_of(index), consumer: Some(consumer(vcpu, index)) },
                    sees,
                );
                // Not held and not told: it is entered again, and may ask again.
                if world.vcpus[vcpu] == Vcpu::Asks {
                    assert!(coalesced, "vCPU {vcpu} was not answered");
                    world.vcpus[vcpu] = Vcpu::Runs;
                }
            }
            Event::Look => world.tick(),
            Event::Deadline => {
                world.now = world.host.deadline_ns().unwrap();
                world.tick();
            }
            Event::GuestReads => world.guest.has_read = true,
            Event::GuestAcknowledges => {
                world.guest = Guest { block: None, has_read: false, free: true };
            }
            Event::DriverSeen => {
                world.driver_marked = true;
                world.host.driver_up(world.now);
            }
            Event::Reset { still_poisoned } => world.reset(still_poisoned),
        }
        world.check();
        world.pass_time();
        world
    }

    /// What is looked at later than something was written is later.
    fn pass_time(&mut self) {
        if let Some(record) = self.host.written() {
            self.now = self.now.max(record.written_ns + 1);
        }
    }

    /// Whether it was coalesced.
    fn report(&mut self, loss: PendingError, sees: View) -> bool {
        let mut steps = Vec::new();
        let (free, then) = match sees {
            View::Now => (self.guest.free, self.now),
            View::TooEarly => (false, self.now),
            View::BeforeTheRecord => (true, self.host.written().map_or(self.now, |record| record.written_ns)),
        };
        self.host.report(loss, free, then, &mut |step| steps.push(step));
        let coalesced = steps.contains(&Step::Coalesced(loss.span));
        let overflowed =
            steps.iter().any(|step| matches!(step, Step::Overflowed(span, _) if *span == loss.span));
        let instead = steps
            .iter()
            .any(|step| matches!(step, Step::Fallback(consumer, _) if Some(*consumer) == loss.consumer));
        if !coalesced && !overflowed && !instead {
            // What the VMM knows to be unread at this moment; a look at the register comes first, and may free the block.
            let unread =
                self.guest.block.filter(|_| !steps.iter().any(|step| matches!(step, Step::Acknowledged(..))));
            let told = |index| self.owed[index] > 0 || unread.is_some_and(|(told, _)| told == index);
            assert!(!places(loss.span).all(told), "{loss:?} was told of already");
            places(loss.span).for_each(|index| self.owed[index] += 1);
        }
        steps.into_iter().for_each(|step| self.take(step));
        if coalesced {
            for index in places(loss.span) {
                let told = self.owed[index] > 0 || self.guest.block.is_some_and(|(told, _)| told == index);
                // A guest may have acknowledged what the VMM did not look at yet; it was told then.
                assert!(told || self.guest.free, "{loss:?} was coalesced into nothing");
            }
        }
        coalesced
    }

    fn tick(&mut self) {
        let mut steps = Vec::new();
        self.host.tick(self.guest.free, self.now, &mut |step| steps.push(step));
        steps.into_iter().for_each(|step| self.take(step));
    }

    fn reset(&mut self, still_poisoned: bool) {
        self.resets_left -= 1;
        self.driver_marked = false;
        let unread = self.host.written().filter(|record| record.consumer.is_none());
        let consumed_waits: Vec<usize> = self.host.held().map(|vcpu| vcpu as usize).collect();
        assert!(consumed_waits.iter().all(|vcpu| self.vcpus[*vcpu] == Vcpu::Held));
        let (before, room) = (self.owed, self.host.overflowed());
        let mut overflowed = Vec::new();
        self.host.reset(still_poisoned, &mut |step| match step {
            Step::Overflowed(span, _) => overflowed.push(index_of(span)),
            step => panic!("a reset needs no {step:?}"),
        });
        self.guest = Guest { block: None, has_read: false, free: true };
        self.vcpus = [Vcpu::Runs; VCPUS];
        self.overflowed += self.host.overflowed() - room;
        assert!(self.host.written().is_none(), "a reset leaves a record behind");
        // What is owed from now on is what drains; what nobody consumed must be among it, all of it.
        self.owed = self.drained();
        if !still_poisoned {
            assert_eq!(self.owed, [0; PLACES]);
        } else if let Some(record) = unread {
            let index = index_of(record.span);
            assert!(self.owed[index] > 0 || overflowed.contains(&index), "an unread record was forgotten");
            let mut first = None;
            self.host.clone().tick(true, self.now + 1, &mut |step| match step {
                Step::Write(record) if first.is_none() => first = Some(record.span),
                _ => {}
            });
            assert!(
                first == Some(record.span) || overflowed.contains(&index),
                "an unread record lost its turn"
            );
        }
        assert!((0..PLACES).all(|index| self.owed[index] <= before[index] + 1), "a reset owes nothing new");
    }

    /// How often a guest that acknowledges everything would be told of each place from here on.
    fn drained(&self) -> [u8; PLACES] {
        let mut host = self.host.clone();
        let mut told = [0; PLACES];
        for later in 1..64 {
            host.tick(true, self.now + later, &mut |step| {
                if let Step::Write(record) = step {
                    told[index_of(record.span)] += 1;
                }
            });
        }
        told
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(record) => {
                assert!(self.guest.free, "{record:?} overwrites what the guest did not acknowledge");
                let index = index_of(record.span);
                assert!(self.owed[index] > 0, "{record:?} is told twice");
                self.owed[index] -= 1;
                self.guest =
                    Guest { block: Some((index, record.consumer.is_some())), has_read: false, free: false };
                if let Some(consumer) = record.consumer {
                    self.answer(consumer.vcpu);
                }
            }
            Step::Hold(vcpu) => {
                assert_eq!(self.vcpus[vcpu as usize], Vcpu::Asks, "vCPU {vcpu} is held out of the blue");
                let told = self.host.written().and_then(|record| record.consumer);
                assert!(told.is_none_or(|told| told.vcpu != vcpu), "who shall acknowledge is held");
                self.vcpus[vcpu as usize] = Vcpu::Held;
            }
            Step::Release(vcpu) => {
                assert_eq!(self.vcpus[vcpu as usize], Vcpu::Held, "vCPU {vcpu} is released and was not held");
                self.vcpus[vcpu as usize] = Vcpu::Runs;
            }
            Step::Fallback(consumer, span) => {
                // It waited in the queue with a record of its own, which is no longer needed.
                let waited = self.vcpus[consumer.vcpu as usize] == Vcpu::Held;
                let index = index_of(span);
                if waited && self.owed[index] > 0 && self.drained()[index] < self.owed[index] {
                    self.owed[index] -= 1;
                }
                self.answer(consumer.vcpu);
            }
            Step::Acknowledged(..) => assert!(self.guest.free, "nobody acknowledged that"),
            Step::Overflowed(_, times) => {
                self.overflowed += 1;
                assert_eq!(times, self.overflowed);
            }
            Step::Queued(_) | Step::Coalesced(_) | Step::Overdue(_) => {}
        }
    }

    fn answer(&mut self, vcpu: u32) {
        let vcpu = &mut self.vcpus[vcpu as usize];
        assert_ne!(*vcpu, Vcpu::Runs, "a vCPU that runs is answered");
        *vcpu = Vcpu::Runs;
    }

    fn check(&self) {
        let mut held: Vec<usize> = self.host.held().map(|vcpu| vcpu as usize).collect();
        held.sort_unstable();
        let expected: Vec<usize> = (0..VCPUS).filter(|vcpu| self.vcpus[*vcpu] == Vcpu::Held).collect();
        assert_eq!(held, expected, "who is held");
        assert_eq!(self.host.overflowed(), self.overflowed);
        // The VMM may not know yet that its record was acknowledged; it knows when there is one.
        assert!(self.guest.free || self.host.written().is_some(), "a record without an owner");
    }

    /// With a guest that reads and acknowledges, everything owed is told and everybody goes on.
    fn a_willing_guest_learns_everything(mut self) {
        for _ in 0..32 {
            self.tick();
            self.pass_time();
            if self.guest.block.is_some() {
                self.guest = Guest { block: None, has_read: false, free: true };
            }
        }
        self.check();
        assert_eq!(self.owed, [0; PLACES], "records were lost");
        assert!(self.host.written().is_none() && self.host.queued() == 0, "records got stuck");
        assert!(self.vcpus.iter().all(|vcpu| *vcpu == Vcpu::Runs), "a vCPU got stuck");
    }

    /// With one that never does, every vCPU still goes on, in bounded time.
    fn nobody_waits_for_a_silent_guest(mut self) {
        for _ in 0..4 {
            if let Some(deadline) = self.host.deadline_ns() {
                assert!(deadline <= self.now + PATIENCE, "a vCPU waits for ever");
                self.now = deadline;
            }
            let free = self.guest.free;
            self.tick();
            assert!(free || self.vcpus.iter().all(|vcpu| *vcpu == Vcpu::Runs), "a vCPU waits for ever");
        }
        assert!(self.vcpus.iter().all(|vcpu| *vcpu == Vcpu::Runs), "a vCPU waits for ever");
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
            vcpu: Some(vcpu as u32),
            origin: Origin::Sigbus,
            time_ns: 0,
        },
    }
}

#[test]
fn every_order_of_steps_keeps_the_promises() {
    let start = World::new();
    let mut seen = HashSet::from([start.clone()]);
    let mut frontier = VecDeque::from([start]);
    let mut transitions = 0_u64;
    while let Some(world) = frontier.pop_front() {
        world.clone().a_willing_guest_learns_everything();
        world.clone().nobody_waits_for_a_silent_guest();
        for event in world.events() {
            transitions += 1;
            let next = world.after(event);
            if seen.insert(next.clone()) {
                frontier.push_back(next);
            }
        }
    }
    println!("{} states, {transitions} transitions", seen.len());
    assert!(seen.len() > 10_000, "the world is smaller than it was built to be");
}
