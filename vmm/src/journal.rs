//! The event file: one JSON object a line, for programs that watch a machine; and the same story in the log, for people.
//!
//! What happens to a memory error is noted where it happens, on the way from a signal to the exception that answers it, and
//! written down when there is time ([`Journal::flush`]): a note costs a lock and a copy. Lines are in the order of their times.

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
use ras_core::actions::ErrorEvent;
use ras_core::{Kind, MemoryError, Origin, Response, Span};
use serde_json::{Map, Value, json};

use crate::timings::Timings;

/// What happens to a machine, as it happens. Without a file, events are only logged.
#[derive(Debug)]
pub struct Journal {
    clock: Arc<Timings>,
    notes: Mutex<VecDeque<(Duration, Note)>>,
    /// Whether there are notes: asked before every entry into the guest, without the lock.
    pending: AtomicBool,
    /// Held while notes are written, so that they are written in their order.
    written: Mutex<Written>,
}

/// What was written down so far.
#[derive(Debug)]
struct Written {
    file: Option<File>,
    /// How often each event happened.
    counts: BTreeMap<&'static str, u64>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Note {
    /// What was planned.
    Plan(Value),
    /// A vCPU enters the guest for the first time.
    VcpuStarted(u32),
    /// The guest left to the VMM for the first time.
    FirstExit {
        /// The vCPU that did, by index.
        vcpu: u32,
        /// The exit's name.
        exit: &'static str,
    },
    /// The guest ended its machine: `power-off` or `reset`.
    GuestShutdown(&'static str),
    /// A memory error came to the VMM.
    MemoryError {
        /// Which.
        error: MemoryError,
        /// What the plan answers to such errors.
        response: Response,
    },
    /// Memory of this process itself was lost, which is no guest's.
    OwnMemory(sigbus::Fault),
    /// The guest was notified of a record, or takes an exception.
    Notified {
        /// How.
        how: &'static str,
        /// The vCPU that takes it; none for an interrupt line.
        vcpu: Option<u32>,
    },
    /// A vCPU waits until a record was read.
    Held(u32),
    /// It no longer does.
    Released(u32),
    /// What became of an error.
    ErrorEvent(ErrorEvent),
    /// Fresh memory took the place of poisoned pages.
    Repaired(Span),
    /// Poisoned pages could not be replaced.
    NotRepaired(Span),
    /// The machine has ended.
    Stopped {
        /// Why, for people.
        reason: String,
        /// The status that the process ends with.
        status: u8,
    },
}

/// Notes that fit before memory is allocated for them.
const CAPACITY: usize = 1024;

impl Journal {
    /// A journal in a new file, or nowhere.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn new(path: Option<&Path>, clock: Arc<Timings>) -> io::Result<Self> {
        let written = Written { file: path.map(File::create).transpose()?, counts: BTreeMap::new() };
        let notes = Mutex::new(VecDeque::with_capacity(CAPACITY));
        Ok(Journal { clock, notes, pending: AtomicBool::new(false), written: Mutex::new(written) })
    }

    /// The way to its file for a last line; none where it has no file, or the host no descriptor.
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

    /// Notes something, to be written down later.
    pub fn note(&self, note: Note) {
        let mut notes = lock(&self.notes);
        // Under the lock, so that notes are in the order of their times.
        notes.push_back((self.clock.elapsed(), note));
        self.pending.store(true, Ordering::Release);
    }

    /// Writes something down, after all that was noted before.
    pub fn write(&self, note: Note) {
        self.note(note);
        self.flush();
    }

    /// Writes down what was noted.
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
            tell(&note);
            let (event, fields) = event(&note);
            *written.counts.entry(event).or_default() += 1;
            let Some(file) = written.file.as_mut() else { continue };
            let line = line(time, event, fields);
            if let Err(error) = file.write_all(line.as_bytes()) {
                tracing::error!(%error, "an event cannot be written to the event file");
            }
        }
    }
}

/// The way to the event file for who cannot wait for a lock: the handler of a signal that the process does not survive.
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

    /// Time since the process's start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What log lines about memory errors are under.
const TARGET: &str = "memory-error";

/// Writes what people want to know of memory errors to the log.
fn tell(note: &Note) {
    match note {
        Note::MemoryError { .. }
        | Note::ErrorEvent(ErrorEvent::Overdue { .. } | ErrorEvent::Overflowed { .. }) => {
            tracing::warn!(target: TARGET, "{}", Told(note));
        }
        Note::OwnMemory(_) | Note::NotRepaired(_) => tracing::error!(target: TARGET, "{}", Told(note)),
        Note::Notified { .. }
        | Note::Held(_)
        | Note::Released(_)
        | Note::Repaired(_)
        | Note::ErrorEvent(ErrorEvent::RecordWritten { .. } | ErrorEvent::Acknowledged { .. }) => {
            tracing::info!(target: TARGET, "{}", Told(note));
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

/// A note in words.
struct Told<'a>(&'a Note);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Note::MemoryError { error, response } => write!(f, "{error}; response: {response}"),
            Note::OwnMemory(sigbus::Fault { hva, log2_len, .. }) => write!(
                f,
                "memory of the VMM itself was lost: 2^{log2_len} bytes around address {hva:#x} of its process"
            ),
            Note::Notified { how, vcpu: Some(vcpu) } => write!(f, "vCPU {vcpu} takes {how}"),
            Note::Notified { how, vcpu: None } => write!(f, "the guest is notified by {how}"),
            Note::Held(vcpu) => write!(f, "vCPU {vcpu} waits until the guest has read the record before"),
            Note::Released(vcpu) => write!(f, "vCPU {vcpu} goes on"),
            Note::Repaired(span) => write!(f, "fresh memory takes the place of {span}"),
            Note::NotRepaired(span) => write!(f, "{span} cannot be replaced by fresh memory"),
            Note::ErrorEvent(ErrorEvent::RecordWritten { source, gpa, span }) => {
                write!(f, "a record of {span} is in the block of error source {source}, at {gpa:#x}")
            }
            Note::ErrorEvent(ErrorEvent::Acknowledged { source, span, after_ns }) => {
                let after = Duration::from_nanos(*after_ns);
                write!(
                    f,
                    "the guest acknowledged the record of {span} (error source {source}) after {after:.1?}"
                )
            }
            Note::ErrorEvent(ErrorEvent::Overdue { source, span }) => {
                write!(f, "the guest does not acknowledge the record of {span} (error source {source})")
            }
            Note::ErrorEvent(ErrorEvent::Overflowed { source, span, times }) => write!(
                f,
                "no room for a record of {span} at error source {source} now: it waits in the ledger (the {times}th)"
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

/// The name of an event, and what it says beyond that.
fn event(note: &Note) -> (&'static str, Map<String, Value>) {
    let span = |span: &Span| json!({ "gpa": span.gpa, "span": span.bytes() });
    let with = |span: &Span, further: Value| match (json!({ "gpa": span.gpa, "span": span.bytes() }), further)
    {
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
        Note::Repaired(lost) => ("repaired", span(lost)),
        Note::NotRepaired(lost) => ("not-repaired", span(lost)),
        Note::Stopped { reason, status } => ("stopped", json!({ "reason": reason, "status": status })),
        Note::ErrorEvent(mark) => match mark {
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
            ErrorEvent::Overdue { source, span } => ("overdue", with(span, json!({ "source": source }))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_memory_of_the_process_itself_is_told_by_its_own_address() {
        let fault = sigbus::Fault { hva: 0x7000, log2_len: 12, action: sigbus::Action::Optional };
        let note = Note::OwnMemory(fault);
        assert!(Told(&note).to_string().ends_with("2^12 bytes around address 0x7000 of its process"));
        let expected = "{\"t_ns\":5,\"event\":\"memory-error\",\"class\":\"AO\",\"gpa\":null,\"hva\":28672,\
                        \"span\":4096,\"vcpu\":null,\"origin\":\"sigbus\",\"response\":\"stop\"}\n";
        let (event, fields) = event(&note);
        assert_eq!(line(Duration::from_nanos(5), event, fields), expected);
    }
}
