//! The journal as a whole: the event file, and clients that follow it.

use std::io::{BufRead, BufReader};

use super::log::LogText;
use super::*;

#[test]
fn an_error_in_own_memory_is_reported_with_its_hva() {
    let fault = sigbus::Fault { hva: 0x7000, log2_len: 12, action: sigbus::Action::Optional };
    let note = Note::OwnMemory(fault);
    assert!(LogText(&note).to_string().ends_with("2^12 bytes around HVA 0x7000"));
    let expected = "{\"t_ns\":5,\"event\":\"memory-error\",\"class\":\"AO\",\"gpa\":null,\"hva\":28672,\
                    \"span\":4096,\"vcpu\":null,\"origin\":\"sigbus\",\"response\":\"stop\"}\n";
    assert_eq!(line(Duration::from_nanos(5), note.name().as_str(), fields(&note)), expected);
}

/// Far more events than the queue holds, faster than they are written.
#[test]
fn a_burst_of_events_is_written_completely_and_in_order() {
    const EVENTS: u32 = 60_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events");
    let journal = Journal::start(Some(&path), Arc::new(Timings::start())).expect("a new file");
    (0..EVENTS).for_each(|n| journal.note(Note::Held(n)));
    assert_eq!(journal.flush(Duration::from_secs(60)), Missing { events: 0, log_lines: 0 });
    let text = std::fs::read_to_string(&path).expect("an event file");
    let vcpus = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["vcpu"].as_u64());
    assert!(vcpus.eq((0..EVENTS).map(|n| Some(n.into()))));
}

/// Far more events than the queue holds, and than are permitted at once.
#[test]
fn every_event_is_in_the_file_or_counted_there() {
    const THREADS: u64 = 4;
    const EVENTS: u64 = 50_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events");
    let journal = Journal::start(Some(&path), Arc::new(Timings::start())).expect("a new file");
    std::thread::scope(|scope| {
        for vcpu in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || (0..EVENTS).for_each(|_| journal.note(Note::Held(vcpu as u32))));
        }
    });
    journal.flush(Duration::from_secs(60));
    journal.note(Note::Stopped { reason: String::new(), status: 0 });
    let missing = journal.flush(Duration::from_secs(60)).events;
    let text = std::fs::read_to_string(&path).expect("an event file");
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count() as u64;
    assert_eq!((count("held") + missing, count("stopped")), (THREADS * EVENTS, 1));
    let dropped = events.iter().filter_map(|event| event["missing"].as_u64());
    assert_eq!(dropped.sum::<u64>(), missing);
    assert!(missing > 0 && journal.lost().events == missing);
    assert!(events.iter().map(|event| event["t_ns"].as_u64().expect("t_ns")).is_sorted());
    assert_eq!(journal.counts()["held"], THREADS * EVENTS);
}

/// What a follower does not read costs the event file nothing, and is counted in its place.
#[test]
fn a_follower_that_does_not_read_in_time_gets_the_number_of_missing_events() {
    const EVENTS: u32 = 60_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events");
    let journal = Journal::start(Some(&path), Arc::new(Timings::start())).expect("a new file");
    let (reader, client) = UnixStream::pair().expect("sockets");
    journal.follow(client, "first\n".into());
    (0..EVENTS).for_each(|n| journal.note(Note::Held(n)));
    assert_eq!(journal.flush(Duration::from_secs(60)).events, 0);
    reader.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut lines = BufReader::new(reader).lines().map(|line| line.expect("a line"));
    assert_eq!(lines.next().as_deref(), Some("first"));
    let (mut read, mut missing, mut noted) = (0, 0, EVENTS);
    // Those that are noted while it reads have numbers that follow.
    let last = loop {
        let event: Value = serde_json::from_str(&lines.next().expect("an event")).expect("JSON");
        match (event["vcpu"].as_u64(), event["missing"].as_u64()) {
            (Some(vcpu), _) if vcpu >= EVENTS.into() => break vcpu,
            (Some(_), _) => read += 1,
            (None, dropped) => missing += dropped.expect("an event `dropped`"),
        }
        journal.note(Note::Held(noted));
        noted += 1;
    };
    assert!(missing > 0 && read > 0);
    assert_eq!(read + missing, last);
}

#[test]
fn a_follower_that_goes_is_forgotten() {
    let journal = Journal::start(None, Arc::new(Timings::start())).expect("a thread");
    let (reader, client) = UnixStream::pair().expect("sockets");
    journal.follow(client, String::new());
    journal.note(Note::Held(1));
    let mut line = String::new();
    BufReader::new(&reader).read_line(&mut line).expect("an event");
    assert!(line.ends_with("\"event\":\"held\",\"vcpu\":1}\n"), "{line}");
    assert_eq!(journal.followers(), 1);
    drop(reader);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while journal.followers() > 0 {
        assert!(std::time::Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// docs/events.md has a row for each event, with each of its fields.
#[test]
fn events_are_documented() {
    const PAGE: &str = include_str!("../../../docs/events.md");
    let span = Span::around(0x1000, 12);
    let error = MemoryError {
        kind: Kind::ActionRequired,
        severity: ras_core::Severity::Recoverable,
        gpa: 0x1000,
        span,
        vcpu: Some(0),
        origin: Origin::Sigbus,
        time_ns: 0,
    };
    let overdue =
        Unacknowledged { source: None, span, severity: ras_core::Severity::Recoverable, consumed_by: None };
    let fault = sigbus::Fault { hva: 0, log2_len: 12, action: sigbus::Action::Optional };
    let (source, gpa, response) = (0, 0, Response::Stop);
    let samples = [
        Note::Plan(json!({})),
        Note::VcpuStarted(0),
        Note::FirstExit { vcpu: 0, exit: "io" },
        Note::GuestShutdown { how: "reset", after_error: Some(overdue) },
        Note::MemoryError { error, response },
        Note::OwnMemory(fault),
        Note::Notified { how: "sea", vcpu: Some(0) },
        Note::Held(0),
        Note::Released(0),
        Note::DeviceNeedsReset(0),
        Note::Repaired(span),
        Note::NotRepaired(span),
        Note::Evacuate { pages: 1, budget: 1 },
        Note::Retired { span, host_address: None },
        Note::Unusable { gpa, len: 0x1000 },
        Note::LedgerRead { poisoned: 0, not_applied: None },
        Note::LedgerNotWritten { because: String::new() },
        Note::Stopped { reason: String::new(), status: 0 },
        Note::ErrorEvent(ErrorEvent::Handled { span, response }),
        Note::ErrorEvent(ErrorEvent::RecordWritten { source, gpa, span }),
        Note::ErrorEvent(ErrorEvent::NotReported { source, span }),
        Note::ErrorEvent(ErrorEvent::Acknowledged { source, span, after_ns: 0 }),
        Note::ErrorEvent(ErrorEvent::Queued { source, span }),
        Note::ErrorEvent(ErrorEvent::Coalesced { source, span }),
        Note::ErrorEvent(ErrorEvent::Overdue(overdue)),
        Note::ErrorEvent(ErrorEvent::ThresholdExceeded { source, span, errors: 1 }),
        Note::ErrorEvent(ErrorEvent::Overflowed { source, span, times: 1 }),
    ];
    for note in &samples {
        let name = note.name().as_str();
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        for field in fields(note).keys() {
            assert!(row.contains(&format!("`{field}`")), "no field {field} in: {row}");
        }
    }
    let missing = Name::ALL.iter().find(|name| !samples.iter().any(|note| note.name().as_str() == **name));
    assert_eq!(missing, None, "an event without a sample here");
}
