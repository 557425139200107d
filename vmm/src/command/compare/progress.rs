//! One line on stderr that says what is going on, where somebody watches.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How often it changes.
const TURN: Duration = Duration::from_millis(100);

/// The line.
pub(super) struct Progress {
    watched: bool,
    side: &'static str,
    number: usize,
    began: Instant,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn on_stderr() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Progress {
            watched: stderr().is_terminal() && !dumb,
            side: "",
            number: 0,
            began: Instant::now(),
            shown: None,
        }
    }

    /// The next guest boots.
    pub(super) fn next(&mut self, side: &'static str) {
        (self.side, self.began, self.shown) = (side, Instant::now(), None);
        self.number += 1;
        self.show("");
    }

    /// The guest's last line, which is printable.
    pub(super) fn show(&mut self, line: &str) {
        if !self.watched || self.shown.is_some_and(|shown| shown.elapsed() < TURN) {
            return;
        }
        self.shown = Some(Instant::now());
        let columns =
            rustix::termios::tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col.max(20)));
        let text =
            format!("[{}/2] {} {:5.1} s  {line}", self.number, self.side, self.began.elapsed().as_secs_f64());
        let text: String = text.chars().take(columns.saturating_sub(1)).collect();
        // There is nobody left to tell where stderr is gone.
        let _ = write!(stderr().lock(), "\r\x1b[K{text}");
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.watched {
            let _ = write!(stderr().lock(), "\r\x1b[K");
        }
    }
}
