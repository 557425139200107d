//! A device's way to its driver: interrupts and what they are for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

use crate::line::InterruptLine;

/// A device's interrupt, which its transport and its threads share.
#[derive(Clone, Debug)]
pub struct Signal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    line: InterruptLine,
    /// InterruptStatus (VIRTIO 1.2, 4.2.2).
    causes: AtomicU32,
    needs_reset: AtomicBool,
}

impl Signal {
    /// A signal on a line, with nothing to tell.
    #[must_use]
    pub fn new(line: InterruptLine) -> Self {
        Signal(Arc::new(Shared { line, causes: AtomicU32::new(0), needs_reset: AtomicBool::new(false) }))
    }

    /// Says that buffers were used.
    pub fn used_buffers(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// Says that the device cannot go on (DEVICE_NEEDS_RESET; VIRTIO 1.2, 2.1.2).
    pub fn needs_reset(&self) {
        self.0.needs_reset.store(true, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// One edge each time, though the driver may not have acknowledged the last one: an edge on a masked pin is lost.
    fn raise(&self, cause: u32) {
        self.0.causes.fetch_or(cause, Ordering::SeqCst);
        self.0.line.raise();
    }

    pub(super) fn causes(&self) -> u32 {
        self.0.causes.load(Ordering::SeqCst)
    }

    pub(super) fn acknowledge(&self, causes: u32) {
        self.0.causes.fetch_and(!causes, Ordering::SeqCst);
    }

    pub(super) fn is_reset_needed(&self) -> bool {
        self.0.needs_reset.load(Ordering::SeqCst)
    }

    pub(super) fn clear(&self) {
        self.0.causes.store(0, Ordering::SeqCst);
        self.0.needs_reset.store(false, Ordering::SeqCst);
    }
}
