//! A guest's console as lines with timestamps. Memory use is bounded for any output.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes kept of a line.
const MAX_LINE_LEN: usize = 1024;
/// Lines kept from the start: more than a boot of Linux prints.
const MAX_FIRST_LINES: usize = 20_000;
/// Lines kept from the end, once the first ones are full.
const MAX_LAST_LINES: usize = 200;

/// The output of a guest's console, split into lines.
#[derive(Clone, Debug, Default)]
pub struct Console {
    first: Vec<Line>,
    last: VecDeque<Line>,
    partial: Vec<u8>,
    /// Time of the first byte in `partial`.
    began_ns: u64,
    dropped_lines: u64,
}

/// A console line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// Arrival of its first byte, in nanoseconds since the start of the process that boots the guest.
    pub t_ns: u64,
    /// Linux's own timestamp (CONFIG_PRINTK_TIME) in nanoseconds of the kernel's clock; `None` if the line has none.
    pub kernel_ns: Option<u64>,
    /// The text without Linux's timestamp, as printable ASCII.
    pub text: String,
}

impl Console {
    /// Appends output that arrived `t_ns` nanoseconds after the start.
    pub fn push(&mut self, t_ns: u64, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.began_ns = t_ns;
            }
            let free = MAX_LINE_LEN.saturating_sub(self.partial.len());
            self.partial.extend(piece.iter().take(free));
            if piece.ends_with(b"\n") {
                self.close_line();
            }
        }
    }

    /// Ends the recording: an incomplete last line is kept as a line.
    pub fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.close_line();
        }
    }

    fn close_line(&mut self) {
        let text = printable(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        let mut rest = text.as_str();
        // A kernel message may interrupt the output of a process.
        while let Some(at) = timestamp_within(rest) {
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
        if self.first.len() < MAX_FIRST_LINES {
            self.first.push(line);
            return;
        }
        if self.last.len() == MAX_LAST_LINES {
            self.last.pop_front();
            self.dropped_lines = self.dropped_lines.saturating_add(1);
        }
        self.last.push_back(line);
    }

    /// All lines kept, in order.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> + Clone {
        self.first.iter().chain(&self.last)
    }

    /// Number of lines in the middle that were not kept.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines
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

/// Position of a Linux timestamp that does not start the line.
fn timestamp_within(line: &str) -> Option<usize> {
    let brackets = line.match_indices('[').map(|(at, _)| at).filter(|at| *at > 0);
    brackets.into_iter().find(|at| line.get(*at..).and_then(kernel_time).is_some())
}

/// Converts untrusted text to printable ASCII: line ends are removed, tabs become blanks, other characters become escapes.
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
    fn a_line_has_the_time_of_its_first_byte_and_the_kernel_timestamp() {
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
    fn a_kernel_message_in_the_middle_of_a_line_is_a_line_of_its_own() {
        let mut console = Console::default();
        console.push(0, b"victim page 1[    2.000001] Memory failure[    2.000002] more [1.2] [x]\n");
        assert_eq!(texts(&console), ["victim page 1", "Memory failure", "more [1.2] [x]"]);
        console.push(0, "[    2.000001] ".repeat(100).as_bytes());
        console.finish();
        assert!(console.lines().count() < 3 + MAX_LINE_LEN / 10);
    }

    #[test]
    fn only_printable_ascii_is_kept() {
        let mut console = Console::default();
        console.push(0, b"\x1b[2J\x07<b>\xff\xc3\xa4\n");
        assert_eq!(texts(&console), [r"\u{1b}[2J\u{7}<b>\u{fffd}\u{e4}"]);
        assert_eq!(kernel_time("[99999999999999999999.000000] x"), None);
        assert_eq!(kernel_time("[ 18446744073709551615.000000] x"), None);
    }

    #[test]
    fn unlimited_output_is_bounded() {
        let mut console = Console::default();
        console.push(0, &[b'x'; 1 << 20]);
        console.push(0, b"\n");
        let total = MAX_FIRST_LINES + 2 * MAX_LAST_LINES;
        for number in 1..total {
            console.push(0, format!("{number}\n").as_bytes());
        }
        assert_eq!(console.lines().count(), MAX_FIRST_LINES + MAX_LAST_LINES);
        assert_eq!(console.dropped_lines(), MAX_LAST_LINES as u64);
        assert_eq!(texts(&console)[0].len(), MAX_LINE_LEN);
        assert_eq!(console.lines().next_back().map(|line| line.text.clone()), Some((total - 1).to_string()));
    }
}
