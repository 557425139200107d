//! The event file, one JSON object per line, for programs; and the same events in the log, for people.
//!
//! Between a signal and the exception that reports it, an event is only noted, which costs a lock and a copy. It is written
//! later, by [`Journal::flush`]. Lines are in the order of their times.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guest_memory::sigbus;
use ras_core::actions::{ErrorEvent, Overdue};
use ras_core::{Kind, MemoryError, Origin, Response, Span};
use serde_json::{Map, Value, json};

use crate::timings::Timings;

/// The events of a machine. Without a file, they are only logged.
#[derive(Debug)]
pub struct Journal {
    clock: Arc<Timings>,
    notes: Mutex<VecDeque<(Duration, Note)>>,
    /// Whether there are notes. Read before every entry into the guest, without the lock.
    pending: AtomicBool,
    /// Locked while notes are written, so that they stay in order.
    written: Mutex<Written>,
}

/// What was written so far.
#[derive(Debug)]
struct Written {
    file: Option<File>,
    /// How often each event happened.
    counts: BTreeMap<&'static str, u64>,
}

/// An event.
#[derive(Clone, Debug)]
pub enum Note {
    /// The plan.
    Plan(Value),
    /// A vCPU enters the guest for the first time.
    VcpuStarted(u32),
    /// The first exit to the VMM.
    FirstExit {
        /// Index of the vCPU.
        vcpu: u32,
        /// Name of the exit.
        exit: &'static str,
    },
    /// The guest requested its machine's end: `power-off` or `reset`.
    GuestShutdown(&'static str),
    /// The VMM received a memory error.
    MemoryError {
        /// The error.
        error: MemoryError,
        /// The plan's response to such errors.
        response: Response,
    },
    /// A memory error in this process's own memory, not in guest memory.
    OwnMemory(sigbus::Fault),
    /// The guest was notified of a record, or an exception was injected.
    Notified {
        /// How.
        how: &'static str,
        /// The vCPU of an exception. `None` for an interrupt line.
        vcpu: Option<u32>,
    },
    /// A vCPU is held until the guest has read a record.
    Held(u32),
    /// A held vCPU is released.
    Released(u32),
    /// A step in the reporting of an error.
    ErrorEvent(ErrorEvent),
    /// Poisoned pages were replaced.
    Repaired(Span),
    /// Poisoned pages could not be replaced.
    NotRepaired(Span),
    /// The machine has ended.
    Stopped {
        /// Why, for people.
        reason: String,
        /// The exit status of the process.
        status: u8,
    },
}

/// Notes that the queue holds before it allocates memory.
const NOTES_CAPACITY: usize = 1024;

impl Journal {
    /// A journal that writes to a new file, or without a file only to the log.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn new(path: Option<&Path>, clock: Arc<Timings>) -> io::Result<Self> {
        let written = Written { file: path.map(File::create).transpose()?, counts: BTreeMap::new() };
        let notes = Mutex::new(VecDeque::with_capacity(NOTES_CAPACITY));
        Ok(Journal { clock, notes, pending: AtomicBool::new(false), written: Mutex::new(written) })
    }

    /// Access to the file for a signal handler. `None` if there is no file, or dup(2) fails.
    #[must_use]
    pub fn last_line(&self) -> Option<LastLine> {
        let file = lock(&self.written).file.as_ref()?.try_clone().ok()?;
        Some(LastLine { file, clock: Arc::clone(&self.clock) })
    }

    /// How often each event happened so far.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.written).counts.clone()
    }

    /// Notes an event, to be written later.
    pub fn note(&self, note: Note) {
        let mut notes = lock(&self.notes);
        // Under the lock, so that notes are in the order of their times.
        notes.push_back((self.clock.elapsed(), note));
        self.pending.store(true, Ordering::Release);
    }

    /// Writes an event, after all that were noted before.
    pub fn write(&self, note: Note) {
        self.note(note);
        self.flush();
    }

    /// Writes the events that were noted.
    pub fn flush(&self) {
        if !self.pending.load(Ordering::Acquire) {
            return;
        }
        let mut written = lock(&self.written);
        loop {
            let next = {
                let mut notes = lock(&self.notes);
                let next = notes.pop_front();
                self.pending.store(!notes.is_empty(), Ordering::Release);
                next
            };
            let Some((time, note)) = next else { return };
            log(&note);
            let (event, fields) = event(&note);
            *written.counts.entry(event).or_default() += 1;
            let Some(file) = written.file.as_mut() else { continue };
            let line = line(time, event, fields);
            if let Err(error) = file.write_all(line.as_bytes()) {
                tracing::error!(%error, "write(2) to the event file failed: an event is missing there");
            }
        }
    }
}

/// Access to the event file without a lock, for the handler of a signal that ends the process.
#[derive(Debug)]
pub struct LastLine {
    file: File,
    clock: Arc<Timings>,
}

impl LastLine {
    /// The file.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Time since the start of the process.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The target of log lines about memory errors.
const LOG_TARGET: &str = "memory-error";

/// Writes an event to the log: those of memory errors as text, the others as fields at debug level.
fn log(note: &Note) {
    match note {
        Note::MemoryError { .. }
        | Note::ErrorEvent(
            ErrorEvent::Overdue(_) | ErrorEvent::Overflowed { .. } | ErrorEvent::NotReported { .. },
        ) => {
            tracing::warn!(target: LOG_TARGET, "{}", LogText(note));
        }
        Note::OwnMemory(_) | Note::NotRepaired(_) => tracing::error!(target: LOG_TARGET, "{}", LogText(note)),
        Note::Notified { .. }
        | Note::Held(_)
        | Note::Released(_)
        | Note::Repaired(_)
        | Note::ErrorEvent(ErrorEvent::RecordWritten { .. } | ErrorEvent::Acknowledged { .. }) => {
            tracing::info!(target: LOG_TARGET, "{}", LogText(note));
        }
        Note::ErrorEvent(_)
        | Note::Plan(_)
        | Note::VcpuStarted(_)
        | Note::FirstExit { .. }
        | Note::GuestShutdown(_)
        | Note::Stopped { .. } => {
            let (event, fields) = event(note);
            tracing::debug!(event, ?fields);
        }
    }
}

/// The text of a log line.
struct LogText<'a>(&'a Note);

impl fmt::Display for LogText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Note::MemoryError { error, response } => write!(f, "{error}; response: {response}"),
            Note::OwnMemory(sigbus::Fault { hva, log2_len, .. }) => {
                write!(f, "memory error in the VMM's own memory: 2^{log2_len} bytes around HVA {hva:#x}")
            }
            Note::Notified { how, vcpu: Some(vcpu) } => {
                write!(f, "the guest is notified by {how} on vCPU {vcpu}")
            }
            Note::Notified { how, vcpu: None } => write!(f, "the guest is notified by {how}"),
            Note::Held(vcpu) => {
                write!(f, "vCPU {vcpu} is held until the guest has acknowledged the previous record")
            }
            Note::Released(vcpu) => write!(f, "vCPU {vcpu} is released"),
            Note::Repaired(span) => write!(f, "{span} is repaired: fresh pages replace the poisoned ones"),
            Note::NotRepaired(span) => write!(f, "{span} stays poisoned: its pages cannot be replaced"),
            Note::ErrorEvent(ErrorEvent::RecordWritten { source, gpa, span }) => {
                write!(f, "a record of {span} is in the status block of error source {source}, at {gpa:#x}")
            }
            Note::ErrorEvent(ErrorEvent::Acknowledged { source, span, after_ns }) => {
                let after = Duration::from_nanos(*after_ns);
                write!(
                    f,
                    "the guest acknowledged the record of {span} (error source {source}) after {after:.1?}"
                )
            }
            Note::ErrorEvent(ErrorEvent::Overdue(Overdue { source, span, consumed_by })) => {
                write!(
                    f,
                    "the guest has not acknowledged the record of {span} (error source {source}) in time"
                )?;
                match consumed_by {
                    Some(vcpu) => {
                        write!(f, ": vCPU {vcpu} consumed the error, and the guest may hang since")
                    }
                    None => Ok(()),
                }
            }
            Note::ErrorEvent(ErrorEvent::NotReported { source, span }) => {
                write!(f, "the guest is not notified of {span}: error source {source} cannot report it")
            }
            Note::ErrorEvent(ErrorEvent::Overflowed { source, span, times }) => write!(
                f,
                "the queue of error source {source} is full: the record of {span} waits in the ledger (overflow {times})"
            ),
            note => write!(f, "{note:?}"),
        }
    }
}

/// A line of the event file.
fn line(time: Duration, event: &str, fields: Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("t_ns".into(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into());
    line.insert("event".into(), event.into());
    line.extend(fields);
    format!("{}\n", Value::Object(line))
}

/// The name of an event and its other fields.
fn event(note: &Note) -> (&'static str, Map<String, Value>) {
    let span = |span: &Span| json!({ "gpa": span.gpa, "span": span.bytes() });
    let with = |pages: &Span, further: Value| match (span(pages), further) {
        (Value::Object(mut fields), Value::Object(further)) => {
            fields.extend(further);
            Value::Object(fields)
        }
        (fields, _) => fields,
    };
    let (event, fields) = match note {
        Note::Plan(plan) => ("plan", plan.clone()),
        Note::VcpuStarted(vcpu) => ("vcpu-started", json!({ "vcpu": vcpu })),
        Note::FirstExit { vcpu, exit } => ("first-exit", json!({ "vcpu": vcpu, "exit": exit })),
        Note::GuestShutdown(how) => ("guest-shutdown", json!({ "how": how })),
        Note::MemoryError { error, response } => (
            "memory-error",
            json!({
                "class": error.kind,
                "gpa": error.gpa,
                "span": error.span.bytes(),
                "vcpu": error.vcpu,
                "origin": error.origin,
                "response": response,
            }),
        ),
        Note::OwnMemory(sigbus::Fault { hva, log2_len, action }) => (
            "memory-error",
            json!({
                "class": match action {
                    sigbus::Action::Required => Kind::ActionRequired,
                    sigbus::Action::Optional => Kind::ActionOptional,
                },
                "gpa": null,
                "hva": hva,
                "span": 1_u64.checked_shl((*log2_len).into()),
                "vcpu": null,
                "origin": Origin::Sigbus,
                "response": Response::Stop,
            }),
        ),
        Note::Notified { how, vcpu: Some(vcpu) } => ("notified", json!({ "how": how, "vcpu": vcpu })),
        Note::Notified { how, vcpu: None } => ("notified", json!({ "how": how })),
        Note::Held(vcpu) => ("held", json!({ "vcpu": vcpu })),
        Note::Released(vcpu) => ("released", json!({ "vcpu": vcpu })),
        Note::Repaired(pages) => ("repaired", span(pages)),
        Note::NotRepaired(pages) => ("not-repaired", span(pages)),
        Note::Stopped { reason, status } => ("stopped", json!({ "reason": reason, "status": status })),
        Note::ErrorEvent(event) => match event {
            ErrorEvent::Handled { span, response } => {
                ("answered", with(span, json!({ "response": response })))
            }
            ErrorEvent::RecordWritten { source, gpa, span } => {
                ("record-written", with(span, json!({ "source": source, "address": gpa })))
            }
            ErrorEvent::Acknowledged { source, span, after_ns } => {
                ("acknowledged", with(span, json!({ "source": source, "after_ns": after_ns })))
            }
            ErrorEvent::Queued { source, span } => ("queued", with(span, json!({ "source": source }))),
            ErrorEvent::Coalesced { source, span } => ("coalesced", with(span, json!({ "source": source }))),
            ErrorEvent::Overdue(Overdue { source, span, consumed_by }) => {
                ("overdue", with(span, json!({ "source": source, "consumed_by": consumed_by })))
            }
            ErrorEvent::NotReported { source, span } => {
                ("not-reported", with(span, json!({ "source": source })))
            }
            ErrorEvent::Overflowed { source, span, times } => {
                ("overflowed", with(span, json!({ "source": source, "times": times })))
            }
        },
    };
    match fields {
        Value::Object(fields) => (event, fields),
        _ => (event, Map::new()),
    }
}

/// Every thread notes events.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Journal>();
    is_send_and_sync::<Note>();
    is_send_and_sync::<LastLine>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_own_memory_is_reported_with_its_hva() {
        let fault = sigbus::Fault { hva: 0x7000, log2_len: 12, action: sigbus::Action::Optional };
        let note = Note::OwnMemory(fault);
        assert!(LogText(&note).to_string().ends_with("2^12 bytes around HVA 0x7000"));
        let expected = "{\"t_ns\":5,\"event\":\"memory-error\",\"class\":\"AO\",\"gpa\":null,\"hva\":28672,\
                        \"span\":4096,\"vcpu\":null,\"origin\":\"sigbus\",\"response\":\"stop\"}\n";
        let (event, fields) = event(&note);
        assert_eq!(line(Duration::from_nanos(5), event, fields), expected);
    }
}
