//! The interface of a serial port to the source of its input.

use vmm_sys_util::eventfd::EventFd;

/// A serial port, as seen by the source of its input.
pub trait ConsolePort: Send {
    /// Puts as many of `bytes` into the receive FIFO as fit, and returns their number. It is 0 while a driver tests the port
    /// (loopback) or has disabled the receiver.
    fn input(&mut self, bytes: &[u8]) -> usize;

    /// Signalled when the guest has emptied the receive FIFO. A port need not signal the end of a loopback test: a caller
    /// whose input was not accepted retries after a timeout as well.
    fn rx_space(&self) -> &EventFd;
}
