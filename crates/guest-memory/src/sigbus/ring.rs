//! A bounded queue of faults that a signal handler can push to.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use super::{Action, Fault};

/// A lock-free queue of faults, first in, first out: handlers on several threads may push, one thread pops.
pub(super) struct Ring<const LEN: usize> {
    slots: [Slot; LEN],
    /// Faults that were ever pushed.
    pushed: AtomicUsize,
    /// Faults that were ever popped.
    popped: AtomicUsize,
}

/// A slot. In round n it is free at sequence number 2n and full at 2n + 1.
struct Slot {
    sequence: AtomicUsize,
    hva: AtomicU64,
    log2_len: AtomicU8,
    is_required: AtomicU8,
}

impl Slot {
    const fn free() -> Self {
        Slot {
            sequence: AtomicUsize::new(0),
            hva: AtomicU64::new(0),
            log2_len: AtomicU8::new(0),
            is_required: AtomicU8::new(0),
        }
    }
}

impl<const LEN: usize> Ring<LEN> {
    /// An empty ring.
    pub(super) const fn new() -> Self {
        Ring {
            slots: [const { Slot::free() }; LEN],
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
        }
    }

    /// Adds a fault. Returns false if the queue is full. Async-signal-safe.
    pub(super) fn push(&self, fault: Fault) -> bool {
        let mut position = self.pushed.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[position % LEN];
            let free = 2 * (position / LEN);
            let sequence = slot.sequence.load(Ordering::Acquire);
            if sequence < free {
                return false;
            }
            if sequence > free {
                // Another handler has pushed here.
                position = self.pushed.load(Ordering::Relaxed);
                continue;
            }
            let next = position + 1;
            match self.pushed.compare_exchange_weak(position, next, Ordering::Relaxed, Ordering::Relaxed) {
                Err(now) => position = now,
                Ok(_) => {
                    slot.hva.store(fault.hva, Ordering::Relaxed);
                    slot.log2_len.store(fault.log2_len, Ordering::Relaxed);
                    slot.is_required.store((fault.action == Action::Required).into(), Ordering::Relaxed);
                    slot.sequence.store(free + 1, Ordering::Release);
                    return true;
                }
            }
        }
    }

    /// Removes the oldest fault. Called by one thread only, which a handler may interrupt.
    pub(super) fn pop(&self) -> Option<Fault> {
        let position = self.popped.load(Ordering::Relaxed);
        let slot = &self.slots[position % LEN];
        let full = 2 * (position / LEN) + 1;
        if slot.sequence.load(Ordering::Acquire) != full {
            return None;
        }
        let is_required = slot.is_required.load(Ordering::Relaxed) != 0;
        let fault = Fault {
            hva: slot.hva.load(Ordering::Relaxed),
            log2_len: slot.log2_len.load(Ordering::Relaxed),
            action: if is_required { Action::Required } else { Action::Optional },
        };
        self.popped.store(position + 1, Ordering::Relaxed);
        slot.sequence.store(full + 1, Ordering::Release);
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn fault(hva: u64) -> Fault {
        Fault { hva, log2_len: 12, action: Action::Optional }
    }

    #[test]
    fn faults_keep_their_order_and_a_full_queue_refuses() {
        let ring = Ring::<4>::new();
        for round in 0..10 {
            assert_eq!(ring.pop(), None);
            for hva in 0..4 {
                assert!(ring.push(fault(round + hva)));
            }
            assert!(!ring.push(fault(99)));
            assert_eq!(ring.pop(), Some(fault(round)));
            assert!(ring.push(fault(98)), "a slot is free again");
            for hva in 1..4 {
                assert_eq!(ring.pop(), Some(fault(round + hva)));
            }
            assert_eq!(ring.pop(), Some(fault(98)));
        }
    }

    #[test]
    fn no_fault_is_lost_between_threads() {
        const EACH: u64 = 20_000;
        let ring = Ring::<8>::new();
        let done = AtomicBool::new(false);
        let sum = thread::scope(|scope| {
            let popper = scope.spawn(|| {
                let mut sum = 0;
                loop {
                    let was_done = done.load(Ordering::SeqCst);
                    match ring.pop() {
                        Some(fault) => sum += fault.hva,
                        None if was_done => return sum,
                        None => thread::yield_now(),
                    }
                }
            });
            let pushers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for hva in 1..=EACH {
                            while !ring.push(fault(hva)) {
                                thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            pushers.into_iter().for_each(|pusher| pusher.join().expect("no panic"));
            done.store(true, Ordering::SeqCst);
            popper.join().expect("no panic")
        });
        assert_eq!(sum, 3 * EACH * (EACH + 1) / 2);
    }
}
