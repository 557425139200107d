//! The state that is preserved across a reset of the machine: its memory, the ledger of poisoned pages, the listener for
//! detected errors, the generation id, and injection requests that are not due yet.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devices::{PoisonFlag, generation_id};
use firmware_tables::GuestTables;
use guest_memory::sigbus::AoListener;
use guest_memory::{Backing, GuestRam, MemoryFile};
use machine_profile::{Machine, MemoryBacking};
use platform::{Platform, Range};
use ras_core::Span;
use ras_core::ledger::Ledger;
use ras_core::request::Repair;
use rustix::rand::{GetRandomFlags, getrandom};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::jobs::Jobs;
use super::{MachineError, host_error, renewal};
use crate::board;
use crate::boot::{self, BootError};
use crate::journal::Journal;
use crate::ledger_file::{KeptMemory, LedgerWriter};
use crate::lifecycle::Ended;
use crate::plan::Blueprint;
use crate::progress::Progress;
use crate::ras::inject::{InjectionSpec, Schedule};
use crate::ras::{DetectedError, PlatformMemory, Reporting, boot_record};
use crate::timings::{Phase, Timings};

/// A machine's memory and what is known about its errors, from the first boot to the end.
pub struct PreservedState {
    pub(super) ram: GuestRam,
    pub(super) reporting: Arc<Reporting>,
    /// `None` if the profile names no file for the ledger.
    ledger_writer: Option<LedgerWriter>,
    pub(super) schedule: Arc<Schedule>,
    pub(super) detected_errors: DetectedErrors,
    /// Requests of clients that are being carried out: those get their outcomes also after a reset.
    pub(super) jobs: Jobs,
    /// The error budget was spent, and the profile's action carried out.
    pub(super) budget_spent: Cell<bool>,
    /// The record of the error that ended the last boot, until it is in the memory of the next one.
    boot_record: Cell<Option<Vec<u8>>>,
    /// How many there were.
    boot_records: Cell<u64>,
    /// The machine's generation id, and the GPA where the guest finds it.
    generation_id: Cell<[u8; generation_id::LEN]>,
    generation_id_gpa: u64,
    pub(super) sender: DetectedErrorSender,
    /// Whether guest memory has poisoned pages, for devices whose queues the host's kernel serves.
    pub(super) poisoned: PoisonFlag,
    /// The early-kill thread: the host signals poisoned pages to it that were not consumed.
    _ao_listener: AoListener,
}

/// Mapped guest memory, whose detected errors are queued until they can be reported.
pub struct MappedMemory {
    ram: GuestRam,
    /// The file that holds it, if it outlives the process.
    kept: Option<KeptMemory>,
    /// What is poisoned since an earlier process, and the pages of it that could not be replaced.
    inherited: Ledger,
    not_replaced: Vec<(Span, io::Error)>,
    detected_errors: DetectedErrors,
    sender: DetectedErrorSender,
    ao_listener: AoListener,
}

impl MappedMemory {
    /// Maps the memory and starts the AO listener. Call it on the main thread, before any thread of the machine is started.
    ///
    /// # Errors
    /// Returns an error if the memory cannot be mapped or the listener cannot be started.
    pub fn new(
        machine: &Machine,
        platform: &Platform,
        timings: &Timings,
        progress: &mut Progress,
    ) -> Result<Self, MachineError> {
        let (detected_errors, sender) = DetectedErrors::new().map_err(host_error("eventfd(2)"))?;
        let signals = sender.clone();
        let listener = AoListener::start(move |fault| signals.send(DetectedError::Signalled(fault)))
            .map_err(host_error("starting the AO listener's thread"))?;
        let runs: Vec<_> = platform.memory.ram.iter().map(|run| (run.start, run.len)).collect();
        let mib = |bytes: u64| bytes >> 20;
        let mut show = |allocated| {
            progress.show(|| {
                format!("guest memory: {} of {} MiB allocated", mib(allocated), mib(machine.memory.size))
            });
        };
        let backing = backing(machine);
        let file = match &machine.memory.path {
            Some(path) => {
                let file = MemoryFile::open(path, machine.memory.size, backing);
                Some(file.map_err(|source| MachineError::MemoryFile { path: path.clone(), source })?)
            }
            None => None,
        };
        let ram = match &file {
            Some(file) => GuestRam::map_file(&runs, backing, file, &mut show),
            None => GuestRam::allocate_and_report(&runs, backing, &mut show),
        };
        progress.clear();
        let ram = ram?;
        let kept = file.map(|file| KeptMemory { id: file.id(), had_contents: file.had_contents() });
        timings.mark(Phase::Memory);
        tracing::info!(bytes = machine.memory.size, backing = ?ram.backing(), "guest memory is mapped");
        Ok(MappedMemory {
            ram,
            kept,
            inherited: Ledger::default(),
            not_replaced: Vec::new(),
            detected_errors,
            sender,
            ao_listener: listener,
        })
    }

    /// The file that holds it, if it outlives the process.
    #[must_use]
    pub fn kept(&self) -> Option<KeptMemory> {
        self.kept
    }

    /// Prepares memory that an earlier process has used for the first boot, as after a reset. `ledger` is what is poisoned. Returns the
    /// memory that stays poisoned.
    ///
    /// # Errors
    /// Returns an error if fallocate(2) or madvise(2) fails for memory that is not poisoned.
    pub fn inherit(&mut self, ledger: Ledger, repair: Repair) -> Result<Vec<Range>, MachineError> {
        if !self.kept.is_some_and(|kept| kept.had_contents) {
            return Ok(Vec::new());
        }
        let poisoned: Vec<_> = ledger.poisoned_ranges().collect();
        let renewed = renewal::renew(&self.ram, &poisoned, repair);
        self.not_replaced = renewed.map_err(host_error("replacing guest memory by fresh pages"))?;
        self.inherited = ledger;
        let range = |(start, len)| Range { start, len };
        Ok(match repair {
            Repair::Never => poisoned.into_iter().map(range).collect(),
            _ => self.not_replaced.iter().map(|(page, _)| range((page.gpa, page.bytes()))).collect(),
        })
    }

    /// The memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }
}

impl PreservedState {
    /// The state of a machine that was planned, before its first boot, with the tables that are in its memory.
    ///
    /// # Errors
    /// Returns an error if this build has no reporter for a response of the plan, or if getrandom(2) fails.
    pub fn new(
        memory: MappedMemory,
        blueprint: &Blueprint,
        tables: GuestTables,
        injections: &[InjectionSpec],
        journal: &Arc<Journal>,
        timings: &Arc<Timings>,
    ) -> Result<Self, MachineError> {
        let MappedMemory { ram, inherited, not_replaced, detected_errors, sender, ao_listener, .. } = memory;
        let reporting = Reporting::new(
            &blueprint.ras,
            &blueprint.host,
            blueprint.record_area.as_ref(),
            ram.clone(),
            Arc::clone(journal),
            Arc::clone(timings),
        )?;
        if !inherited.entries().is_empty() {
            reporting.inherit(inherited, &not_replaced);
        }
        let preserved = PreservedState {
            ram,
            reporting: Arc::new(reporting),
            ledger_writer: None,
            schedule: Arc::new(Schedule::new(injections)),
            detected_errors,
            jobs: Jobs::new().map_err(host_error("eventfd(2)"))?,
            budget_spent: Cell::new(false),
            boot_record: Cell::new(None),
            boot_records: Cell::new(0),
            generation_id: Cell::new(random_id().map_err(MachineError::GenerationId)?),
            generation_id_gpa: board::generation_id(blueprint.platform.arch),
            sender,
            poisoned: PoisonFlag::new().map_err(host_error("eventfd(2)"))?,
            _ao_listener: ao_listener,
        };
        preserved.loaded(&blueprint.platform, tables)?;
        Ok(preserved)
    }

    /// Adds the generation id, which a reset does not change, and the boot error record to what was loaded for the next boot, and keeps
    /// what is in the guest's reserved memory: a poisoned page of it gets the same contents.
    ///
    /// # Errors
    /// Returns an error if they cannot be written to guest memory.
    pub fn loaded(&self, platform: &Platform, tables: GuestTables) -> Result<(), MachineError> {
        let (gpa, id) = (self.generation_id_gpa, self.generation_id.get());
        let area = tables.record_area;
        let tables = tables.tables.into_iter().map(|table| (table.gpa, table.bytes));
        let code = boot::RESERVED_CODE.iter().map(|(gpa, bytes)| (*gpa, bytes.to_vec()));
        let record = platform.memory.boot_record.map(|region| region.start).zip(self.boot_record.take());
        let added: Vec<_> = [(gpa, id.to_vec())].into_iter().chain(record).collect();
        let gpas: Vec<_> = added.iter().map(|(gpa, _)| *gpa).collect();
        let loaded = tables.chain(code).chain(added);
        self.reporting.loaded(PlatformMemory::new(&platform.memory, area.as_ref(), loaded));
        let mut gpas = gpas.into_iter();
        gpas.try_for_each(|gpa| self.reporting.write_loaded(gpa))
            .map_err(|error| MachineError::Boot(BootError::Fixed(error)))
    }

    /// Keeps the record of the error that has ended this boot, if one has, for the next one and no later one.
    pub fn keep_boot_record(&self, ended: &Ended) {
        let record = ended.error().map(|(span, kind, severity)| {
            let number = self.boot_records.get().saturating_add(1);
            self.boot_records.set(number);
            boot_record(span, kind, severity, number)
        });
        self.boot_record.set(record);
    }

    /// Gives the machine a new generation id. The guest is still to be notified.
    ///
    /// # Errors
    /// Returns the error of getrandom(2), or of a system call that replaces the page.
    pub(super) fn new_generation(&self) -> io::Result<()> {
        let id = random_id()?;
        self.reporting.rewrite_reserved(self.generation_id_gpa, &id)?;
        self.generation_id.set(id);
        Ok(())
    }

    /// The memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// What reports memory errors.
    #[must_use]
    pub fn reporting(&self) -> &Arc<Reporting> {
        &self.reporting
    }

    /// Prepares the memory for the next boot: all pages are zero, and poisoned ones are replaced unless `ras.repair` is
    /// `never`, or there are no fresh pages. Returns the memory that stays poisoned.
    ///
    /// # Errors
    /// Returns an error if fallocate(2) or madvise(2) fails for memory that is not poisoned.
    pub fn renew(&self) -> Result<Vec<Range>, MachineError> {
        let (reporting, repair) = (&self.reporting, self.reporting.repair());
        let failed = renewal::renew(&self.ram, &reporting.poisoned_ranges(), repair)
            .map_err(host_error("replacing guest memory by fresh pages"))?;
        if repair != Repair::Never {
            reporting.renewed(&failed);
        }
        self.note_poison();
        Ok(reporting.poisoned_ranges().into_iter().map(|(start, len)| Range { start, len }).collect())
    }

    /// Has the ledger written to a file, from now on.
    #[must_use]
    pub fn with_ledger_writer(mut self, writer: LedgerWriter) -> Self {
        writer.update(&self.reporting);
        self.ledger_writer = Some(writer);
        self
    }

    /// Has the ledger written if it has changed.
    pub(super) fn save_ledger(&self) {
        if let Some(writer) = &self.ledger_writer {
            writer.update(&self.reporting);
        }
    }

    /// Lets devices know whether guest memory has poisoned pages.
    pub(super) fn note_poison(&self) {
        self.poisoned.set(self.reporting.has_poisoned_pages());
    }
}

/// An id that no other machine has.
fn random_id() -> io::Result<[u8; generation_id::LEN]> {
    let mut id = [0; generation_id::LEN];
    // Up to 256 bytes are complete (getrandom(2)).
    getrandom(&mut id[..], GetRandomFlags::empty())?;
    Ok(id)
}

fn backing(machine: &Machine) -> Backing {
    match machine.memory.backing {
        MemoryBacking::Anonymous => Backing::Anonymous,
        MemoryBacking::Memfd => Backing::Memfd,
        MemoryBacking::Hugetlbfs => Backing::Hugetlbfs { page_size: machine.memory.page_size.bytes() },
    }
}

/// The main thread's queue of detected errors.
pub(super) struct DetectedErrors {
    receiver: Receiver<DetectedError>,
    touched: Arc<TouchedPages>,
    wake: Arc<EventFd>,
}

/// Errors that the main thread reports in one turn: others that it serves get theirs in between.
const MAX_AT_ONCE: usize = 64;

/// The GPAs of poisoned pages that devices accessed, and that are in the queue. A guest can have a page accessed any number of times,
/// but it is in the queue once.
#[derive(Debug, Default)]
struct TouchedPages(Mutex<BTreeSet<u64>>);

impl TouchedPages {
    /// Adds a page. Returns false if it is in the queue already.
    fn add(&self, gpa: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(gpa)
    }

    /// Removes an error's page, which is no longer in the queue.
    fn taken(&self, error: DetectedError) -> DetectedError {
        if let DetectedError::Touched { gpa, .. } = error {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&gpa);
        }
        error
    }
}

/// The sending end of the queue, for any thread.
#[derive(Clone)]
pub(super) struct DetectedErrorSender {
    sender: Sender<DetectedError>,
    touched: Arc<TouchedPages>,
    wake: Arc<EventFd>,
}

impl DetectedErrors {
    fn new() -> io::Result<(Self, DetectedErrorSender)> {
        let (sender, receiver) = mpsc::channel();
        let wake = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?);
        let touched = Arc::new(TouchedPages::default());
        let sender = DetectedErrorSender { sender, touched: Arc::clone(&touched), wake: Arc::clone(&wake) };
        Ok((DetectedErrors { receiver, touched, wake }, sender))
    }

    /// Readable if errors may be pending.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Takes the next error, and waits for it until the timeout. `None` if the timeout has elapsed.
    pub(super) fn next(&self, timeout: Duration) -> Option<DetectedError> {
        self.receiver.recv_timeout(timeout).ok().map(|error| self.touched.taken(error))
    }

    /// Takes the errors that are pending.
    pub(super) fn pending(&self) -> impl Iterator<Item = DetectedError> + '_ {
        // An error means that it was read already.
        let _ = self.wake.read();
        self.receiver.try_iter().map(|error| self.touched.taken(error))
    }

    /// Takes some of the errors that are pending. If there may be others, `wake` is readable afterwards.
    pub(super) fn some_pending(&self) -> impl Iterator<Item = DetectedError> + '_ {
        let mut left = MAX_AT_ONCE;
        let mut pending = self.pending();
        std::iter::from_fn(move || {
            if left == 0 {
                // Fails only if the counter would overflow.
                let _ = self.wake.write(1);
                return None;
            }
            left -= 1;
            pending.next()
        })
    }
}

impl DetectedErrorSender {
    /// Queues the error of a page that a device accessed, unless it is in the queue.
    pub(super) fn touched(&self, gpa: u64, log2_len: u8) {
        if self.touched.add(gpa) {
            self.send(DetectedError::Touched { gpa, log2_len });
        }
    }

    fn send(&self, error: DetectedError) {
        // Fails only if the receiver is gone: the machine has ended.
        let _ = self.sender.send(error);
        // Fails only if the counter would overflow.
        let _ = self.wake.write(1);
    }
}

/// The main thread owns it.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<PreservedState>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn gpas(errors: impl Iterator<Item = DetectedError>) -> Vec<u64> {
        let gpa = |error| match error {
            DetectedError::Touched { gpa, .. } => gpa,
            other => panic!("{other:?}"),
        };
        errors.map(gpa).collect()
    }

    #[test]
    fn a_page_that_devices_access_again_and_again_is_in_the_queue_once() {
        let (errors, sender) = DetectedErrors::new().expect("an eventfd");
        for gpa in [0x1000, 0x2000, 0x1000, 0x1000, 0x2000] {
            sender.touched(gpa, 12);
        }
        assert_eq!(gpas(errors.pending()), [0x1000, 0x2000]);
        // It has left the queue: the next access is reported.
        sender.touched(0x2000, 12);
        sender.clone().touched(0x2000, 12);
        let next = errors.next(Duration::ZERO);
        assert_eq!(gpas(next.into_iter()), [0x2000]);
        sender.touched(0x2000, 12);
        assert_eq!(gpas(errors.some_pending()), [0x2000]);
        assert!(errors.next(Duration::ZERO).is_none());
    }

    #[test]
    fn what_one_turn_leaves_in_the_queue_wakes_the_main_thread_again() {
        let (errors, sender) = DetectedErrors::new().expect("an eventfd");
        let all: Vec<_> = (0..MAX_AT_ONCE as u64 + 3).map(|page| page << 12).collect();
        all.iter().for_each(|gpa| sender.touched(*gpa, 12));
        assert_eq!(gpas(errors.some_pending()), all[..MAX_AT_ONCE]);
        errors.wake().read().expect("readable");
        assert_eq!(gpas(errors.some_pending()), all[MAX_AT_ONCE..]);
        errors.wake().read().expect_err("nothing is left");
    }
}
