//! The signals that request an orderly stop.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::{consts, flag, low_level};

/// Receives those signals. The handlers stay installed until the process ends.
#[derive(Debug)]
pub struct Signals {
    last: Arc<AtomicUsize>,
    pipe: UnixStream,
}

impl Signals {
    /// Installs handlers for SIGHUP, SIGINT, SIGQUIT and SIGTERM.
    ///
    /// # Errors
    /// Returns an error if the host has no descriptors left (socketpair(2)).
    pub fn install() -> io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        let (pipe, far_end) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        for signal in [consts::SIGHUP, consts::SIGINT, consts::SIGQUIT, consts::SIGTERM] {
            // In this order: the number is stored before the pipe wakes a reader.
            flag::register_usize(signal, Arc::clone(&last), signal as usize)?;
            low_level::pipe::register(signal, far_end.try_clone()?)?;
        }
        Ok(Signals { last, pipe })
    }

    /// Takes the last signal that was received. `None` if there was none since the last call.
    pub fn take_pending(&mut self) -> Option<u8> {
        let mut bytes = [0; 16];
        // Drains the pipe. An error means that it is empty.
        while matches!(self.pipe.read(&mut bytes), Ok(1..)) {}
        u8::try_from(self.last.swap(0, Ordering::AcqRel)).ok().filter(|&signal| signal != 0)
    }
}

impl AsRawFd for Signals {
    /// Readable if a signal may be pending.
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_once() {
        let mut signals = Signals::install().expect("descriptors");
        assert_eq!(signals.take_pending(), None);
        low_level::raise(consts::SIGHUP).expect("a signal to oneself");
        assert_eq!(signals.take_pending(), Some(consts::SIGHUP as u8));
        assert_eq!(signals.take_pending(), None);
    }
}
