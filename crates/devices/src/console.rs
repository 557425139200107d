//! What a serial port of either kind is to the one who brings its input.

use vmm_sys_util::eventfd::EventFd;

/// A serial port, as the source of its input sees it.
pub trait ConsolePort: Send {
    /// Gives the guest as much of `bytes` as the receive FIFO has room for and returns how much that was. While a
    /// driver tests the port (loopback), or has switched its receiver off, it is nothing.
    fn input(&mut self, bytes: &[u8]) -> usize;

    /// Signalled when the guest has emptied the receive FIFO. A port need not tell that a loopback test has ended: who
    /// could give nothing tries again after a while.
    fn room(&self) -> &EventFd;
}
