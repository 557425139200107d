//! The outputs of a journal, for the report of a signal that ends the process.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::queue::State;
use super::sink::is_writable;
use crate::timings::Timings;

/// The outputs, for the handler of a signal that ends the process. Its functions are async-signal-safe.
#[derive(Debug)]
pub struct FinalOutput {
    file: Option<File>,
    clock: Arc<Timings>,
    writer: Arc<State>,
}

impl FinalOutput {
    pub(super) fn new(file: Option<File>, clock: Arc<Timings>, writer: Arc<State>) -> Self {
        FinalOutput { file, clock, writer }
    }

    /// The event file.
    #[must_use]
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Time since the start of the process.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether everything that was reported before is written.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.writer.is_flushed()
    }

    /// Writes a line, if the output takes it without a wait.
    pub fn write(output: BorrowedFd<'_>, line: &[u8]) {
        if is_writable(output) {
            // An error cannot be reported anywhere.
            let _ = rustix::io::write(output, line);
        }
    }
}
