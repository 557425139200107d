//! Files that a command reads whole.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

/// Reads a file of at most `max` bytes, so that an endless one (`/dev/zero`, a pipe) ends the command and not the host.
///
/// # Errors
/// Returns the reason, without the file's name.
pub(super) fn read(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    read_from(File::open(path).map_err(|error| format!("open(2): {error}"))?, max)
}

/// The same, from what is open.
///
/// # Errors
/// Returns the reason.
pub(super) fn read_from(source: impl Read, max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    source.take(max + 1).read_to_end(&mut bytes).map_err(|error| format!("read(2): {error}"))?;
    if bytes.len() as u64 > max {
        return Err(format!("it has more than {max} bytes, the maximum"));
    }
    Ok(bytes)
}

/// What a file, or standard input for `-`, holds: at most `max` bytes, and at least one.
///
/// # Errors
/// Returns the reason, without the file's name.
pub(super) fn read_file_or_stdin(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let bytes = if is_stdin(path) { read_from(stdin().lock(), max) } else { read(path, max) }?;
    if bytes.is_empty() { Err("it is empty".to_owned()) } else { Ok(bytes) }
}

/// The name of a file, or of standard input for `-`.
pub(super) fn name(path: &Path) -> Cow<'_, str> {
    if is_stdin(path) { Cow::Borrowed("standard input") } else { path.to_string_lossy() }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}
