//! The signals that ask for an orderly stop.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::{consts, flag, low_level};

/// Those signals, from now until the process ends.
#[derive(Debug)]
pub struct Signals {
    last: Arc<AtomicUsize>,
    pipe: UnixStream,
}

impl Signals {
    /// Takes SIGHUP, SIGINT, SIGQUIT and SIGTERM.
    ///
    /// # Errors
    /// Where the host gives no descriptors.
    pub fn take() -> io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        let (pipe, far_end) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        for signal in [consts::SIGHUP, consts::SIGINT, consts::SIGQUIT, consts::SIGTERM] {
            // In this order: who is woken by the pipe finds the number.
            flag::register_usize(signal, Arc::clone(&last), signal as usize)?;
            low_level::pipe::register(signal, far_end.try_clone()?)?;
        }
        Ok(Signals { last, pipe })
    }

    /// The last signal that came and was not asked for yet.
    pub fn pending(&mut self) -> Option<u8> {
        let mut bytes = [0; 16];
        // Empties the pipe; an error means that it is empty.
        while matches!(self.pipe.read(&mut bytes), Ok(1..)) {}
        u8::try_from(self.last.swap(0, Ordering::AcqRel)).ok().filter(|&signal| signal != 0)
    }
}

impl AsRawFd for Signals {
    /// Readable when a signal came.
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_once() {
        let mut signals = Signals::take().expect("descriptors");
        assert_eq!(signals.pending(), None);
        low_level::raise(consts::SIGHUP).expect("a signal to oneself");
        assert_eq!(signals.pending(), Some(consts::SIGHUP as u8));
        assert_eq!(signals.pending(), None);
    }
}
