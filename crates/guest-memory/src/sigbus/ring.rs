//! A ring that a signal's handler can put faults into.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use super::{Action, Fault};

/// Faults in their order. Nobody waits for anybody: handlers on several threads may put, one thread takes.
pub(super) struct Ring<const LEN: usize> {
    slots: [Slot; LEN],
    /// Faults that were ever put.
    put: AtomicUsize,
    /// Faults that were ever taken.
    taken: AtomicUsize,
}

/// A place, which in round n is free at turn 2n and full at turn 2n + 1.
struct Slot {
    turn: AtomicUsize,
    hva: AtomicU64,
    log2_len: AtomicU8,
    is_required: AtomicU8,
}

impl Slot {
    const fn free() -> Self {
        Slot {
            turn: AtomicUsize::new(0),
            hva: AtomicU64::new(0),
            log2_len: AtomicU8::new(0),
            is_required: AtomicU8::new(0),
        }
    }
}

impl<const LEN: usize> Ring<LEN> {
    /// An empty ring.
    pub(super) const fn new() -> Self {
        Ring { slots: [const { Slot::free() }; LEN], put: AtomicUsize::new(0), taken: AtomicUsize::new(0) }
    }

    /// Puts a fault. False where there is no room. Async-signal-safe.
    pub(super) fn put(&self, fault: Fault) -> bool {
        let mut position = self.put.load(Ordering::Relaxed);
        loop {
            let slot = &self.slots[position % LEN];
            let free = 2 * (position / LEN);
            let turn = slot.turn.load(Ordering::Acquire);
            if turn < free {
                return false;
            }
            if turn > free {
                // Another thread was faster.
                position = self.put.load(Ordering::Relaxed);
                continue;
            }
            let next = position + 1;
            match self.put.compare_exchange_weak(position, next, Ordering::Relaxed, Ordering::Relaxed) {
                Err(now) => position = now,
                Ok(_) => {
                    slot.hva.store(fault.hva, Ordering::Relaxed);
                    slot.log2_len.store(fault.log2_len, Ordering::Relaxed);
                    slot.is_required.store((fault.action == Action::Required).into(), Ordering::Relaxed);
                    slot.turn.store(free + 1, Ordering::Release);
                    return true;
                }
            }
        }
    }

    /// Takes the oldest fault. For one thread only; a handler may interrupt it.
    pub(super) fn take(&self) -> Option<Fault> {
        let position = self.taken.load(Ordering::Relaxed);
        let slot = &self.slots[position % LEN];
        let full = 2 * (position / LEN) + 1;
        if slot.turn.load(Ordering::Acquire) != full {
            return None;
        }
        let is_required = slot.is_required.load(Ordering::Relaxed) != 0;
        let fault = Fault {
            hva: slot.hva.load(Ordering::Relaxed),
            log2_len: slot.log2_len.load(Ordering::Relaxed),
            action: if is_required { Action::Required } else { Action::Optional },
        };
        self.taken.store(position + 1, Ordering::Relaxed);
        slot.turn.store(full + 1, Ordering::Release);
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
    fn faults_keep_their_order_and_a_full_ring_says_so() {
        let ring = Ring::<4>::new();
        for round in 0..10 {
            assert_eq!(ring.take(), None);
            for hva in 0..4 {
                assert!(ring.put(fault(round + hva)));
            }
            assert!(!ring.put(fault(99)));
            assert_eq!(ring.take(), Some(fault(round)));
            assert!(ring.put(fault(98)), "there is room again");
            for hva in 1..4 {
                assert_eq!(ring.take(), Some(fault(round + hva)));
            }
            assert_eq!(ring.take(), Some(fault(98)));
        }
    }

    #[test]
    fn several_threads_lose_nothing() {
        const EACH: u64 = 20_000;
        let ring = Ring::<8>::new();
        let done = AtomicBool::new(false);
        let sum = thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut sum = 0;
                loop {
                    let was_done = done.load(Ordering::SeqCst);
                    match ring.take() {
                        Some(fault) => sum += fault.hva,
                        None if was_done => return sum,
                        None => thread::yield_now(),
                    }
                }
            });
            let putters: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for hva in 1..=EACH {
                            while !ring.put(fault(hva)) {
                                thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            putters.into_iter().for_each(|putter| putter.join().expect("no panic"));
            done.store(true, Ordering::SeqCst);
            taker.join().expect("no panic")
        });
        assert_eq!(sum, 3 * EACH * (EACH + 1) / 2);
    }
}
