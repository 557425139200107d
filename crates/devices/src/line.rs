//! Interrupt lines: edge-triggered and level-triggered.

use std::io;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A device's end of an edge-triggered interrupt line. Each [`raise`](Self::raise) is one edge.
#[derive(Debug)]
pub struct InterruptLine {
    event: EventFd,
}

impl InterruptLine {
    /// A line that is not bound to an interrupt controller yet.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new() -> io::Result<Self> {
        Ok(InterruptLine { event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)? })
    }

    /// The eventfd to bind to a GSI: each write of 1 is one edge.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Raises the interrupt.
    pub fn raise(&self) {
        // Fails only if 2^64 - 2 edges are pending: one more makes no difference.
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

/// The interrupt controller's end of a level-triggered interrupt line.
///
/// An eventfd carries edges only, so the level is passed by a call. The call is made with the device locked, on the thread
/// that changed the device's state (a vCPU's, or the console input's), and only if the level changes: the first call is
/// `set(true)`, and two calls in a row never have the same argument.
pub trait Level: Send {
    /// Asserts or deasserts the line.
    fn set(&self, asserted: bool);
}

/// A device's end of a level-triggered interrupt line, inactive at first.
pub struct LevelLine {
    level: Box<dyn Level>,
    asserted: bool,
}

impl LevelLine {
    /// A line that ends at `level`.
    #[must_use]
    pub fn new(level: impl Level + 'static) -> Self {
        LevelLine { level: Box::new(level), asserted: false }
    }

    /// Asserts or deasserts the line.
    pub(crate) fn set(&mut self, asserted: bool) {
        if self.asserted != asserted {
            self.asserted = asserted;
            self.level.set(asserted);
        }
    }
}

#[cfg(test)]
pub(crate) mod probe {
    use std::sync::{Arc, Mutex};

    use super::{Level, LevelLine};

    /// Every level that a line was set to, in order.
    #[derive(Clone, Default)]
    pub(crate) struct Probe(Arc<Mutex<Vec<bool>>>);

    impl Probe {
        pub(crate) fn line(&self) -> LevelLine {
            LevelLine::new(self.clone())
        }

        pub(crate) fn asserted(&self) -> bool {
            self.history().last().copied().unwrap_or(false)
        }

        pub(crate) fn history(&self) -> Vec<bool> {
            self.0.lock().expect("no panic").clone()
        }
    }

    impl Level for Probe {
        fn set(&self, asserted: bool) {
            self.0.lock().expect("no panic").push(asserted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::probe::Probe;

    #[test]
    fn only_changes_of_the_level_are_passed_on() {
        let probe = Probe::default();
        let mut line = probe.line();
        for asserted in [false, true, true, false, false, true] {
            line.set(asserted);
        }
        assert_eq!(probe.history(), [true, false, true]);
    }
}
