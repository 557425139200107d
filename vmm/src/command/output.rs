//! What commands print on standard output, and messages on standard error beside the log.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use vmm::status::Status;
use vmm::stderr::{self, Format};

/// Prints the output of a command. If it cannot be written, the status is that of an I/O error; a closed pipe, as behind
/// `ghest plan PROFILE | head`, needs no message.
pub(super) fn print(text: &str) -> Status {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Status::Success,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Status::Failure,
        Err(error) => report(&format!("write(2) to standard output: {error}"), Status::Failure),
    }
}

/// Prints a value as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Status {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => report(&error.to_string(), Status::Failure),
    }
}

/// Prints a message to standard error, whatever the log level. Returns `status`, which it explains.
pub(super) fn report(message: &str, status: Status) -> Status {
    let line = match stderr::format() {
        Format::Text => format!("ghest: {message}\n"),
        Format::Json => {
            let level = if status == Status::Success { "INFO" } else { "ERROR" };
            format!("{}\n", json!({ "level": level, "message": message, "status": status.code() }))
        }
    };
    stderr::write(&line);
    status
}
