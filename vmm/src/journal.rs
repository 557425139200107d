//! The event file: one JSON object a line, for programs that watch a machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ras_core::actions::Mark;
use ras_core::{MemoryError, Span};
use serde_json::{Value, json};

use crate::timings::Timings;

/// What happens to a machine, as it happens. Without a file, events are only logged.
#[derive(Debug)]
pub struct Journal {
    file: Option<Mutex<File>>,
    clock: Arc<Timings>,
}

impl Journal {
    /// A journal in a new file, or nowhere.
    ///
    /// # Errors
    /// Where the file can not be made.
    pub fn new(path: Option<&Path>, clock: Arc<Timings>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?.map(Mutex::new);
        Ok(Journal { file, clock })
    }

    /// What was planned.
    pub fn plan(&self, plan: &Value) {
        self.record("plan", plan.clone());
    }

    /// A vCPU enters the guest for the first time.
    pub fn vcpu_started(&self, vcpu: u32) {
        self.record("vcpu-started", json!({ "vcpu": vcpu }));
    }

    /// The guest left to the VMM for the first time.
    pub fn first_exit(&self, vcpu: u32, exit: &str) {
        self.record("first-exit", json!({ "vcpu": vcpu, "exit": exit }));
    }

    /// The guest ended its machine: `power-off` or `reset`.
    pub fn guest_shutdown(&self, how: &str) {
        self.record("guest-shutdown", json!({ "how": how }));
    }

    /// A memory error came to the VMM.
    pub fn memory_error(&self, error: &MemoryError) {
        let fields = json!({
            "class": error.kind,
            "gpa": error.gpa,
            "span": error.span.bytes(),
            "vcpu": error.vcpu,
            "origin": error.origin,
        });
        self.record("memory-error", fields);
    }

    /// The guest was notified of a record, or took an exception.
    pub fn notified(&self, how: &str) {
        self.record("notified", json!({ "how": how }));
    }

    /// Something of a memory error is to be written down.
    pub fn mark(&self, mark: &Mark) {
        let span = |span: &Span| json!({ "gpa": span.gpa, "span": span.bytes() });
        let (event, told, further) = match mark {
            Mark::Answered { span: told, response } => {
                ("answered", span(told), json!({ "response": response }))
            }
            Mark::RecordWritten { source, gpa, span: told } => {
                ("record-written", span(told), json!({ "source": source, "address": gpa }))
            }
            Mark::Acknowledged { source, span: told, after_ns } => {
                ("acknowledged", span(told), json!({ "source": source, "after_ns": after_ns }))
            }
            Mark::Queued { source, span: told } => ("queued", span(told), json!({ "source": source })),
            Mark::Coalesced { source, span: told } => ("coalesced", span(told), json!({ "source": source })),
            Mark::Overdue { source, span: told } => ("overdue", span(told), json!({ "source": source })),
            Mark::Overflowed { source, span: told, times } => {
                ("overflowed", span(told), json!({ "source": source, "times": times }))
            }
        };
        let mut fields = told;
        if let (Value::Object(fields), Value::Object(further)) = (&mut fields, further) {
            fields.extend(further);
        }
        self.record(event, fields);
    }

    /// The machine has ended.
    pub fn stopped(&self, reason: &str, status: u8) {
        self.record("stopped", json!({ "reason": reason, "status": status }));
    }

    fn record(&self, event: &str, mut fields: Value) {
        tracing::debug!(event, %fields);
        let Some(file) = &self.file else { return };
        // Before the clock is read, so that lines are in the order of their times.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Value::Object(fields) = &mut fields {
            let t_ns = u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
            fields.shift_insert(0, "event".into(), event.into());
            fields.shift_insert(0, "t_ns".into(), t_ns.into());
        }
        let mut line = fields.to_string();
        line.push('\n');
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::error!(%error, "an event can not be written to the event file");
        }
    }
}
