//! The thread that writes the ledger: nothing else waits for its file.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devices::slot_file::{Medium, SlotFile};
use guest_memory::{MemoryFileId, own};
use ras_core::ledger::Entry;

use super::saved::{SavedEntry, SavedLedger};
use super::{Inherited, LAYOUT, Opened, RECORD, boot_id};
use crate::journal::{Journal, Note};
use crate::ras::{Hole, LedgerVersion, Reporting};

/// Attempts to write that failed, of this process.
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// The number of attempts to write that failed.
#[must_use]
pub fn failures() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}

/// How long the thread waits before it tries again to write what could not be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How long the end of a machine waits for the file.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The thread that writes a ledger. Dropping it waits until the last state is in the file, for a bounded time.
#[derive(Debug)]
pub struct LedgerWriter {
    shared: Arc<Shared>,
    /// What was passed on last.
    version: Cell<Option<LedgerVersion>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    next: Mutex<Next>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Next {
    /// The state to be written: the newest one.
    snapshot: Option<Snapshot>,
    ends: bool,
}

/// The state of a ledger.
#[derive(Debug)]
struct Snapshot {
    entries: Vec<Entry>,
    holes: Vec<Hole>,
    /// The time of the process's clock, at the Unix time `now`.
    now_ns: u64,
    now: Duration,
}

/// What stays the same, and what of earlier processes the running ledger does not have.
struct Template {
    empty: SavedLedger,
    inherited: Vec<SavedEntry>,
}

impl LedgerWriter {
    /// Starts the thread, for a machine that has taken over `inherited`.
    ///
    /// # Errors
    /// Returns the error of pthread_create(3).
    pub fn start(
        opened: Opened,
        machine: &str,
        memory: Option<MemoryFileId>,
        inherited: Inherited,
        journal: Arc<Journal>,
    ) -> io::Result<Self> {
        let template = Template {
            empty: SavedLedger {
                machine: machine.to_owned(),
                boot_id: boot_id(),
                memory: memory.map(Into::into),
                written: 0,
                omitted: 0,
                entries: Vec::new(),
            },
            inherited: inherited.entries,
        };
        Self::spawn(opened.file, template, journal)
    }

    fn spawn<M: Medium + 'static>(
        file: SlotFile<M>,
        template: Template,
        journal: Arc<Journal>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (running, ended): (Sender<()>, _) = channel();
        let of_thread = Arc::clone(&shared);
        own::thread("ledger").spawn(move || {
            // Dropped after the file, which can be opened again as soon as the thread has ended.
            let _running = running;
            let mut file = file;
            write_until_the_end(&mut file, &of_thread, &template, &journal);
        })?;
        Ok(LedgerWriter { shared, version: Cell::new(None), ended })
    }

    /// Passes the ledger on to the thread if it has changed. Waits for nothing but the lock of the errors, for the time of a copy.
    pub fn update(&self, reporting: &Reporting) {
        let version = reporting.ledger_version();
        if self.version.replace(Some(version)) == Some(version) {
            return;
        }
        let (entries, holes, now_ns) = reporting.ledger_snapshot();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.shared.lock().snapshot = Some(Snapshot { entries, holes, now_ns, now });
        self.shared.changed.notify_one();
    }
}

impl Drop for LedgerWriter {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_one();
        // An error means that it has ended, or that the file does not respond.
        let _ = self.ended.recv_timeout(END_TIMEOUT);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a state to be written. What could not be written comes again after some time, unless a newer one has replaced it. `None`
    /// at the end.
    fn next(&self, unwritten: Option<Snapshot>) -> Option<Snapshot> {
        let is_idle = |next: &mut Next| next.snapshot.is_none() && !next.ends;
        let mut next = match &unwritten {
            None => self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(_) => {
                let waited = self.changed.wait_timeout_while(self.lock(), RETRY_INTERVAL, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let is_last = next.ends;
        next.snapshot.take().or(unwritten.filter(|_| !is_last))
    }
}

fn write_until_the_end<M: Medium>(
    file: &mut SlotFile<M>,
    shared: &Shared,
    template: &Template,
    journal: &Journal,
) {
    let (mut unwritten, mut fails) = (None, false);
    while let Some(snapshot) = shared.next(unwritten.take()) {
        let bytes = template.bytes(&snapshot, LAYOUT.max_record_len());
        let written = file.write(RECORD, &bytes).map_err(|error| format!("pwrite(2): {error}"));
        let outcome = written.and_then(|()| file.sync().map_err(|error| format!("fdatasync(2): {error}")));
        if let Err(because) = &outcome {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            unwritten = Some(snapshot);
            if !fails {
                journal.note(Note::LedgerNotWritten { because: because.clone() });
            }
        }
        fails = outcome.is_err();
    }
}

impl Template {
    /// The file's record, of `max_len` bytes at most: if there are more entries than that, the poisoned and the newest ones.
    fn bytes(&self, snapshot: &Snapshot, max_len: usize) -> Vec<u8> {
        let unix = |time_ns: u64| {
            let ago = Duration::from_nanos(snapshot.now_ns.saturating_sub(time_ns));
            snapshot.now.saturating_sub(ago).as_secs()
        };
        let of_ledger = snapshot.entries.iter().map(|entry| {
            let mut saved = SavedEntry::of(entry, unix);
            if let Some(before) = self.inherited_at(saved.gpa).filter(|_| entry.first_seen_ns == 0) {
                saved.first_seen = before.first_seen;
                if entry.last_seen_ns == 0 {
                    (saved.last_seen, saved.times, saved.consumed_by) =
                        (before.last_seen, before.times, before.consumed_by);
                }
            }
            saved
        });
        let is_new = |hole: &&Hole| {
            !snapshot.entries.iter().any(|entry| entry.is_poisoned() && entry.span.contains(hole.span.gpa))
        };
        let of_holes = snapshot.holes.iter().filter(is_new).map(|hole| SavedEntry {
            gpa: hole.span.gpa,
            span: hole.span.bytes(),
            first_seen: 0,
            last_seen: 0,
            times: 0,
            origin: hole.origin,
            severity: hole.severity,
            consumed_by: None,
            repaired: None,
        });
        let mut entries: Vec<SavedEntry> = Vec::new();
        let mut all: Vec<SavedEntry> = of_ledger.chain(of_holes).collect();
        all.sort_by_key(|entry| entry.gpa);
        for next in all {
            if !entries.last_mut().is_some_and(|last| last.extend(&next)) {
                entries.push(next);
            }
        }
        let total = entries.len();
        entries.sort_by_key(|entry| (entry.repaired.is_some(), std::cmp::Reverse(entry.last_seen)));
        // A struct of numbers and names always makes JSON.
        let json = |entry: &SavedEntry| serde_json::to_vec(entry).unwrap_or_default();
        let mut left = max_len.saturating_sub(MAX_HEAD_LEN);
        let fits = entries.iter().take_while(|entry| {
            let len = json(entry).len() + 1;
            left.checked_sub(len).inspect(|rest| left = *rest).is_some()
        });
        let fitting = fits.count();
        entries.truncate(fitting);
        entries.sort_by_key(|entry| entry.gpa);
        let omitted = (total - fitting) as u64;
        let saved = SavedLedger { written: snapshot.now.as_secs(), omitted, entries, ..self.empty.clone() };
        serde_json::to_vec(&saved).unwrap_or_default()
    }

    /// What an earlier process has saved about an address.
    fn inherited_at(&self, gpa: u64) -> Option<&SavedEntry> {
        let behind = self.inherited.partition_point(|entry| entry.gpa <= gpa);
        self.inherited.get(behind.checked_sub(1)?).filter(|entry| gpa - entry.gpa < entry.span)
    }
}

/// Bytes of JSON beside the entries, at most: a machine's name has 255 bytes, and escaped six times that.
const MAX_HEAD_LEN: usize = 4096;

#[cfg(test)]
mod tests;
