//! A queue of bytes received on the console.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A ring buffer for one processor and its interrupt handler.
pub(crate) struct Queue {
    bytes: [AtomicU8; 256],
    /// Number of bytes pushed and popped since the start.
    pushed: AtomicUsize,
    popped: AtomicUsize,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Queue {
            bytes: [const { AtomicU8::new(0) }; 256],
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pushed.load(Ordering::Relaxed) - self.popped.load(Ordering::Relaxed) == self.bytes.len()
    }

    /// Appends a byte. The queue must not be full.
    pub(crate) fn push(&self, byte: u8) {
        let pushed = self.pushed.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.bytes.get(pushed % self.bytes.len()) {
            slot.store(byte, Ordering::Relaxed);
        }
    }

    /// Removes the oldest byte. `None` if the queue is empty.
    pub(crate) fn pop(&self) -> Option<u8> {
        let popped = self.popped.load(Ordering::Relaxed);
        if popped == self.pushed.load(Ordering::Relaxed) {
            return None;
        }
        self.popped.store(popped + 1, Ordering::Relaxed);
        self.bytes.get(popped % self.bytes.len()).map(|slot| slot.load(Ordering::Relaxed))
    }
}
