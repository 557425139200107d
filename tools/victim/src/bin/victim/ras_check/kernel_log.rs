//! The kernel's log, from a point in time on.
//!
//! Source: Linux, Documentation/ABI/testing/dev-kmsg.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// The longest record that /dev/kmsg has.
const MAX_RECORD_LEN: usize = 8192;
/// Lines that are returned at once.
const MAX_LINES: usize = 200;

pub(super) struct KernelLog(File);

impl KernelLog {
    /// The log from the next line on.
    pub(super) fn from_now() -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(KernelLog(file))
    }

    /// The lines that were added since the last call, without those that a full buffer has dropped.
    pub(super) fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0; MAX_RECORD_LEN];
        while lines.len() < MAX_LINES {
            match self.0.read(&mut record) {
                Ok(len) => lines.extend(text(&String::from_utf8_lossy(&record[..len])).map(str::to_owned)),
                // Records were overwritten.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break,
            }
        }
        lines
    }
}

/// `4,1234,56789,-;TEXT`, which may be followed by lines of key and value that begin with a blank.
fn text(record: &str) -> Option<&str> {
    record.lines().next()?.split_once(';').map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_one_line() {
        let record = "6,339,5140900,-;NET: Registered; family 10\n SUBSYSTEM=net\n";
        assert_eq!(text(record), Some("NET: Registered; family 10"));
        assert_eq!(text("garbage"), None);
    }
}
