//! The report of a signal that ends the process: above all of a SIGBUS, when a thread accessed poisoned memory and cannot continue.
//!
//! It runs in the signal handler, so it takes no lock, does not allocate, and makes only async-signal-safe calls. It restores
//! the terminal's mode and removes the control socket, waits a moment for the journal's writer, writes a line to standard error and
//! the last line of the event file, neither of which waits for a reader, and determines the exit status.

use std::fmt::{self, Write};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_memory::sigbus::{self, FatalSignal};
use ras_core::actions::StopReason;
use rustix::stdio::stderr;
use rustix::thread::{Timespec, nanosleep};

use crate::journal::FinalOutput;
use crate::signals::{self, SignalName};
use crate::status::Status;

/// The outputs.
static OUTPUT: OnceLock<FinalOutput> = OnceLock::new();
/// Whether the event file has its last line.
static IS_COMPLETE: AtomicBool = AtomicBool::new(false);
/// How often, and at which interval, the report checks whether earlier events are written: a tenth of a second at most. The
/// thread that cannot continue may be the one that writes them.
const FLUSH_CHECKS: u32 = 100;
const FLUSH_CHECK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Sets the outputs of the report. Only the first call has an effect.
pub fn set_output(output: FinalOutput) {
    // An error means that it was set before.
    let _ = OUTPUT.set(output);
}

/// Keeps later signals out of the event file, whose last line is about to be written.
pub fn complete_event_file() {
    IS_COMPLETE.store(true, Ordering::SeqCst);
}

/// Installs the process's SIGBUS handler, with the report of this module for a signal that ends the process.
///
/// # Errors
/// Returns an error if it is installed already, or sigaction(2) fails.
#[expect(unsafe_code, reason = "a function is installed that runs in a signal handler")]
pub fn install_handler() -> io::Result<()> {
    // SAFETY: `report` is async-signal-safe: it reads statics that are set once and atomics, formats into a buffer on the stack, and
    // makes system calls: tcsetattr(3), lstat(2), unlink(2), nanosleep(2), poll(2) and write(2). It does not allocate or unwind, and
    // waits for a tenth of a second at most.
    unsafe { sigbus::install(report) }
}

/// Reports the signal and returns the exit status of the process. Async-signal-safe.
#[must_use]
fn report(signal: &FatalSignal) -> i32 {
    signals::clean_up_in_signal_handler();
    let report = Report(signal);
    let status = report.status().code();
    write_report(&report, status);
    status.into()
}

/// Reports a signal that ends the process, other than SIGBUS. Async-signal-safe.
pub(crate) fn report_stop(signal: u8) {
    write_report(&format_args!("stopped by signal {}", SignalName(signal)), Status::Signal(signal).code());
}

/// Reports that an orderly stop, which a signal has requested, takes too long. Async-signal-safe.
pub(crate) fn report_overdue_stop(signal: u8) {
    let name = SignalName(signal);
    write_report(
        &format_args!("stopped by signal {name}, not in order: that took too long"),
        Status::Signal(signal).code(),
    );
}

/// Writes a report, which needs no escapes in JSON, to standard error and the event file.
fn write_report(report: &dyn fmt::Display, status: u8) {
    let mut line = LineBuffer::default();
    // An error means that the line was truncated.
    let _ = writeln!(line, "ghest: {report}");
    if let Some(output) = OUTPUT.get() {
        let mut checks = 0..FLUSH_CHECKS;
        while !output.is_flushed() && checks.next().is_some() {
            let _ = nanosleep(&FLUSH_CHECK_INTERVAL);
        }
    }
    FinalOutput::write(stderr(), line.bytes());
    let events = OUTPUT.get().and_then(|output| Some((output, output.events()?)));
    if let Some((output, events)) = events.filter(|_| !IS_COMPLETE.swap(true, Ordering::SeqCst)) {
        let mut line = LineBuffer::default();
        let time = output.elapsed().as_nanos();
        let _ = writeln!(
            line,
            "{{\"t_ns\":{time},\"event\":\"stopped\",\"reason\":\"{report}\",\"status\":{status}}}"
        );
        FinalOutput::write(events, line.bytes());
    }
}

/// BUS_MCEERR_AR and BUS_MCEERR_AO: si_code of a SIGBUS (linux/asm-generic/siginfo.h).
const BUS_MCEERR: [i32; 2] = [4, 5];

/// The text of the report. It needs no escapes in JSON.
struct Report<'a>(&'a FatalSignal);

impl Report<'_> {
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

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FatalSignal { hva, code, log2_len, guest, sender } = self.0;
        match (self.is_memory_error(), guest) {
            (true, None) => write!(
                f,
                "stopped: memory error in the VMM's own memory: 2^{log2_len} bytes around HVA {hva:#x}"
            ),
            (true, Some(gpa)) => write!(
                f,
                "stopped: the VMM accessed poisoned guest memory and cannot recover: 2^{log2_len} bytes around GPA {gpa:#x}"
            ),
            (false, _) if *code <= 0 && *sender != 0 => {
                write!(f, "stopped by a SIGBUS that process {sender} sent")
            }
            (false, _) if *code <= 0 => write!(
                f,
                "stopped by a SIGBUS without siginfo: the limit of pending signals (ulimit -i) was reached, or a process outside this \
                 PID namespace sent it"
            ),
            (false, Some(gpa)) => write!(
                f,
                "SIGBUS (si_code {code}) at GPA {gpa:#x}, not a memory error: the file behind guest memory was truncated, or the \
                 host's pool of huge pages is exhausted"
            ),
            (false, None) => write!(
                f,
                "SIGBUS (si_code {code}) at HVA {hva:#x}, not a memory error: a mapped file was truncated"
            ),
        }
    }
}

/// A line on the stack. What does not fit is truncated.
struct LineBuffer {
    bytes: [u8; 512],
    len: usize,
}

impl Default for LineBuffer {
    fn default() -> Self {
        LineBuffer { bytes: [0; 512], len: 0 }
    }
}

impl LineBuffer {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for LineBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.len..).ok_or(fmt::Error)?;
        let len = free.len().min(text.len());
        if let (Some(to), Some(from)) = (free.get_mut(..len), text.as_bytes().get(..len)) {
            to.copy_from_slice(from);
        }
        self.len += len;
        if len == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_text_and_exit_status() {
        let report = |code, guest| {
            let signal = FatalSignal { hva: 0x7f00_0000_1000, code, log2_len: 12, guest, sender: 77 };
            (Report(&signal).status().code(), Report(&signal).to_string())
        };
        let (status, text) = report(4, None);
        assert!(status == 11 && text.contains("0x7f0000001000"), "{text}");
        let (status, text) = report(4, Some(0x2000));
        assert!(status == 10 && text.contains("around GPA 0x2000"), "{text}");
        let (status, text) = report(2, Some(0x2000));
        assert!(status == 1 && text.contains("truncated"), "{text}");
        assert_eq!(report(0, None), (135, "stopped by a SIGBUS that process 77 sent".into()));
        assert!(!report(2, None).1.contains(['"', '\\']));
    }

    #[test]
    fn a_line_that_is_too_long_is_truncated() {
        let mut line = LineBuffer::default();
        assert!(write!(line, "{}", "x".repeat(600)).is_err());
        assert_eq!(line.len, 512);
    }
}
