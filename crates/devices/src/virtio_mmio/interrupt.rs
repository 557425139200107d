//! The transport's interrupt: one line, and a status register with its cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

use crate::line::InterruptLine;
use crate::poison_observer::PoisonObserver;
use crate::virtio::Interrupt;

/// The interrupt of a transport. The registers and the device's threads share it.
pub(super) struct MmioInterrupt {
    line: InterruptLine,
    /// InterruptStatus (VIRTIO 1.2, 4.2.2).
    status: AtomicU32,
    needs_reset: AtomicBool,
    /// ConfigGeneration (VIRTIO 1.2, 4.2.2.1).
    config_generation: AtomicU32,
    observer: Arc<dyn PoisonObserver>,
}

impl MmioInterrupt {
    pub(super) fn new(line: InterruptLine, observer: Arc<dyn PoisonObserver>) -> Self {
        MmioInterrupt {
            line,
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            config_generation: AtomicU32::new(0),
            observer,
        }
    }

    /// InterruptStatus.
    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// Clears bits of InterruptStatus.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub(super) fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// ConfigGeneration: changes with each change of the configuration, and is not affected by a reset.
    pub(super) fn config_generation(&self) -> u32 {
        self.config_generation.load(Ordering::SeqCst)
    }

    /// Clears InterruptStatus and DEVICE_NEEDS_RESET. The device has been reset and raises no interrupt.
    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
    }

    /// Raises an edge each time, even if the driver has not acknowledged the last one: an edge on a masked pin is lost.
    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        self.line.raise();
    }
}

impl Interrupt for MmioInterrupt {
    fn used_buffer(&self, _queue: u16) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn config_changed(&self) {
        self.config_generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn needs_reset(&self) {
        // Before the status: a driver that reads it finds its cause, too.
        self.status.fetch_or(VIRTIO_MMIO_INT_CONFIG, Ordering::SeqCst);
        // Threads of several queues may fail at the same time.
        let is_first = !self.needs_reset.swap(true, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
        if is_first {
            self.observer.needs_reset();
        }
    }
}
