//! Standard error: messages and the log, from any thread.
//!
//! While a machine runs, lines go to the queue of its [`Journal`](crate::journal::Journal): no thread waits for a reader, and a line
//! that cannot be written is counted. Otherwise they are written at once. In both cases an error ends nothing.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::journal::Queue;

/// The format of messages and of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Set once, before the first message.
static FORMAT: OnceLock<Format> = OnceLock::new();
/// The queue of the machine that runs.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Sets the format. Only the first call has an effect.
pub fn set_format(format: Format) {
    // An error means that it was set before.
    let _ = FORMAT.set(format);
}

/// The format.
#[must_use]
pub fn format() -> Format {
    FORMAT.get().copied().unwrap_or_default()
}

/// Sends all lines to a queue from now on. Only the first call has an effect.
pub fn redirect(queue: Queue) {
    // An error means that it was redirected before.
    let _ = QUEUE.set(queue);
}

/// Writes whole lines.
pub fn write(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push_text(text),
        // An error cannot be reported anywhere.
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// The notice of missing lines, in their place.
pub(crate) fn notice(_: Duration, lines: u64) -> String {
    let message = format!("{lines} lines are missing here: they could not be written");
    match format() {
        Format::Text => format!("ghest: {message}\n"),
        Format::Json => format!("{}\n", json!({ "level": "WARN", "message": message })),
    }
}

/// The log's writer.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter
    }
}

impl Write for LogWriter {
    /// Writes a whole line: `tracing_subscriber` formats it before.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
