//! The requested run state of the vCPUs, and what is pending for a single one: exceptions, and being held outside the guest.

mod registers;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kick;
use crate::port::Injection;
use registers::{ReadRegisters, RequestedRegisters};

/// The run state that is requested of every vCPU of a machine. Exhaustive: a vCPU acts on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// Run the guest.
    Run = 0,
    /// Stay outside the guest until another state is requested.
    Pause = 1,
    /// Leave the run loop. Final: later requests have no effect.
    Stop = 2,
}

/// The requested run state, and what is pending for single vCPUs. Shared by the vCPU threads and those that control them.
///
/// A vCPU in the guest does not see a change of the run state: [`Vcpus`](crate::Vcpus) kicks it after each.
#[derive(Debug)]
pub struct Control {
    run_state: AtomicU8,
    pending: Mutex<Pending>,
    changed: Condvar,
    /// Whether an exception is pending for a vCPU, or it is held. Read at every entry, without the lock: what is pending for one vCPU
    /// costs the others nothing.
    attention: Attention,
}

/// Preallocated entries for pending exceptions and for held vCPUs: between an error and its exception nothing is allocated.
const PENDING_CAPACITY: usize = 64;
/// The same for each vCPU: a broadcast machine check is pending for all of them, and more than one broadcast may be.
const PENDING_CAPACITY_PER_VCPU: usize = 4;

/// A bit for each vCPU, of 4096. vCPUs whose indices differ by a multiple of that share one, and take the lock for each other.
#[derive(Debug)]
struct Attention([AtomicU64; 64]);

impl Attention {
    const fn new() -> Self {
        Attention([const { AtomicU64::new(0) }; 64])
    }

    /// The number of a vCPU's bit.
    const fn bit(vcpu: u32) -> u32 {
        vcpu % (64 * u64::BITS)
    }

    fn word(&self, vcpu: u32) -> &AtomicU64 {
        &self.0[(Self::bit(vcpu) / u64::BITS) as usize]
    }

    fn is_set(&self, vcpu: u32) -> bool {
        self.word(vcpu).load(Ordering::Acquire) >> (vcpu % u64::BITS) & 1 != 0
    }

    fn is_any_set(&self) -> bool {
        self.0.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    fn set(&self, vcpu: u32, is_set: bool) {
        let mask = 1 << (vcpu % u64::BITS);
        match is_set {
            true => self.word(vcpu).fetch_or(mask, Ordering::Release),
            false => self.word(vcpu).fetch_and(!mask, Ordering::Release),
        };
    }
}

/// The result of waiting for vCPUs to pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// All vCPUs are paused.
    All,
    /// The timeout has elapsed.
    Missing,
    /// Another state was requested meanwhile.
    OtherState,
}

/// What the lock guards.
#[derive(Debug)]
struct Pending {
    /// The number of vCPUs that wait for the end of a pause.
    parked: usize,
    /// The number of pauses of which guests are notified.
    notified_pauses: u64,
    /// Exceptions, with the index of their vCPU, in the order of injection.
    injections: VecDeque<(u32, Injection)>,
    /// The vCPUs that must not enter the guest, by index.
    held: Vec<u32>,
    /// The threads that run vCPUs: index of the vCPU and thread id.
    threads: Vec<(u32, i32)>,
    /// The registers that were requested of paused vCPUs. Empty if none are.
    registers: Vec<RequestedRegisters>,
}

impl Default for Control {
    /// vCPUs run, and nothing is pending.
    fn default() -> Self {
        Control {
            run_state: AtomicU8::new(RunState::Run as u8),
            pending: Mutex::new(Pending {
                parked: 0,
                notified_pauses: 0,
                injections: VecDeque::with_capacity(PENDING_CAPACITY),
                held: Vec::with_capacity(PENDING_CAPACITY),
                threads: Vec::new(),
                registers: Vec::new(),
            }),
            changed: Condvar::new(),
            attention: Attention::new(),
        }
    }
}

impl Control {
    /// Allocates memory for what may be pending for that number of vCPUs. [`Vcpus::start`](crate::Vcpus::start) does it.
    pub fn reserve(&self, vcpus: usize) {
        let mut pending = self.lock();
        pending.injections.reserve(PENDING_CAPACITY_PER_VCPU * vcpus);
        pending.held.reserve(vcpus);
        pending.threads.reserve(vcpus);
    }

    /// The requested run state. One atomic load, since it is read at every exit.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        match self.run_state.load(Ordering::Acquire) {
            0 => RunState::Run,
            1 => RunState::Pause,
            _ => RunState::Stop,
        }
    }

    /// Requests a run state, unless [`RunState::Stop`] was requested before.
    pub fn set(&self, state: RunState) {
        // Under the lock, so that a vCPU that is about to wait cannot miss the change.
        self.set_locked(&self.lock(), state);
    }

    /// Requests a pause of which the guest is notified when it continues ([`VcpuPort::continue_after_pause`]).
    ///
    /// [`VcpuPort::continue_after_pause`]: crate::VcpuPort::continue_after_pause
    pub(crate) fn pause_and_notify(&self) {
        let mut pending = self.lock();
        pending.notified_pauses += 1;
        self.set_locked(&pending, RunState::Pause);
    }

    fn set_locked(&self, _: &Pending, state: RunState) {
        if self.run_state() != RunState::Stop {
            self.run_state.store(state as u8, Ordering::Release);
        }
        self.changed.notify_all();
    }

    /// Queues an exception for a vCPU and releases it if it is held. The vCPU takes it at its next entry; unless the caller runs on its
    /// thread, it is kicked out of the guest for that.
    pub fn inject(&self, vcpu: u32, injection: Injection) {
        self.change(vcpu, |pending| {
            pending.injections.push_back((vcpu, injection));
            pending.held.retain(|held| *held != vcpu);
            let thread = pending.threads.iter().find(|(index, _)| *index == vcpu).map(|(_, thread)| *thread);
            if let Some(thread) = thread.filter(|thread| *thread != kick::this_thread()) {
                kick::kick(thread);
            }
            // It may have been held.
            self.changed.notify_all();
        });
    }

    /// Whether an exception is pending for the vCPU.
    #[must_use]
    pub fn has_exception(&self, vcpu: u32) -> bool {
        self.attention.is_set(vcpu) && self.lock().injections.iter().any(|(wanted, _)| *wanted == vcpu)
    }

    /// Kicks the vCPUs for which exceptions are pending, so that a deferred one is injected again.
    pub fn kick_waiting(&self) {
        if !self.has_pending() {
            return;
        }
        let pending = self.lock();
        let is_wanted = |vcpu: &u32| pending.injections.iter().any(|(wanted, _)| wanted == vcpu);
        pending
            .threads
            .iter()
            .filter(|(vcpu, _)| is_wanted(vcpu))
            .for_each(|(_, thread)| kick::kick(*thread));
    }

    /// Kicks every vCPU, so that it reads its control again.
    pub(crate) fn kick_all(&self) {
        // Under the lock: no thread ends meanwhile, so no id is that of another thread by now.
        self.lock().threads.iter().for_each(|(_, thread)| kick::kick(*thread));
    }

    /// Registers this thread as that of a vCPU, until the result is dropped. A vCPU that is not registered yet reads its control before it
    /// enters the guest, so it needs no kick.
    pub(crate) fn enter_thread(&self, vcpu: u32) -> impl Drop + '_ {
        struct Entered<'a>(&'a Control, u32);
        impl Drop for Entered<'_> {
            fn drop(&mut self) {
                let Entered(control, vcpu) = self;
                control.lock().threads.retain(|(index, _)| index != vcpu);
                control.changed.notify_all();
            }
        }
        self.lock().threads.push((vcpu, kick::this_thread()));
        Entered(self, vcpu)
    }

    /// Holds a vCPU outside the guest until it is released or an exception is injected into it. Called on its own thread, or while it is
    /// outside the guest for another reason.
    pub fn hold(&self, vcpu: u32) {
        self.change(vcpu, |pending| {
            if !pending.held.contains(&vcpu) {
                pending.held.push(vcpu);
            }
        });
    }

    /// Releases a held vCPU.
    pub fn release(&self, vcpu: u32) {
        self.change(vcpu, |pending| {
            pending.held.retain(|held| *held != vcpu);
            self.changed.notify_all();
        });
    }

    /// Whether an exception is pending for any vCPU, or any vCPU is held.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.attention.is_any_set()
    }

    /// Whether the vCPU is held.
    pub(crate) fn is_held(&self, vcpu: u32) -> bool {
        self.attention.is_set(vcpu) && self.lock().held.contains(&vcpu)
    }

    /// Waits until the vCPU is released, another state than [`RunState::Run`] is requested, or the timeout has elapsed.
    pub(crate) fn await_release(&self, vcpu: u32, timeout: Duration) {
        let pending = self.lock();
        if self.run_state() == RunState::Run && pending.held.contains(&vcpu) {
            // The caller checks again, so a spurious wake does no harm.
            drop(self.changed.wait_timeout(pending, timeout).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Removes the next exception for a vCPU.
    pub(crate) fn take_injection(&self, vcpu: u32) -> Option<Injection> {
        if !self.attention.is_set(vcpu) {
            return None;
        }
        let mut taken = None;
        self.change(vcpu, |pending| {
            let index = pending.injections.iter().position(|(wanted, _)| *wanted == vcpu);
            taken = index.and_then(|index| pending.injections.remove(index));
        });
        taken.map(|(_, injection)| injection)
    }

    /// Returns an exception that the vCPU cannot take yet to the front of the queue.
    pub(crate) fn put_back(&self, vcpu: u32, injection: Injection) {
        self.change(vcpu, |pending| pending.injections.push_front((vcpu, injection)));
    }

    /// Waits until the requested state is no longer [`RunState::Pause`], and reads the vCPU's registers when they are requested. Returns
    /// the number of pauses so far of which guests are notified.
    pub(crate) fn park(&self, vcpu: u32, read_registers: &mut dyn FnMut() -> ReadRegisters) -> u64 {
        let mut pending = self.lock();
        pending.parked += 1;
        self.changed.notify_all();
        while self.run_state() == RunState::Pause {
            pending = match pending.are_registers_requested(vcpu) {
                true => self.deliver_registers(pending, vcpu, read_registers),
                false => self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
        pending.parked -= 1;
        pending.notified_pauses
    }

    /// Waits until `count` vCPUs are paused outside the guest.
    pub(crate) fn await_parked(&self, count: usize, timeout: Duration) -> Parked {
        let wait = |pending: &Pending| pending.parked < count && self.run_state() == RunState::Pause;
        let pending = self.wait_while(wait, timeout);
        match self.run_state() {
            _ if pending.parked >= count => Parked::All,
            RunState::Pause => Parked::Missing,
            RunState::Run | RunState::Stop => Parked::OtherState,
        }
    }

    /// Waits until the vCPUs have left their run loops. Returns those that have not when the timeout has elapsed.
    pub(crate) fn await_left(&self, timeout: Duration) -> Vec<u32> {
        let pending = self.wait_while(|pending| !pending.threads.is_empty(), timeout);
        pending.threads.iter().map(|(vcpu, _)| *vcpu).collect()
    }

    /// Waits while a condition holds, but no longer than the timeout.
    fn wait_while(&self, condition: impl Fn(&Pending) -> bool, timeout: Duration) -> MutexGuard<'_, Pending> {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, |pending| condition(pending));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Changes what is pending for a vCPU.
    fn change(&self, vcpu: u32, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.lock();
        change(&mut pending);
        let shares_bit = |other: &u32| Attention::bit(*other) == Attention::bit(vcpu);
        let is_wanted = pending.injections.iter().any(|(wanted, _)| shares_bit(wanted));
        self.attention.set(vcpu, is_wanted || pending.held.iter().any(shares_bit));
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    /// What is pending for one vCPU does not make another take the lock, which would wait here for ever.
    #[test]
    fn a_held_vcpu_costs_the_others_nothing() {
        let control = Arc::new(Control::default());
        control.hold(1);
        control.inject(2, Injection::Nmi);
        let lock = control.lock();
        let (sender, receiver) = mpsc::channel();
        let other = Arc::clone(&control);
        thread::spawn(move || {
            let free = !other.is_held(0) && other.take_injection(0).is_none() && !other.has_exception(0);
            sender.send(free)
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(true));
        drop(lock);
        assert!(control.is_held(1) && control.has_exception(2) && control.has_pending());
        control.release(1);
        assert_eq!((control.is_held(1), control.take_injection(2)), (false, Some(Injection::Nmi)));
        assert!(!control.has_pending());
    }

    #[test]
    fn vcpus_that_share_a_bit_keep_what_is_pending() {
        let control = Control::default();
        let (one, other) = (5, 5 + 64 * u64::BITS);
        control.hold(one);
        control.inject(other, Injection::Nmi);
        control.release(one);
        assert!(!control.is_held(one) && control.has_exception(other));
        assert_eq!(control.take_injection(one), None);
        assert_eq!(control.take_injection(other), Some(Injection::Nmi));
        assert!(!control.has_pending());
    }

    /// A machine check that is broadcast to as many vCPUs as KVM supports allocates nothing.
    #[test]
    fn memory_is_reserved_for_broadcasts() {
        let control = Control::default();
        control.reserve(4096);
        let capacity = control.lock().injections.capacity();
        for _ in 0..PENDING_CAPACITY_PER_VCPU {
            (0..4096).for_each(|vcpu| control.inject(vcpu, Injection::Nmi));
        }
        assert_eq!(control.lock().injections.capacity(), capacity);
    }
}
