//! What is said when the process itself is hit: a thread touched memory that is lost, and cannot go on.
//!
//! It runs in the signal's handler: no lock, no allocation, only system calls that a handler may make. It puts the terminal
//! back, says what happened on standard error, closes the event file's story with its last line, and gives the exit status.

use std::fmt::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use guest_memory::sigbus::FatalSignal;
use ras_core::actions::StopReason;
use rustix::io::write;
use rustix::stdio::stderr;

use crate::console;
use crate::journal::LastLine;
use crate::status::Status;

/// Where the event file's last line goes.
static EVENTS: OnceLock<LastLine> = OnceLock::new();

/// From now on the event file gets its last line, however the process ends.
pub fn write_to(events: LastLine) {
    // An error means that it was set before.
    let _ = EVENTS.set(events);
}

/// Says them. The process ends with what is returned.
#[must_use]
pub fn say(signal: &FatalSignal) -> i32 {
    console::put_back_in_a_handler();
    let told = Told(signal);
    let status = told.status();
    let mut line = Line::default();
    // What does not fit is cut off.
    let _ = writeln!(line, "ghest: {told}");
    put(stderr(), &line);
    if let Some(events) = EVENTS.get() {
        let mut line = Line::default();
        let time = events.elapsed().as_nanos();
        let _ = writeln!(
            line,
            "{{\"t_ns\":{time},\"event\":\"stopped\",\"reason\":\"{told}\",\"status\":{}}}",
            status.code()
        );
        put(events.descriptor(), &line);
    }
    status.code().into()
}

/// si_code of a SIGBUS (linux/asm-generic/siginfo.h): memory was consumed, or found, lost.
const BUS_MCEERR: [i32; 2] = [4, 5];

/// What happened, in words that need no escape in JSON.
struct Told<'a>(&'a FatalSignal);

impl Told<'_> {
    fn is_memory_error(&self) -> bool {
        BUS_MCEERR.contains(&self.0.code)
    }

    fn status(&self) -> Status {
        match (self.is_memory_error(), self.0.guest) {
            (true, None) => Status::of_stop(StopReason::OwnMemory),
            (true, Some(_)) => Status::of_stop(StopReason::NotDeliverable),
            (false, _) if self.0.code <= 0 => Status::Signal(libc::SIGBUS as u8),
            (false, _) => Status::Failure,
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FatalSignal { hva, code, log2_len, guest } = self.0;
        match (self.is_memory_error(), guest) {
            (true, None) => write!(
                f,
                "stopped: memory of the VMM itself was lost: 2^{log2_len} bytes around address {hva:#x} of its process"
            ),
            (true, Some(gpa)) => write!(
                f,
                "stopped: the VMM touched poisoned memory of its guest where it cannot do without: 2^{log2_len} bytes around {gpa:#x}"
            ),
            (false, _) if *code <= 0 => write!(f, "stopped by SIGBUS, which a process sent"),
            (false, Some(gpa)) => write!(
                f,
                "a bus error (si_code {code}) at {gpa:#x} of the guest, which is no memory error: the file behind its memory \
                 was cut short, or the host's pool of huge pages is empty"
            ),
            (false, None) => write!(
                f,
                "a bus error (si_code {code}) at address {hva:#x}, which is no memory error: a file that is mapped was cut short"
            ),
        }
    }
}

/// A line on the stack.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { bytes: [0; 512], len: 0 }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).ok_or(fmt::Error)?;
        let len = room.len().min(text.len());
        if let (Some(to), Some(from)) = (room.get_mut(..len), text.as_bytes().get(..len)) {
            to.copy_from_slice(from);
        }
        self.len += len;
        if len == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

fn put(to: BorrowedFd<'_>, line: &Line) {
    // There is nobody left to tell where it cannot be written.
    let _ = write(to, line.bytes.get(..line.len).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_death_has_its_words_and_its_status() {
        let told = |code, guest| {
            let signal = FatalSignal { hva: 0x7f00_0000_1000, code, log2_len: 12, guest };
            (Told(&signal).status().code(), Told(&signal).to_string())
        };
        let (status, words) = told(4, None);
        assert!(status == 11 && words.contains("0x7f0000001000"), "{words}");
        let (status, words) = told(4, Some(0x2000));
        assert!(status == 10 && words.contains("around 0x2000"), "{words}");
        let (status, words) = told(2, Some(0x2000));
        assert!(status == 1 && words.contains("cut short"), "{words}");
        assert_eq!(told(0, None), (135, "stopped by SIGBUS, which a process sent".into()));
        assert!(!told(2, None).1.contains(['"', '\\']));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_off() {
        let mut line = Line::default();
        assert!(write!(line, "{}", "x".repeat(600)).is_err());
        assert_eq!(line.len, 512);
    }
}
