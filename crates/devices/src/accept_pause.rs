//! What a device does after accept(2) has failed.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use vmm_sys_util::timerfd::TimerFd;

/// The time for which no client is accepted.
const INTERVAL: Duration = Duration::from_secs(1);

/// A pause after accept(2) has failed, usually for want of a descriptor: a listener would be ready all the time. During a pause the
/// device does not watch its listeners: notifications of the driver do not end it, a start of the thread does.
pub(crate) struct AcceptPause {
    timer: TimerFd,
    is_active: bool,
}

impl AcceptPause {
    /// # Errors
    /// Returns the error of timerfd_create(2).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(AcceptPause { timer: TimerFd::new()?, is_active: false })
    }

    /// Whether no listener is watched.
    #[cfg_attr(
        not(feature = "virtio-console"),
        expect(dead_code, reason = "the others have one listener only")
    )]
    pub(crate) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Begins a pause, which [`end`](Self::end) ends when the timer is readable.
    ///
    /// # Errors
    /// Returns the error of timerfd_settime(2).
    pub(crate) fn begin(&mut self, device: &str, error: Errno) -> io::Result<()> {
        tracing::warn!(device, %error, "accept(2) of a client: accepting clients again in {INTERVAL:?}");
        self.is_active = true;
        Ok(self.timer.reset(INTERVAL, None)?)
    }

    /// Ends a pause, if there is one: the timer is not readable any more.
    ///
    /// # Errors
    /// Returns the error of timerfd_settime(2).
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.is_active = false;
        Ok(self.timer.clear()?)
    }
}

impl AsRawFd for AcceptPause {
    /// Readable once the pause has to end.
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
