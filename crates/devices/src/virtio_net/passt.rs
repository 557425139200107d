//! passt(1), started by this program: a network for a machine without any privilege.
//!
//! passt inherits one end of a socket pair, and ends when the other end is closed: also when this program is killed. What it writes is
//! logged.

use std::io::{self, PipeReader, Read, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use guest_memory::own;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, fchmod};
use rustix::io::dup;

/// The program, found in PATH.
const PROGRAM: &str = "passt";
/// How long passt may take until it serves its socket: a few milliseconds are usual.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Held while a passt is started, which inherits a descriptor.
static INHERITABLE: Mutex<()> = Mutex::new(());
/// What is kept of passt's output until it serves its socket.
const MAX_OUTPUT: usize = 4 << 10;

/// Why passt does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum PasstError {
    /// It is not installed.
    #[error("this host has no program {PROGRAM}")]
    Missing,
    /// It cannot be started.
    #[error("{PROGRAM} cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It has ended at once.
    #[error("{PROGRAM} has ended: {0}")]
    Ended(String),
    /// It does not serve its socket.
    #[error("{PROGRAM} does not serve its socket after {} s", START_TIMEOUT.as_secs())]
    Silent,
}

impl PasstError {
    /// A suggestion for the user.
    pub(super) fn help(&self) -> &'static str {
        match self {
            PasstError::Missing => {
                "install it (`apt install passt`), or name a running one: `socket = \"passt.socket\"`"
            }
            PasstError::Ended(_) => {
                "passt needs an interface with an address and a default route, and user namespaces; `passt --foreground` \
                 shows whether it starts"
            }
            PasstError::Start(_) | PasstError::Silent => "try `passt --foreground`",
        }
    }
}

/// A running passt, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Passt(Child);

impl Passt {
    /// Starts passt and waits until it serves its socket.
    ///
    /// # Errors
    /// Returns an error if it is not installed, or ends at once.
    pub(super) fn start(mtu: Option<u16>) -> Result<(Self, UnixStream), PasstError> {
        let (passt, socket, mut output) = Passt::spawn(mtu)?;
        await_ready(&mut output)?;
        log(output)?;
        Ok((passt, socket))
    }

    /// Starts passt in place of one that has ended. It gets the frames that are sent until it serves its socket.
    ///
    /// # Errors
    /// Returns an error if it cannot be started.
    pub(super) fn restart(mtu: Option<u16>) -> Result<(Self, UnixStream), PasstError> {
        let (passt, socket, output) = Passt::spawn(mtu)?;
        log(output)?;
        Ok((passt, socket))
    }

    fn spawn(mtu: Option<u16>) -> Result<(Self, UnixStream, PipeReader), PasstError> {
        let (ours, theirs) = UnixStream::pair()?;
        let (reader, writer) = pipe()?;
        // It opens its standard output anew, which root's passt does as another user.
        fchmod(&writer, Mode::RUSR | Mode::WUSR | Mode::WGRP | Mode::WOTH).map_err(io::Error::from)?;
        // No other process may inherit the socket: passt would not end then.
        let _inheritable = INHERITABLE.lock().unwrap_or_else(PoisonError::into_inner);
        // Not one of the standard streams, which are open: passt of Debian 13 closes those that are above it.
        let socket = dup(&theirs).map_err(io::Error::from)?;
        let mut command = Command::new(PROGRAM);
        // It writes its process id once it serves the socket.
        command.args(["--foreground", "--quiet", "--pid", "/proc/self/fd/1"]);
        command.arg("--fd").arg(socket.as_raw_fd().to_string());
        if let Some(mtu) = mtu {
            command.arg("--mtu").arg(mtu.to_string());
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // A signal of the terminal is for the machine, which ends passt after it.
        command.process_group(0);
        match command.spawn() {
            Ok(child) => Ok((Passt(child), ours, reader)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PasstError::Missing),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the line with the process id.
fn await_ready(output: &mut PipeReader) -> Result<(), PasstError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(PasstError::Silent),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut bytes = [0; 256];
        let len = output.read(&mut bytes)?;
        text.extend(bytes.iter().take(len.min(MAX_OUTPUT.saturating_sub(text.len()))));
        let lines: Vec<_> = text.split_inclusive(|&byte| byte == b'\n').collect();
        if lines.iter().any(|line| is_process_id(line)) {
            return Ok(());
        }
        if len == 0 {
            let lines = lines.into_iter().filter_map(message).collect::<Vec<_>>();
            return Err(PasstError::Ended(if lines.is_empty() {
                "no message".to_owned()
            } else {
                lines.join("; ")
            }));
        }
    }
}

/// Logs what passt writes until it ends.
fn log(mut output: PipeReader) -> io::Result<()> {
    let log = move || {
        let mut bytes = [0; 1024];
        while let Ok(len @ 1..) = output.read(&mut bytes) {
            // A line that arrives in parts is logged in parts.
            for message in bytes[..len].split_inclusive(|&byte| byte == b'\n').filter_map(message) {
                tracing::info!("{PROGRAM}: {}", message.escape_debug());
            }
        }
    };
    own::thread("passt-log").spawn(log).map(drop)
}

fn is_process_id(line: &[u8]) -> bool {
    line.strip_suffix(b"\n").is_some_and(|id| !id.is_empty() && id.iter().all(u8::is_ascii_digit))
}

/// A line that says something.
fn message(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line).trim().to_owned();
    // Without a system logger, passt says so before each of its messages, which it also writes to its standard error.
    let is_noise = text.is_empty() || text.ends_with("to syslog") || is_process_id(line);
    (!is_noise).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn outcome(output: &[u8]) -> Result<(), PasstError> {
        let (mut reader, mut writer) = pipe().expect("a pipe");
        writer.write_all(output).expect("space in the pipe");
        drop(writer);
        await_ready(&mut reader)
    }

    #[test]
    fn a_process_id_is_the_sign_that_it_serves() {
        assert!(outcome(b"Failed to send 47 bytes to syslog\nDon't run as root.\n4711\n").is_ok());
        let error =
            outcome(b"Failed to send 36 bytes to syslog\nNo interface\nNot usable\n").expect_err("it ended");
        assert_eq!(error.to_string(), "passt has ended: No interface; Not usable");
        // Not a whole line.
        assert_eq!(outcome(b"47").expect_err("it ended").to_string(), "passt has ended: 47");
        assert!(outcome(&[b'x'; 60_000]).is_err());
    }
}
