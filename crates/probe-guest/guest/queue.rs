//! Bytes that came in on the console and that nobody has taken.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// One processor uses it, in turn with its interrupt handler.
pub(crate) struct Queue {
    bytes: [AtomicU8; 256],
    /// Bytes kept and taken since the start.
    kept: AtomicUsize,
    taken: AtomicUsize,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Queue {
            bytes: [const { AtomicU8::new(0) }; 256],
            kept: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.kept.load(Ordering::Relaxed) - self.taken.load(Ordering::Relaxed) == self.bytes.len()
    }

    /// Keeps a byte, for which there is room.
    pub(crate) fn keep(&self, byte: u8) {
        let kept = self.kept.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.bytes.get(kept % self.bytes.len()) {
            slot.store(byte, Ordering::Relaxed);
        }
    }

    pub(crate) fn take(&self) -> Option<u8> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.kept.load(Ordering::Relaxed) {
            return None;
        }
        self.taken.store(taken + 1, Ordering::Relaxed);
        self.bytes.get(taken % self.bytes.len()).map(|slot| slot.load(Ordering::Relaxed))
    }
}
