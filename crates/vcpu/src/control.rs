//! What the vCPUs are to do: run, pause or stop; and what waits for a single one: exceptions, and being held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::kick;
use crate::port::Injection;

/// What every vCPU of a machine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// Run the guest.
    Run = 0,
    /// Stay out of the guest until the wish changes.
    Pause = 1,
    /// Leave the run loop. Final: no other wish is heard after it.
    Stop = 2,
}

/// The wish, shared by the vCPUs and those who control them, and what waits for single vCPUs.
///
/// A vCPU in the guest does not see a change: [`Vcpus`](crate::Vcpus) kicks it out after each.
#[derive(Debug)]
pub struct Control {
    run_state: AtomicU8,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Whether anything waits for a single vCPU: asked at every exit, without the lock.
    attention: AtomicBool,
}

/// Room for exceptions that wait before memory is allocated for them: the way from an error to its exception has none.
const CAPACITY: usize = 64;

/// What the lock guards.
#[derive(Debug)]
struct Waiting {
    /// vCPUs that are waiting for the pause to end.
    parked: usize,
    /// Exceptions for vCPUs, by index, in their order.
    injections: VecDeque<(u32, Injection)>,
    /// vCPUs that are not to enter the guest, by index.
    held: Vec<u32>,
    /// The threads that run vCPUs, by index and the kernel's number.
    threads: Vec<(u32, i32)>,
}

impl Default for Control {
    /// vCPUs run, and nothing waits.
    fn default() -> Self {
        Control {
            run_state: AtomicU8::new(RunState::Run as u8),
            waiting: Mutex::new(Waiting {
                parked: 0,
                injections: VecDeque::with_capacity(CAPACITY),
                held: Vec::with_capacity(CAPACITY),
                threads: Vec::new(),
            }),
            changed: Condvar::new(),
            attention: AtomicBool::new(false),
        }
    }
}

impl Control {
    /// The wish now. One atomic load: it is asked at every exit.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        match self.run_state.load(Ordering::Acquire) {
            0 => RunState::Run,
            1 => RunState::Pause,
            _ => RunState::Stop,
        }
    }

    /// Changes the wish, unless it was [`RunState::Stop`] already.
    pub fn set(&self, state: RunState) {
        // Under the lock, so that a vCPU which is about to wait cannot miss the change.
        let _waiting = self.lock();
        if self.run_state() != RunState::Stop {
            self.run_state.store(state as u8, Ordering::Release);
        }
        self.changed.notify_all();
    }

    /// Leaves an exception for a vCPU, which is no longer held. It takes it when it is entered next, which is soon: another's is
    /// taken out of the guest for it.
    pub fn inject(&self, vcpu: u32, injection: Injection) {
        self.change(|waiting| {
            waiting.injections.push_back((vcpu, injection));
            waiting.held.retain(|held| *held != vcpu);
            let thread = waiting.threads.iter().find(|(index, _)| *index == vcpu).map(|(_, thread)| *thread);
            if let Some(thread) = thread.filter(|thread| *thread != kick::this_thread()) {
                kick::kick(thread);
            }
        });
    }

    /// Whether an exception waits for the vCPU.
    #[must_use]
    pub fn has_exception(&self, vcpu: u32) -> bool {
        self.has_attention() && self.lock().injections.iter().any(|(wanted, _)| *wanted == vcpu)
    }

    /// Takes vCPUs out of the guest that exceptions wait for: one that could not be taken at once is offered again.
    pub fn kick_waiting(&self) {
        if !self.has_attention() {
            return;
        }
        let waiting = self.lock();
        let is_wanted = |vcpu: &u32| waiting.injections.iter().any(|(wanted, _)| wanted == vcpu);
        waiting
            .threads
            .iter()
            .filter(|(vcpu, _)| is_wanted(vcpu))
            .for_each(|(_, thread)| kick::kick(*thread));
    }

    /// This thread runs a vCPU from now on.
    pub(crate) fn enter_thread(&self, vcpu: u32) {
        self.lock().threads.push((vcpu, kick::this_thread()));
    }

    /// It no longer does.
    pub(crate) fn leave_thread(&self, vcpu: u32) {
        self.lock().threads.retain(|(index, _)| *index != vcpu);
    }

    /// Keeps a vCPU out of the guest until it is released or has an exception to take. To be called by its own thread,
    /// or while it is out of the guest otherwise.
    pub fn hold(&self, vcpu: u32) {
        self.change(|waiting| {
            if !waiting.held.contains(&vcpu) {
                waiting.held.push(vcpu);
            }
        });
    }

    /// Lets a held vCPU go on.
    pub fn release(&self, vcpu: u32) {
        self.change(|waiting| waiting.held.retain(|held| *held != vcpu));
    }

    /// Whether an exception waits for a vCPU, or one is held.
    #[must_use]
    pub fn has_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// Whether the vCPU is held.
    pub(crate) fn is_held(&self, vcpu: u32) -> bool {
        self.has_attention() && self.lock().held.contains(&vcpu)
    }

    /// Waits until the vCPU is no longer held or the wish is another than to run, for so long at most.
    pub(crate) fn await_release(&self, vcpu: u32, patience: Duration) {
        let waiting = self.lock();
        if self.run_state() == RunState::Run && waiting.held.contains(&vcpu) {
            // Woken for nothing, or too late: whoever called this looks again.
            drop(self.changed.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The next exception for a vCPU.
    pub(crate) fn take_injection(&self, vcpu: u32) -> Option<Injection> {
        if !self.has_attention() {
            return None;
        }
        let mut taken = None;
        self.change(|waiting| {
            let index = waiting.injections.iter().position(|(wanted, _)| *wanted == vcpu);
            taken = index.and_then(|index| waiting.injections.remove(index));
        });
        taken.map(|(_, injection)| injection)
    }

    /// Gives an exception back that the vCPU cannot take yet.
    pub(crate) fn put_back(&self, vcpu: u32, injection: Injection) {
        self.change(|waiting| waiting.injections.push_front((vcpu, injection)));
    }

    /// Waits out a pause.
    pub(crate) fn park(&self) {
        let mut waiting = self.lock();
        waiting.parked += 1;
        self.changed.notify_all();
        while self.run_state() == RunState::Pause {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.parked -= 1;
    }

    /// Waits until `count` vCPUs are out of the guest, paused. False where they are not within `patience`, or are no longer to be.
    pub(crate) fn await_parked(&self, count: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut waiting = self.lock();
        while waiting.parked < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.run_state() != RunState::Pause {
                return false;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Changes what waits for single vCPUs, and wakes them.
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.lock();
        change(&mut waiting);
        self.attention.store(!waiting.injections.is_empty() || !waiting.held.is_empty(), Ordering::Release);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
