//! What the vCPUs are to do: run, pause or stop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::port::Injection;

/// What every vCPU of a machine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wish {
    /// Run the guest.
    Run = 0,
    /// Stay out of the guest until the wish changes.
    Pause = 1,
    /// Leave the run loop. Final: no other wish is heard after it.
    Stop = 2,
}

/// The wish, shared by the vCPUs and those who control them, and exceptions that wait for vCPUs.
///
/// A vCPU in the guest does not see a change: [`Vcpus`](crate::Vcpus) kicks it out after each.
#[derive(Debug, Default)]
pub struct Control {
    wish: AtomicU8,
    /// vCPUs that are waiting for the pause to end.
    parked: Mutex<usize>,
    changed: Condvar,
    /// Exceptions for vCPUs, by index, in their order.
    injections: Mutex<VecDeque<(u32, Injection)>>,
    /// Whether there are any: asked at every exit, without the lock.
    injections_wait: AtomicBool,
}

impl Control {
    /// The wish now. One atomic load: it is asked at every exit.
    #[must_use]
    pub fn wish(&self) -> Wish {
        match self.wish.load(Ordering::Acquire) {
            0 => Wish::Run,
            1 => Wish::Pause,
            _ => Wish::Stop,
        }
    }

    /// Changes the wish, unless it was [`Wish::Stop`] already.
    pub fn set(&self, wish: Wish) {
        // Under the lock, so that a vCPU which is about to wait can not miss the change.
        let _parked = self.lock();
        if self.wish() != Wish::Stop {
            self.wish.store(wish as u8, Ordering::Release);
        }
        self.changed.notify_all();
    }

    /// Leaves an exception for a vCPU. It takes it when it is entered next: kick it afterwards.
    pub fn inject(&self, vcpu: u32, injection: Injection) {
        let mut injections = self.injections.lock().unwrap_or_else(PoisonError::into_inner);
        injections.push_back((vcpu, injection));
        self.injections_wait.store(true, Ordering::Release);
    }

    /// Whether an exception waits for a vCPU.
    #[must_use]
    pub fn injections_wait(&self) -> bool {
        self.injections_wait.load(Ordering::Acquire)
    }

    /// The next exception for a vCPU.
    pub(crate) fn take_injection(&self, vcpu: u32) -> Option<Injection> {
        if !self.injections_wait() {
            return None;
        }
        let mut injections = self.injections.lock().unwrap_or_else(PoisonError::into_inner);
        let index = injections.iter().position(|(wanted, _)| *wanted == vcpu)?;
        let taken = injections.remove(index);
        self.injections_wait.store(!injections.is_empty(), Ordering::Release);
        taken.map(|(_, injection)| injection)
    }

    /// Waits out a pause.
    pub(crate) fn park(&self) {
        let mut parked = self.lock();
        *parked += 1;
        self.changed.notify_all();
        while self.wish() == Wish::Pause {
            parked = self.changed.wait(parked).unwrap_or_else(PoisonError::into_inner);
        }
        *parked -= 1;
    }

    /// Waits until `count` vCPUs are out of the guest, paused. False where they are not within `patience`.
    pub(crate) fn await_parked(&self, count: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut parked = self.lock();
        while *parked < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            parked = self.changed.wait_timeout(parked, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
