//! The interfaces of a console: of a serial port to the source of its input, and of a console's terminal to the VMM.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A serial port, as seen by the source of its input.
pub trait ConsolePort: Send {
    /// Puts as many of `bytes` into the receive FIFO as fit, and returns their number. It is 0 while a driver tests the port
    /// (loopback) or has disabled the receiver.
    fn input(&mut self, bytes: &[u8]) -> usize;

    /// Signalled when the guest has emptied the receive FIFO. A port need not signal the end of a loopback test: a caller
    /// whose input was not accepted retries after a timeout as well.
    fn rx_space(&self) -> &EventFd;
}

/// The size of the terminal behind a console, which the VMM sets from any thread. It outlives the device, which every reset of the
/// machine renews.
#[derive(Clone, Debug)]
pub struct ConsoleSize(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Columns, and rows in the upper half.
    size: AtomicU32,
    /// Signalled when the size was set.
    changed: EventFd,
}

impl ConsoleSize {
    /// A size that is not known: 0 columns and 0 rows.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new() -> io::Result<Self> {
        let changed = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(ConsoleSize(Arc::new(Shared { size: AtomicU32::new(0), changed })))
    }

    /// Sets the size in characters. The guest's driver is notified.
    pub fn set(&self, columns: u16, rows: u16) {
        self.0.size.store(u32::from(columns) | u32::from(rows) << 16, Ordering::SeqCst);
        // Fails only if the counter would overflow.
        let _ = self.0.changed.write(1);
    }

    /// Columns and rows.
    #[must_use]
    pub fn get(&self) -> (u16, u16) {
        let size = self.0.size.load(Ordering::SeqCst);
        (size as u16, (size >> 16) as u16)
    }

    /// Signalled when the size was set. One thread at a time reads it.
    #[must_use]
    pub fn changed(&self) -> &EventFd {
        &self.0.changed
    }
}
