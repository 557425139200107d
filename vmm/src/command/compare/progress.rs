//! A progress line on standard error, if that is a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// The shortest time between two updates.
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// The progress line.
pub(super) struct Progress {
    is_terminal: bool,
    side: &'static str,
    number: usize,
    began: Instant,
    updated: Option<Instant>,
}

impl Progress {
    pub(super) fn on_stderr() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Progress {
            is_terminal: stderr().is_terminal() && !dumb,
            side: "",
            number: 0,
            began: Instant::now(),
            updated: None,
        }
    }

    /// Starts the line of the next guest.
    pub(super) fn next(&mut self, side: &'static str) {
        (self.side, self.began, self.updated) = (side, Instant::now(), None);
        self.number += 1;
        self.show("");
    }

    /// Shows the last line of the guest's console, which has to be printable.
    pub(super) fn show(&mut self, line: &str) {
        if !self.is_terminal || self.updated.is_some_and(|updated| updated.elapsed() < UPDATE_INTERVAL) {
            return;
        }
        self.updated = Some(Instant::now());
        let columns =
            rustix::termios::tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col.max(20)));
        let text =
            format!("[{}/2] {} {:5.1} s  {line}", self.number, self.side, self.began.elapsed().as_secs_f64());
        let text: String = text.chars().take(columns.saturating_sub(1)).collect();
        // An error cannot be reported: standard error is gone.
        let _ = write!(stderr().lock(), "\r\x1b[K{text}");
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.is_terminal {
            let _ = write!(stderr().lock(), "\r\x1b[K");
        }
    }
}
