//! The state that is preserved across a reset of the machine: its memory, the ledger of poisoned pages, the listener for
//! detected errors, the generation id, and injection requests that are not due yet.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

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

use super::detected_errors::{DetectedErrorSender, DetectedErrors};
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

/// The main thread owns it.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<PreservedState>();
};
