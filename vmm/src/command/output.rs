//! What commands print on stdout, and what `ghest` says on stderr beside its log.

use std::io::{self, Write};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::json;
use vmm::status::Status;

use super::logging::LogFormat;

/// How lines on stderr are written; set once, before anything is said.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

pub(super) fn set_format(format: LogFormat) {
    // An error means that it was set before.
    let _ = FORMAT.set(format);
}

pub(super) fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

/// Prints all that a command has to say. A reader that goes away has seen enough.
pub(super) fn print(text: &str) -> Status {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("stdout cannot be written: {error}"), Status::Failure)
        }
        _ => Status::Success,
    }
}

/// Prints a value as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Status {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => say(&error.to_string(), Status::Failure),
    }
}

/// The last line on stderr, whatever the log level: what happened. Returns the status that it tells of.
pub(super) fn say(message: &str, status: Status) -> Status {
    let line = match format() {
        LogFormat::Text => format!("ghest: {message}"),
        LogFormat::Json => {
            let level = if status == Status::Success { "INFO" } else { "ERROR" };
            json!({ "level": level, "message": message, "status": status.code() }).to_string()
        }
    };
    // There is nobody left to tell where stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{line}");
    status
}
