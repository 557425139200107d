use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ras_core::ledger::Ledger;
use ras_core::{Kind, MemoryError, Origin, Severity, Span};

use super::*;
use crate::timings::Timings;

/// A medium whose writes fail while it is to.
#[derive(Clone, Debug, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    fails: Arc<AtomicBool>,
}

impl Medium for Memory {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.bytes.lock().expect("no panic").as_slice().read_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (mut all, start) = (self.bytes.lock().expect("no panic"), offset as usize);
        let end = start + bytes.len();
        if all.len() < end {
            all.resize(end, 0);
        }
        all[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.bytes.lock().expect("no panic").resize(len as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn template(inherited: Vec<SavedEntry>) -> Template {
    let (machine, boot_id) = ("web".to_owned(), "boot".to_owned());
    let entries = Vec::new();
    let empty = SavedLedger { machine, boot_id, memory: None, written: 0, omitted: 0, entries };
    Template { empty, inherited }
}

/// One second after the process has started, at 100 s.
fn snapshot(ledger: &Ledger, holes: &[Hole]) -> Snapshot {
    let (entries, holes) = (ledger.entries().to_vec(), holes.to_vec());
    Snapshot { entries, holes, now_ns: 1_000_000_000, now: Duration::from_secs(101) }
}

fn error(gpa: u64, log2_len: u8, time_ns: u64) -> MemoryError {
    MemoryError {
        span: Span::around(gpa, log2_len),
        gpa,
        kind: Kind::ActionOptional,
        severity: Severity::Recoverable,
        vcpu: None,
        origin: Origin::Sigbus,
        time_ns,
    }
}

fn decoded(bytes: &[u8]) -> SavedLedger {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn a_ledger_is_saved_with_holes_and_with_what_is_known_of_earlier_processes() {
    let before = SavedEntry {
        gpa: 0x3000,
        span: 0x1000,
        first_seen: 7,
        last_seen: 8,
        times: 5,
        origin: Origin::Sigbus,
        severity: Severity::Recoverable,
        consumed_by: None,
        repaired: None,
    };
    let mut ledger = Ledger::default();
    // Inherited; of this process; and a huge page, which has many entries.
    ledger.record(&error(0x3000, 12, 0));
    ledger.record(&error(0x8000, 12, 500_000_000));
    ledger.record(&error(1 << 30, 30, 600_000_000));
    ledger.repaired(Span::around(0x8000, 12), 700_000_000);
    let known = Hole { span: Span::around(0x3000, 12), origin: Origin::Einj, severity: Severity::Fatal };
    let holes = [known, Hole { span: Span::around(0x5000, 12), ..known }];
    let saved = decoded(&template(vec![before]).bytes(&snapshot(&ledger, &holes), 1 << 20));
    assert_eq!((saved.written, saved.omitted, saved.entries.len()), (101, 0, 4));
    assert_eq!(saved.entries[0], before);
    let hole = saved.entries[1];
    assert_eq!(
        (hole.gpa, hole.origin, hole.severity, hole.times),
        (0x5000, Origin::Einj, Severity::Fatal, 0)
    );
    let repaired = saved.entries[2];
    assert_eq!((repaired.gpa, repaired.first_seen, repaired.repaired), (0x8000, 100, Some(100)));
    let huge = saved.entries[3];
    assert_eq!((huge.gpa, huge.span, huge.last_seen, huge.times), (1 << 30, 1 << 30, 100, 1));
}

#[test]
fn of_too_many_entries_the_poisoned_ones_are_kept() {
    let mut ledger = Ledger::default();
    let page = |index: u64| index * 0x2000;
    for index in 0..2000 {
        ledger.record(&error(page(index), 12, index * 1000));
        if index % 2 == 0 {
            ledger.repaired(Span::around(page(index), 12), index * 1000);
        }
    }
    let poisoned = |saved: &SavedLedger| saved.entries.iter().filter(|it| it.repaired.is_none()).count();
    for (max, expected) in [(1 << 20, 1000), (300_000, 1000), (100_000, 500)] {
        let bytes = template(Vec::new()).bytes(&snapshot(&ledger, &[]), max);
        assert!(bytes.len() <= max, "{} bytes", bytes.len());
        let saved = decoded(&bytes);
        assert_eq!(saved.omitted + saved.entries.len() as u64, 2000);
        assert!(poisoned(&saved) >= expected && saved.entries.is_sorted_by_key(|entry| entry.gpa), "{max}");
    }
}

fn journal() -> Arc<Journal> {
    Arc::new(Journal::start(None, Arc::new(Timings::start())).expect("a thread"))
}

fn pass_on(writer: &LedgerWriter, ledger: &Ledger) {
    writer.shared.lock().snapshot = Some(snapshot(ledger, &[]));
    writer.shared.changed.notify_one();
}

/// Generous: the thread has nothing else to do.
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_last_state_is_in_the_file_at_the_end() {
    let medium = Memory::default();
    let file = SlotFile::open(medium.clone(), LAYOUT).expect("a file");
    let writer = LedgerWriter::spawn(file, template(Vec::new()), journal()).expect("a thread");
    let mut ledger = Ledger::default();
    for index in 0..50 {
        ledger.record(&error(index * 0x2000, 12, 0));
        pass_on(&writer, &ledger);
    }
    drop(writer);
    let file = medium.bytes.lock().expect("no panic");
    assert_eq!(super::super::read(&file).expect("a ledger").expect("complete").entries.len(), 50);
    assert_eq!(file.len() as u64, LAYOUT.file_len());
}

#[test]
fn a_file_that_cannot_be_written_is_noted_once_and_tried_again() {
    let medium = Memory::default();
    let file = SlotFile::open(medium.clone(), LAYOUT).expect("a file");
    let journal = journal();
    let writer = LedgerWriter::spawn(file, template(Vec::new()), Arc::clone(&journal)).expect("a thread");
    let mut ledger = Ledger::default();
    medium.fails.store(true, Ordering::Relaxed);
    for index in 0..3 {
        let before = failures();
        ledger.record(&error(index * 0x2000, 12, 0));
        pass_on(&writer, &ledger);
        wait_until(|| failures() > before);
    }
    assert_eq!(journal.counts()["ledger-not-written"], 1);
    medium.fails.store(false, Ordering::Relaxed);
    // The end of the machine does not wait for the next attempt of its own.
    pass_on(&writer, &ledger);
    drop(writer);
    let file = medium.bytes.lock().expect("no panic");
    assert_eq!(super::super::read(&file).expect("a ledger").expect("complete").entries.len(), 3);
}
