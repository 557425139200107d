//! Metrics of a machine. One table has each of them; the JSON of the control socket, its schema and the text form of Prometheus follow
//! from it.
//!
//! Names and units are those of Prometheus' conventions (<https://prometheus.io/docs/practices/naming/>): base units, counters that end
//! in `_total`. Every metric has the label `machine`.

mod file;

use std::borrow::Cow;
use std::fmt::Write as _;

use guest_memory::sigbus;
use ras_core::CorrectedErrors;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::journal::Missing;
use crate::ledger_file;
use crate::log_limit;
use crate::plan::PlanReport;
use crate::ras::{LedgerSummary, Reporting};

pub use file::MetricsFile;

/// A metric.
struct Metric {
    /// Its key in JSON.
    key: &'static str,
    /// Its name for Prometheus, without prefix, unit and `_total`.
    name: &'static str,
    kind: MetricKind,
    unit: Option<&'static str>,
    help: &'static str,
    value: fn(&Sample) -> MetricValue<'_>,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetricKind {
    /// It only increases while the process runs.
    Counter,
    Gauge,
}

/// The value of a metric.
enum MetricValue<'a> {
    Number(u64),
    /// One number for each event, by its name.
    ByEvent(&'a [(&'static str, u64)]),
    /// In JSON the list, for Prometheus its length.
    List(&'a [Value]),
}

use MetricKind::{Counter, Gauge};
use MetricValue::{ByEvent, List, Number};

const fn metric(
    key: &'static str,
    name: &'static str,
    kind: MetricKind,
    unit: Option<&'static str>,
    help: &'static str,
    value: fn(&Sample) -> MetricValue<'_>,
) -> Metric {
    Metric { key, name, kind, unit, help, value }
}

/// All metrics.
#[rustfmt::skip]
static METRICS: &[Metric] = &[
    metric("vcpus", "vcpus", Gauge, None, "vCPUs of the machine.", |it| Number(it.subject.vcpus.into())),
    metric("memory_bytes", "memory", Gauge, Some("bytes"), "Memory of the guest.", |it| Number(it.subject.memory)),
    metric("events", "events", Counter, None, "Events, by their name in the event file.", |it| ByEvent(&it.events)),
    metric("ledger_entries", "ledger_entries", Gauge, None, "Spans of guest memory in the ledger of poisoned pages.", |it| Number(it.ledger.entries)),
    metric("bytes_lost", "poisoned", Gauge, Some("bytes"), "Guest memory that is poisoned now.", |it| Number(it.ledger.poisoned_bytes)),
    metric("poisoned_pages", "poisoned_pages", Counter, None, "Distinct pages of 4 KiB that were poisoned, repaired or not: what the error budget counts.", |it| Number(it.ledger.pages)),
    metric("poisoned_pages_last_hour", "poisoned_pages_last_hour", Gauge, None, "Those of them whose first error was within the last hour.", |it| Number(it.ledger.pages_last_hour)),
    metric("last_error_gpa", "last_error_gpa", Gauge, None, "Guest physical address of the last memory error. 0 if there was none.", |it| Number(it.ledger.last_gpa)),
    metric("corrected_errors", "corrected_errors", Counter, None, "Corrected errors of memory.", |it| Number(it.corrected.errors)),
    metric("corrected_errors_not_reported", "corrected_errors_not_reported", Counter, None, "Those of them that the guest is not notified of: too many pages waited, or the guest was reset before.", |it| Number(it.corrected.not_reported)),
    metric("corrected_thresholds", "corrected_thresholds", Counter, None, "How often the corrected errors of a page have reached the threshold: the guest should no longer use it.", |it| Number(it.corrected.thresholds)),
    metric("retired_bytes", "retired", Counter, Some("bytes"), "Guest memory that was moved away from suspect pages of the host.", |it| Number(it.retired)),
    metric("overdue", "records_overdue", Gauge, None, "Error records that the guest has not acknowledged in time.", |it| List(&it.overdue)),
    metric("deaths_after_error", "deaths_after_error", Counter, None, "Resets and crashes of the guest with a memory error that it had not acknowledged.", |it| Number(it.deaths_after_error)),
    metric("signals_not_kept", "signals_not_kept", Counter, None, "Signals of memory errors (SIGBUS) that their queue had no space for.", |it| Number(it.signals_not_kept)),
    metric("events_not_written", "events_not_written", Counter, None, "Events that are missing in the event file.", |it| Number(it.missing.events)),
    metric("log_lines_not_written", "log_lines_not_written", Counter, None, "Log lines that are missing on standard error.", |it| Number(it.missing.log_lines)),
    metric("log_lines_suppressed", "log_lines_suppressed", Counter, None, "Log lines beyond the limit of lines from one place in the source.", |it| Number(it.log_lines_suppressed)),
    metric("ledger_not_written", "ledger_not_written", Counter, None, "Attempts to write the file of the ledger that failed.", |it| Number(it.ledger_not_written)),
    metric("metrics_not_written", "metrics_not_written", Counter, None, "Attempts to write the file of metrics that failed.", |it| Number(it.metrics_not_written)),
];

impl Metric {
    /// Its name for Prometheus.
    fn full_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let total = if self.kind == Counter { "_total" } else { "" };
        format!("ghest_{}{unit}{total}", self.name)
    }

    fn schema(&self) -> Value {
        let number = json!({ "type": "integer", "minimum": 0 });
        let mut schema = match (self.value)(&Sample::default()) {
            Number(_) => number,
            ByEvent(_) => json!({ "type": "object", "additionalProperties": number }),
            List(_) => json!({ "type": "array", "items": { "type": "object" } }),
        };
        schema["description"] = self.help.into();
        schema
    }
}

/// A machine, as its metrics name it.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Its name.
    pub machine: String,
    /// Its number of vCPUs.
    pub vcpus: u32,
    /// Bytes of its memory.
    pub memory: u64,
}

impl From<&PlanReport> for Subject {
    fn from(plan: &PlanReport) -> Self {
        Subject { machine: plan.machine.clone(), vcpus: plan.vcpus, memory: plan.memory }
    }
}

/// The values of all metrics at a time.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    subject: Subject,
    events: Vec<(&'static str, u64)>,
    ledger: LedgerSummary,
    corrected: CorrectedErrors,
    retired: u64,
    overdue: Vec<Value>,
    deaths_after_error: u64,
    signals_not_kept: u64,
    missing: Missing,
    log_lines_suppressed: u64,
    ledger_not_written: u64,
    metrics_not_written: u64,
}

impl Sample {
    /// The values of a machine now.
    #[must_use]
    pub fn take(subject: Subject, reporting: &Reporting) -> Self {
        let journal = reporting.journal();
        Sample {
            subject,
            events: journal.counts().into_iter().collect(),
            ledger: reporting.ledger_summary(),
            corrected: reporting.corrected_errors(),
            retired: reporting.retired_bytes(),
            overdue: reporting.overdue(),
            deaths_after_error: reporting.deaths_after_error(),
            signals_not_kept: sigbus::overflowed(),
            missing: journal.lost(),
            log_lines_suppressed: log_limit::suppressed(),
            ledger_not_written: ledger_file::failures(),
            metrics_not_written: file::failures(),
        }
    }

    /// As JSON: an object of all metrics by their keys.
    #[must_use]
    pub fn json(&self) -> Value {
        let values = METRICS.iter().map(|metric| {
            let value = match (metric.value)(self) {
                Number(number) => number.into(),
                ByEvent(counts) => counts
                    .iter()
                    .map(|(name, count)| ((*name).to_owned(), (*count).into()))
                    .collect::<Map<_, _>>()
                    .into(),
                List(entries) => entries.into(),
            };
            (metric.key.to_owned(), value)
        });
        Value::Object(values.collect())
    }

    /// In the text form of Prometheus, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let machine = escaped(&self.subject.machine);
        let mut text = String::new();
        for metric in METRICS {
            let name = metric.full_name();
            let kind = if metric.kind == Counter { "counter" } else { "gauge" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
            let _ = match (metric.value)(self) {
                Number(number) => writeln!(text, "{name}{{machine=\"{machine}\"}} {number}"),
                List(entries) => writeln!(text, "{name}{{machine=\"{machine}\"}} {}", entries.len()),
                ByEvent(counts) => counts.iter().try_for_each(|(event, count)| {
                    writeln!(text, "{name}{{machine=\"{machine}\",event=\"{event}\"}} {count}")
                }),
            };
        }
        text
    }
}

/// The value of a label, between its quotation marks.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The answer to a request for metrics: their values by key, or the text form.
#[derive(Debug)]
pub(crate) struct Answer;

impl JsonSchema for Answer {
    fn schema_name() -> Cow<'static, str> {
        "Metrics".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties: Map<String, Value> =
            METRICS.iter().map(|metric| (metric.key.to_owned(), metric.schema())).collect();
        let keys: Vec<_> = METRICS.iter().map(|metric| metric.key).collect();
        json_schema!({
            "description": "The value of each metric, or all of them in one text if `prometheus` was requested.",
            "anyOf": [
                { "type": "object", "properties": properties, "required": keys },
                {
                    "type": "object",
                    "properties": { "text": { "type": "string", "description": "The text form of Prometheus, version 0.0.4." } },
                    "required": ["text"],
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_have_the_same_values() {
        let sample = Sample {
            subject: Subject { machine: "a \"b\" \\".to_owned(), vcpus: 1, memory: 1 << 40 },
            events: vec![("held", 0), ("memory-error", 7)],
            overdue: vec![json!({ "source": 0 })],
            missing: Missing { events: 3, log_lines: 0 },
            ..Sample::default()
        };
        let (json, text) = (sample.json(), sample.prometheus());
        assert_eq!(json["events"], json!({ "held": 0, "memory-error": 7 }));
        assert_eq!((&json["events_not_written"], &json["overdue"]), (&3.into(), &json!([{ "source": 0 }])));
        for line in [
            "# TYPE ghest_memory_bytes gauge",
            r#"ghest_memory_bytes{machine="a \"b\" \\"} 1099511627776"#,
            "# TYPE ghest_events_total counter",
            r#"ghest_events_total{machine="a \"b\" \\",event="memory-error"} 7"#,
            r#"ghest_records_overdue{machine="a \"b\" \\"} 1"#,
            r#"ghest_events_not_written_total{machine="a \"b\" \\"} 3"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# HELP ").count(), METRICS.len());
        assert_eq!(json.as_object().expect("an object").len(), METRICS.len());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> =
            METRICS.iter().flat_map(|metric| [metric.full_name(), format!("json {}", metric.key)]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 2 * METRICS.len());
    }
}
