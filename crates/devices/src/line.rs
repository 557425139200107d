//! Interrupt lines.

use std::io;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A device's end of an interrupt line. Each [`raise`](Self::raise) is one edge.
#[derive(Debug)]
pub struct InterruptLine {
    event: EventFd,
}

impl InterruptLine {
    /// A line that nobody listens to yet.
    ///
    /// # Errors
    /// Where the host gives no eventfd.
    pub fn new() -> io::Result<Self> {
        Ok(InterruptLine { event: EventFd::new(EFD_NONBLOCK)? })
    }

    /// The eventfd to bind to a GSI: each write of 1 is one edge.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Raises the interrupt.
    pub fn raise(&self) {
        // Fails only when 2^64 - 2 edges are pending: one more makes no difference then.
        let _ = self.event.write(1);
    }
}

impl vm_superio::Trigger for InterruptLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.raise();
        Ok(())
    }
}
