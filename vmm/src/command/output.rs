//! What commands print on standard output, and messages on standard error beside the log.

use std::io::{self, Write};

use machine_profile::printable::{escaped, escaped_json, escaped_lines};
use serde::Serialize;
use serde_json::json;
use vmm::status::Status;
use vmm::stderr::{self, Format};

/// Prints text for people, which may hold characters of files: none of them changes the terminal.
pub(super) fn print_text(text: &str) -> Status {
    print(&escaped_lines(text))
}

/// Prints the output of a command as it is. If it cannot be written, the status is that of an I/O error; a closed pipe, as
/// behind `ghest plan PROFILE | head`, needs no message.
pub(super) fn print(text: &str) -> Status {
    print_bytes(text.as_bytes())
}

/// Prints bytes.
pub(super) fn print_bytes(bytes: &[u8]) -> Status {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Status::Success,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Status::Failure,
        Err(error) => report(&format!("write(2) to standard output: {error}"), Status::Failure),
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
    let line = match stderr::format() {
        // Only a message starts a line: not a line end in a path.
        Format::Text => {
            let lines: Vec<_> = message.split('\n').map(|line| escaped(line.trim_start())).collect();
            format!("ghest: {}\n", lines.join("\n  "))
        }
        Format::Json => {
            let level = if status == Status::Success { "INFO" } else { "ERROR" };
            let line = json!({ "level": level, "message": message, "status": status.code() }).to_string();
            format!("{}\n", escaped_json(&line))
        }
    };
    stderr::write(&line);
    status
}
