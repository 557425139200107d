//! What commands print on standard output, and messages on standard error beside the log.

use std::io::{self, Write};
use std::sync::OnceLock;

use machine_profile::printable::{escaped, escaped_json, escaped_lines};
use serde::Serialize;
use serde_json::json;
use vmm::status::Status;

use super::logging::LogFormat;

/// The format of messages on standard error. Set once, before the first message.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

pub(super) fn set_format(format: LogFormat) {
    // An error means that it was set before.
    let _ = FORMAT.set(format);
}

pub(super) fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

/// Prints text for people, which may hold characters of files: none of them changes the terminal.
pub(super) fn print_text(text: &str) -> Status {
    print(&escaped_lines(text))
}

/// Prints the output of a command as it is. A closed pipe is not an error.
pub(super) fn print(text: &str) -> Status {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report(&format!("write(2) to standard output: {error}"), Status::Failure)
        }
        _ => Status::Success,
    }
}

/// Prints a value as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Status {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{}\n", escaped_json(&text))),
        Err(error) => report(&error.to_string(), Status::Failure),
    }
}

/// Prints a message to standard error, whatever the log level; characters that would change the terminal are escaped. Returns
/// `status`, which it explains.
pub(super) fn report(message: &str, status: Status) -> Status {
    let line = match format() {
        // Only a message starts a line: not a line end in a path.
        LogFormat::Text => {
            let lines: Vec<_> = message.split('\n').map(|line| escaped(line.trim_start())).collect();
            format!("ghest: {}", lines.join("\n  "))
        }
        LogFormat::Json => {
            let level = if status == Status::Success { "INFO" } else { "ERROR" };
            let line = json!({ "level": level, "message": message, "status": status.code() }).to_string();
            escaped_json(&line).into_owned()
        }
    };
    // An error cannot be reported: standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{line}");
    status
}
