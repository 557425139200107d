//! The protocol of the host's agent on the port `control` (`images/host-agent.sh`): lines, and files that a line announces.

use crate::error::{Error, Result};

/// One message of the host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The host is up.
    Ready,
    /// A scenario's command ended with this status.
    Exit(i32),
    /// The last line that a step's command printed.
    Answer(String),
    /// A file that the command wrote to `out/`.
    File { name: String, content: Vec<u8> },
    /// The last message of a scenario.
    End,
}

/// Assembles messages from the bytes that are received.
#[derive(Default)]
pub(crate) struct Reports {
    pending: Vec<u8>,
}

impl Reports {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
    }

    /// The next complete message; `None` if more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Report>> {
        let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = String::from_utf8_lossy(self.pending.get(..end).unwrap_or_default()).into_owned();
        let after = end + 1;
        let unknown = || Error::new(format!("the host sent an unknown message: {line:?}"));
        let words: Vec<&str> = line.split(' ').collect();
        let (report, used) = match words.as_slice() {
            ["ready"] => (Report::Ready, after),
            ["end"] => (Report::End, after),
            ["answer", ..] => (Report::Answer(words.get(1..).unwrap_or_default().join(" ")), after),
            ["exit", status] => (Report::Exit(status.parse().map_err(|_| unknown())?), after),
            ["file", name, size] => {
                let size: usize = size.parse().map_err(|_| unknown())?;
                let Some(content) = self.pending.get(after..after.saturating_add(size)) else {
                    return Ok(None);
                };
                (Report::File { name: (*name).to_owned(), content: content.to_vec() }, after + size)
            }
            _ => return Err(unknown()),
        };
        self.pending.drain(..used);
        Ok(Some(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_assembled_byte_by_byte() {
        let stream = b"ready\nanswer 12 o'clock\nexit 4\nfile events.jsonl 5\n{\"a\"\nfile empty 0\nend\n";
        let mut reports = Reports::default();
        let mut seen = Vec::new();
        for byte in stream {
            reports.push(&[*byte]);
            while let Some(report) = reports.next().unwrap() {
                seen.push(report);
            }
        }
        let file = |name: &str, content: &[u8]| Report::File { name: name.into(), content: content.into() };
        let events = file("events.jsonl", b"{\"a\"\n");
        let answer = Report::Answer("12 o'clock".into());
        assert_eq!(seen, [Report::Ready, answer, Report::Exit(4), events, file("empty", b""), Report::End]);
    }

    #[test]
    fn an_unknown_line_is_an_error() {
        let mut reports = Reports::default();
        reports.push(b"exit soon\n");
        assert!(reports.next().unwrap_err().to_string().contains("exit soon"));
    }
}
