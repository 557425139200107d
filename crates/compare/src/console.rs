//! A guest's console as lines with times, bounded whatever the guest writes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes of a line that are kept.
const LINE: usize = 1024;
/// Lines that are kept from the start: more than any boot of Linux has.
const FIRST: usize = 20_000;
/// Lines that are kept from the end, once there are more.
const LAST: usize = 200;

/// What a guest's console has shown.
#[derive(Clone, Debug, Default)]
pub struct Console {
    first: Vec<Line>,
    last: VecDeque<Line>,
    partial: Vec<u8>,
    /// When the line that is not yet whole began.
    began_ns: u64,
    memslot_holes: u64,
}

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// When it came: nanoseconds since the process that boots the guest was started.
    pub t_ns: u64,
    /// When Linux says that it wrote it: nanoseconds of the kernel's own clock.
    pub kernel_ns: Option<u64>,
    /// What it says, without Linux's time: printable ASCII.
    pub text: String,
}

impl Console {
    /// More of it came, so many nanoseconds after the start.
    pub fn push(&mut self, t_ns: u64, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.began_ns = t_ns;
            }
            let room = LINE.saturating_sub(self.partial.len());
            self.partial.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                self.close_line();
            }
        }
    }

    /// No more will come.
    pub fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.close_line();
        }
    }

    fn close_line(&mut self) {
        let text = printable(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        let mut rest = text.as_str();
        // What Linux has to say may come in the middle of what a process says.
        while let Some(at) = stamp_within(rest) {
            let (before, after) = rest.split_at(at);
            self.keep(Line::of(self.began_ns, before));
            rest = after;
        }
        self.keep(Line::of(self.began_ns, rest));
    }

    fn keep(&mut self, line: Line) {
        if line.text.is_empty() {
            return;
        }
        if self.first.len() < FIRST {
            self.first.push(line);
            return;
        }
        if self.last.len() == LAST {
            self.last.pop_front();
            self.memslot_holes = self.memslot_holes.saturating_add(1);
        }
        self.last.push_back(line);
    }

    /// All lines that were kept.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> + Clone {
        self.first.iter().chain(&self.last)
    }

    /// How many lines in the middle were not kept.
    #[must_use]
    pub fn memslot_holes(&self) -> u64 {
        self.memslot_holes
    }
}

impl Line {
    fn of(t_ns: u64, text: &str) -> Self {
        let text = text.trim_end();
        let (kernel_ns, text) = match kernel_time(text) {
            Some((time, text)) => (Some(time), text),
            None => (None, text),
        };
        Line { t_ns, kernel_ns, text: text.to_owned() }
    }
}

/// `[    1.234567] TEXT`, as Linux writes it with CONFIG_PRINTK_TIME (kernel/printk/printk.c, `print_time`).
fn kernel_time(line: &str) -> Option<(u64, &str)> {
    let (time, text) = line.strip_prefix('[')?.split_once("] ")?;
    let (seconds, micros) = time.trim_start().split_once('.')?;
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(micros) || micros.len() != 6 {
        return None;
    }
    let seconds = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    Some((seconds.checked_add(micros.parse::<u64>().ok()?.checked_mul(1_000)?)?, text))
}

/// Where in a line, but not at its start, Linux's time stands.
fn stamp_within(line: &str) -> Option<usize> {
    let brackets = line.match_indices('[').map(|(at, _)| at).filter(|at| *at > 0);
    brackets.into_iter().find(|at| line.get(*at..).and_then(kernel_time).is_some())
}

/// Text from a guest as printable ASCII: line ends go, tabs become blanks, everything else becomes an escape.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            '\t' => shown.push(' '),
            '\r' | '\n' => {}
            other => shown.extend(other.escape_default()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(console: &Console) -> Vec<&str> {
        console.lines().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_have_the_time_of_their_first_byte_and_linuxs_own() {
        let mut console = Console::default();
        console.push(5, b"probe: ");
        console.push(7, b"ok\r\n\r\n[    1.500000] Run /init\n[x] no time\nend");
        console.finish();
        let lines: Vec<_> = console.lines().cloned().collect();
        let line = |t_ns, kernel_ns, text: &str| Line { t_ns, kernel_ns, text: text.into() };
        assert_eq!(
            lines,
            [
                line(5, None, "probe: ok"),
                line(7, Some(1_500_000_000), "Run /init"),
                line(7, None, "[x] no time"),
                line(7, None, "end")
            ]
        );
    }

    #[test]
    fn linux_may_speak_in_the_middle_of_a_line() {
        let mut console = Console::default();
        console.push(0, b"victim page 1[    2.000001] Memory failure[    2.000002] more [1.2] [x]\n");
        assert_eq!(texts(&console), ["victim page 1", "Memory failure", "more [1.2] [x]"]);
        console.push(0, "[    2.000001] ".repeat(100).as_bytes());
        console.finish();
        assert!(console.lines().count() < 3 + LINE / 10);
    }

    #[test]
    fn nothing_but_printable_ascii_is_kept() {
        let mut console = Console::default();
        console.push(0, b"\x1b[2J\x07<b>\xff\xc3\xa4\n");
        assert_eq!(texts(&console), [r"\u{1b}[2J\u{7}<b>\u{fffd}\u{e4}"]);
        assert_eq!(kernel_time("[99999999999999999999.000000] x"), None);
        assert_eq!(kernel_time("[ 18446744073709551615.000000] x"), None);
    }

    #[test]
    fn a_guest_that_never_stops_is_bounded() {
        let mut console = Console::default();
        console.push(0, &[b'x'; 1 << 20]);
        console.push(0, b"\n");
        let total = FIRST + 2 * LAST;
        for number in 1..total {
            console.push(0, format!("{number}\n").as_bytes());
        }
        assert_eq!(console.lines().count(), FIRST + LAST);
        assert_eq!(console.memslot_holes(), LAST as u64);
        assert_eq!(texts(&console)[0].len(), LINE);
        assert_eq!(console.lines().next_back().map(|line| line.text.clone()), Some((total - 1).to_string()));
    }
}
