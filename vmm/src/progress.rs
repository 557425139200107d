//! The progress of what takes long, on standard error: a line that is updated in a terminal, and elsewhere a line now and then.
//!
//! What is done in a moment shows nothing outside a terminal, and with `--log-format json` nothing is shown: it is no log line.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use crate::stderr::{self as messages, Format};

/// The shortest time between two updates in a terminal.
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);
/// The time between two lines elsewhere, and before the first.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One line, which is replaced.
    Updated,
    /// A line each time.
    Lines,
    Nothing,
}

/// The progress of a command.
#[derive(Debug)]
pub struct Progress {
    form: Form,
    /// When the next update is due.
    due: Instant,
    /// Whether the terminal shows a line.
    is_shown: bool,
}

impl Progress {
    /// Progress on standard error. `is_for_programs`: only a terminal shows it, because a program reads the output.
    #[must_use]
    pub fn on_stderr(is_for_programs: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let form = match messages::format() {
            Format::Json => Form::Nothing,
            Format::Text if stderr().is_terminal() && !dumb => Form::Updated,
            Format::Text if is_for_programs => Form::Nothing,
            Format::Text => Form::Lines,
        };
        Progress::new(form, Instant::now())
    }

    fn new(form: Form, now: Instant) -> Self {
        let due = if form == Form::Lines { now + LINE_INTERVAL } else { now };
        Progress { form, due, is_shown: false }
    }

    /// Shows a line, which has to be printable, if an update is due.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        if let Some(text) = self.update(Instant::now(), columns, line) {
            messages::write(&text);
        }
    }

    /// Removes the line from a terminal. The next one is shown immediately.
    pub fn clear(&mut self) {
        if let Some(text) = self.erase(Instant::now()) {
            messages::write(text);
        }
    }

    /// What removes the line at that time.
    fn erase(&mut self, now: Instant) -> Option<&'static str> {
        if !std::mem::take(&mut self.is_shown) {
            return None;
        }
        self.due = now;
        Some(ERASE_LINE)
    }

    /// What to write at that time.
    fn update(
        &mut self,
        now: Instant,
        columns: impl FnOnce() -> usize,
        line: impl FnOnce() -> String,
    ) -> Option<String> {
        let interval = match self.form {
            Form::Nothing => return None,
            Form::Updated => UPDATE_INTERVAL,
            Form::Lines => LINE_INTERVAL,
        };
        if now < self.due {
            return None;
        }
        self.due = now + interval;
        if self.form == Form::Lines {
            return Some(format!("ghest: {}\n", line()));
        }
        self.is_shown = true;
        let text: String = line().chars().take(columns().saturating_sub(1)).collect();
        Some(format!("{ERASE_LINE}{text}"))
    }
}

/// To the first column, and erase to the end of the line (ECMA-48, EL).
const ERASE_LINE: &str = "\r\x1b[K";

fn columns() -> usize {
    rustix::termios::tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col.max(20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written at these times in milliseconds.
    fn written(form: Form, times: &[u64]) -> Vec<String> {
        let began = Instant::now();
        let mut progress = Progress::new(form, began);
        let at =
            |ms: &u64| progress.update(began + Duration::from_millis(*ms), || 8, || format!("at {ms} ms"));
        times.iter().filter_map(at).collect()
    }

    #[test]
    fn a_terminal_has_one_line_of_its_width() {
        let lines = written(Form::Updated, &[0, 50, 100, 150, 210]);
        assert_eq!(lines, ["\r\x1b[Kat 0 ms", "\r\x1b[Kat 100 ", "\r\x1b[Kat 210 "]);
    }

    #[test]
    fn after_a_line_is_removed_the_next_one_is_due() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        for (form, written) in
            [(Form::Updated, [true; 3]), (Form::Lines, [false; 3]), (Form::Nothing, [false; 3])]
        {
            let mut progress = Progress::new(form, began);
            let first = progress.update(at(0), || 80, String::new).is_some();
            let removed = progress.erase(at(1)).is_some();
            assert_eq!(
                [first, removed, progress.update(at(2), || 80, String::new).is_some()],
                written,
                "{form:?}"
            );
        }
    }

    #[test]
    fn elsewhere_there_is_a_line_every_few_seconds() {
        assert_eq!(written(Form::Lines, &[0, 100, 4_999]), [""; 0]);
        assert_eq!(
            written(Form::Lines, &[5_000, 5_100, 9_999, 12_000]),
            ["ghest: at 5000 ms\n", "ghest: at 12000 ms\n"]
        );
    }

    #[test]
    fn programs_get_nothing() {
        assert_eq!(written(Form::Nothing, &[0, 10_000]), [""; 0]);
    }
}
