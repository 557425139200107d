//! The event file, one JSON object per line, for programs; and the same events in the log, for people.
//!
//! A thread that has something to report only puts it into a queue, without an allocation, a wait for an output, or, but for a burst,
//! a lock. One thread, the journal's writer, formats it and writes it: to the event file, to standard error, and to the clients of the
//! control socket that follow the events. Lines are in the order of their times.

mod final_output;
mod followers;
mod log;
mod name;
mod queue;
mod sink;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guest_memory::sigbus;
use ras_core::actions::{ErrorEvent, Unacknowledged};
use ras_core::{Kind, MemoryError, Origin, Response, Span};
use serde_json::{Map, Value, json};

pub use final_output::FinalOutput;
pub use queue::{Missing, Queue};

use crate::stderr;
use crate::timings::Timings;
use log::log;
use name::Name;
use queue::Item;
use sink::Sink;

/// The events of a machine. Without a file, they are only logged.
#[derive(Debug)]
pub struct Journal {
    clock: Arc<Timings>,
    queue: Queue,
    /// How often each event happened, by [`Name`].
    counts: [AtomicU64; Name::ALL.len()],
    /// A duplicate of the event file, for a signal handler.
    file: Option<File>,
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
    /// The guest has ended.
    GuestShutdown {
        /// How: `power-off`, `reset` or `crash`.
        how: &'static str,
        /// What it had not acknowledged when it was reset or crashed.
        after_error: Option<Unacknowledged>,
    },
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
    /// The device at this position in the profile has set DEVICE_NEEDS_RESET.
    DeviceNeedsReset(usize),
    /// Poisoned pages were replaced.
    Repaired(Span),
    /// Poisoned pages could not be replaced.
    NotRepaired(Span),
    /// The error budget is spent: the machine should move to another host.
    Evacuate {
        /// Distinct pages of 4 KiB that were poisoned so far.
        pages: u64,
        /// The budget.
        budget: u32,
    },
    /// Guest memory was moved away from a page of the host that is suspect.
    Retired {
        /// The guest memory.
        span: Span,
        /// The physical address of that page. `None` if it is not known.
        host_address: Option<u64>,
    },
    /// Memory is poisoned, and unusable for the boot that is about to begin: its memory map says so.
    Unusable {
        /// Its first GPA.
        gpa: u64,
        /// Its bytes.
        len: u64,
    },
    /// The ledger of an earlier process was read at the start.
    LedgerRead {
        /// Bytes of memory that it has as poisoned.
        poisoned: u64,
        /// Why they are not poisoned in this machine's memory. `None` if they are.
        not_applied: Option<String>,
    },
    /// The file of the ledger cannot be written. It is tried again.
    LedgerNotWritten {
        /// The system call and its error.
        because: String,
    },
    /// The machine has ended.
    Stopped {
        /// Why, for people.
        reason: String,
        /// The exit status of the process.
        status: u8,
    },
}

impl Journal {
    /// Creates the event file and starts the writer. Without a file, events are only logged.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created, standard error cannot be duplicated, or the writer cannot be started.
    pub fn start(path: Option<&Path>, clock: Arc<Timings>) -> io::Result<Self> {
        let events = path.map(|path| Sink::create(path, dropped)).transpose()?;
        let file = events.as_ref().map(Sink::duplicate).transpose()?.map(File::from);
        let queue = writer::start(events, Sink::stderr(stderr::notice)?)?;
        Ok(Journal { clock, queue, counts: Default::default(), file })
    }

    /// Where lines for standard error are queued.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Access to the outputs for a signal handler.
    ///
    /// # Errors
    /// Returns the error of dup(2).
    pub fn final_output(&self) -> io::Result<FinalOutput> {
        let file = self.file.as_ref().map(File::try_clone).transpose()?;
        Ok(FinalOutput::new(file, Arc::clone(&self.clock), Arc::clone(self.queue.state())))
    }

    /// How often each event happened so far.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = Name::ALL.iter().zip(&self.counts);
        counts.map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }

    /// Reports an event. Allocates nothing, and never waits.
    pub fn note(&self, note: Note) {
        self.counts[note.name() as usize].fetch_add(1, Ordering::Relaxed);
        self.queue.push(Item::Event(self.clock.elapsed(), note));
    }

    /// Sends a client of the control socket the line `first`, and then the events to come, until it goes. Nothing waits for it: an event
    /// `dropped` has the number of those that it was too slow for.
    pub fn follow(&self, client: UnixStream, first: String) {
        self.queue.follow(client, first);
    }

    /// The number of clients that follow the events.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.queue.followers()
    }

    /// What is missing for ever in the outputs.
    #[must_use]
    pub fn lost(&self) -> Missing {
        self.queue.lost()
    }

    /// Waits until everything is written that was reported before, until the timeout at most. Returns what is not written.
    pub fn flush(&self, timeout: Duration) -> Missing {
        self.queue.flush(timeout);
        self.queue.unwritten()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.state().close();
    }
}

/// The event in the place of those that could not be written.
fn dropped(time: Duration, events: u64) -> String {
    let mut fields = Map::new();
    fields.insert("missing".into(), events.into());
    line(time, "dropped", fields)
}

/// A line of the event file.
fn line(time: Duration, event: &str, fields: Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("t_ns".into(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into());
    line.insert("event".into(), event.into());
    line.extend(fields);
    format!("{}\n", Value::Object(line))
}

/// The fields of an event beside its time and name.
fn fields(note: &Note) -> Map<String, Value> {
    let span = |span: &Span| json!({ "gpa": span.gpa, "span": span.bytes() });
    let with = |pages: &Span, further: Value| match (span(pages), further) {
        (Value::Object(mut fields), Value::Object(further)) => {
            fields.extend(further);
            Value::Object(fields)
        }
        (fields, _) => fields,
    };
    let fields = match note {
        Note::Plan(plan) => plan.clone(),
        Note::VcpuStarted(vcpu) => json!({ "vcpu": vcpu }),
        Note::FirstExit { vcpu, exit } => json!({ "vcpu": vcpu, "exit": exit }),
        Note::GuestShutdown { how, after_error: Some(error) } => {
            json!({ "how": how, "after-error": error.span.gpa })
        }
        Note::GuestShutdown { how, after_error: None } => json!({ "how": how }),
        Note::MemoryError { error, response } => json!({
            "class": error.kind,
            "severity": error.severity,
            "gpa": error.gpa,
            "span": error.span.bytes(),
            "vcpu": error.vcpu,
            "origin": error.origin,
            "response": response,
        }),
        Note::OwnMemory(sigbus::Fault { hva, log2_len, action }) => json!({
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
        Note::Notified { how, vcpu: Some(vcpu) } => json!({ "how": how, "vcpu": vcpu }),
        Note::Notified { how, vcpu: None } => json!({ "how": how }),
        Note::Held(vcpu) => json!({ "vcpu": vcpu }),
        Note::Released(vcpu) => json!({ "vcpu": vcpu }),
        Note::DeviceNeedsReset(device) => json!({ "device": device }),
        Note::Repaired(pages) => span(pages),
        Note::NotRepaired(pages) => span(pages),
        Note::Retired { span, host_address } => with(span, json!({ "host-address": host_address })),
        Note::Unusable { gpa, len } => json!({ "gpa": gpa, "span": len }),
        Note::LedgerRead { poisoned, not_applied } => {
            json!({ "poisoned": poisoned, "applied": not_applied.is_none(), "because": not_applied })
        }
        Note::LedgerNotWritten { because } => json!({ "because": because }),
        Note::Evacuate { pages, budget } => json!({ "pages": pages, "budget": budget }),
        Note::Stopped { reason, status } => json!({ "reason": reason, "status": status }),
        Note::ErrorEvent(event) => match event {
            ErrorEvent::Handled { span, response } => with(span, json!({ "response": response })),
            ErrorEvent::RecordWritten { source, gpa, span } => {
                with(span, json!({ "source": source, "address": gpa }))
            }
            ErrorEvent::Acknowledged { source, span, after_ns } => {
                with(span, json!({ "source": source, "after_ns": after_ns }))
            }
            ErrorEvent::Queued { source, span }
            | ErrorEvent::Coalesced { source, span }
            | ErrorEvent::NotReported { source, span } => with(span, json!({ "source": source })),
            ErrorEvent::Overdue(Unacknowledged { source, span, consumed_by, .. }) => {
                with(span, json!({ "source": source, "consumed_by": consumed_by }))
            }
            ErrorEvent::ThresholdExceeded { source, span, errors } => {
                with(span, json!({ "source": source, "errors": errors }))
            }
            ErrorEvent::Overflowed { source, span, times } => {
                with(span, json!({ "source": source, "times": times }))
            }
        },
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Every thread reports events.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Journal>();
    is_send_and_sync::<Note>();
    is_send_and_sync::<FinalOutput>();
};

#[cfg(test)]
mod tests;
