//! `ghest boot`.

mod failure;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use devices::error_serialization::{self, StoreThread};
use machine_profile::{Machine, Metrics, Profile};
use platform::{Arch, Platform, Range};
use ras_core::actions::{StopReason, StopReport};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use vcpu::host::open;
use vmm::board::profile_devices;
use vmm::control::Server;
use vmm::journal::{Journal, Missing, Note};
use vmm::kvm::offered;
use vmm::ledger_file::{self, LedgerWriter};
use vmm::lifecycle::{Ended, Ending};
use vmm::machine::{self, Environment, MachineError, MappedMemory, PreservedState, host_error};
use vmm::metrics::{MetricsFile, Sample, Subject};
use vmm::notify::Notifier;
use vmm::plan::{Blueprint, memory_note};
use vmm::progress::Progress;
use vmm::ras::fatal_signal;
use vmm::ras::inject::InjectionSpec;
use vmm::signals::Signals;
use vmm::status::Status;
use vmm::stderr;
use vmm::timings::{Phase, Timings};

use failure::Failure;

use super::{ProfileArgs, host_files, output, profiles};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    profile: ProfileArgs,
    /// Write events to this file, one JSON object per line. Nothing waits for its reader: an event `dropped` has the number of those
    /// that are missing.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Write the time at which each phase of the boot ended to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
    /// Listen at this socket for `ghest ctl`. Overrides the profile's `control.socket`.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Inject a memory error: `ar@GPA` (action required: the next vCPU that accesses the page consumes the error), `ao@GPA`
    /// (action optional: the error is detected and not consumed) or `ce@GPA` (corrected: nothing is poisoned, and the profile's
    /// `ras.corrected` says how the guest is notified). Keys follow after commas: `via=simulate|madvise|notice`,
    /// `span=4KiB`, `after=2s`, and as the last one `when=TEXT`, which waits until the guest has written TEXT to its console.
    /// `ar@{TEXT}` takes the address from the guest's console: the word that follows TEXT (`*` in TEXT matches anything on
    /// that line). May be repeated. With `simulate` on x86_64, a store to the page is reported and dropped: KVM has completed
    /// it when it exits.
    #[arg(long, value_name = "SPEC")]
    inject: Vec<InjectionSpec>,
    /// Exit as soon as this process, the parent, has ended: for `ghest compare`, which leaves no process behind.
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<i32>,
}

pub(super) fn run(options: &Options, timings: Timings) -> Status {
    if let Some(parent) = options.with_parent {
        // The signal is sent at its end from now on. It may have ended before.
        let armed = set_parent_process_death_signal(Some(Signal::KILL));
        if armed.is_err() || getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
            return output::report("the parent process has ended", Status::Failure);
        }
    }
    let mut profile = match profiles::load(&options.profile, Arch::NATIVE) {
        Ok(profile) => profile,
        Err(status) => return status,
    };
    // A boot that is compared is not the machine that the file is about, which may be running: it leaves that machine's files alone.
    profile.machine.ras.persistent_store.take_if(|_| options.with_parent.is_some());
    profile.machine.ras.ledger.take_if(|_| options.with_parent.is_some());
    profile.machine.memory.path.take_if(|_| options.with_parent.is_some());
    profile.machine.metrics.take_if(|_| options.with_parent.is_some());
    timings.mark(Phase::Profile);
    let metrics = profile.machine.metrics.as_ref();
    let outputs = [
        ("--events", options.events.as_deref()),
        ("--timings", options.timings.as_deref()),
        ("metrics.file", metrics.map(|metrics| metrics.file.as_path())),
        ("ras.persistent-store", profile.machine.ras.persistent_store.as_deref()),
        ("ras.ledger", profile.machine.ras.ledger.as_deref()),
        ("memory.path", profile.machine.memory.path.as_deref()),
    ];
    if let Err(reason) = host_files::check_outputs(&options.profile.profile, &profile, &outputs) {
        return output::report(&reason, Status::Usage);
    }
    let timings = Arc::new(timings);
    let journal = match Journal::start(options.events.as_deref(), Arc::clone(&timings)) {
        Ok(journal) => Arc::new(journal),
        Err(error) => {
            return match &options.events {
                Some(path) => cannot_write(path, &error),
                None => output::report(&format!("the log cannot be started: {error}"), Status::Failure),
            };
        }
    };
    stderr::redirect(journal.queue().clone());
    // A thread that panics does not wait for a reader either.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = if is_captured { backtrace.to_string() } else { String::new() };
        stderr::write(&format!("ghest: {panic}\n{backtrace}"));
    }));
    let status = to_the_end(&profile, options, &timings, &journal);
    journal.flush(MESSAGE_TIMEOUT);
    status
}

/// How long readers of the event file and of standard error may take at the end to read what was written until then, and how long
/// for the last event and the last message each.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(200);

/// Boots and runs the machine, and reports its end.
fn to_the_end(
    profile: &Profile,
    options: &Options,
    timings: &Arc<Timings>,
    journal: &Arc<Journal>,
) -> Status {
    let (message, status) = match boot(profile, options, timings, journal) {
        Ok(ended) => (ended.to_string(), ended.ending.status()),
        Err(failure) => failure.report(profile),
    };
    // The queue has space for the last event.
    journal.flush(DRAIN_TIMEOUT);
    fatal_signal::complete_event_file();
    journal.note(Note::Stopped { reason: message.clone(), status: status.code() });
    let Missing { events, log_lines } = journal.flush(MESSAGE_TIMEOUT);
    if events > 0 || log_lines > 0 {
        let message = format!("not written: {events} events of the event file, {log_lines} lines of the log");
        output::report(&message, status);
    }
    if let Some(path) = &options.timings
        && let Err(error) = timings.write(path)
    {
        let failure = cannot_write(path, &error);
        // The end of the machine is what its status and the last line are about, unless it is as requested.
        if status == Status::Success {
            return failure;
        }
    }
    output::report(&message, status)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Status {
    output::report(&format!("{}: {error}", path.display()), Status::Failure)
}

fn boot(
    profile: &Profile,
    options: &Options,
    timings: &Arc<Timings>,
    journal: &Arc<Journal>,
) -> Result<Ended, Failure> {
    let machine = &profile.machine;
    // Dropped last: to unmap the memory of a large guest is a part of the stop.
    let mut requests = None;
    let shared = host_files::shared(profile);
    if !shared.is_empty() {
        return Err(Failure::Files(shared));
    }
    let kvm = open().map_err(Failure::Open)?;
    let offered = offered(&kvm).map_err(|error| Failure::Machine(error.into()))?;
    let abilities = vcpu::abilities::of_this_host(machine.arch);
    let platform =
        vmm::plan::platform(machine, offered, &abilities).map_err(|error| Failure::Plan(error.into()))?;
    let mut injections = options.inject.iter();
    injections.try_for_each(|spec| spec.check_memory(&platform.memory.ram)).map_err(Failure::Injection)?;
    if let Some(note) = memory_note(machine) {
        tracing::warn!("{note}");
    }
    // Until the machine runs, a signal that requests a stop ends the process at once: whatever the start waits for.
    let signals =
        Signals::install().map_err(|error| Failure::Machine(host_error(error.call)(error.source)))?;
    // Before any thread of the machine is started: a SIGBUS that ends the process is reported from now on.
    fatal_signal::set_output(
        journal.final_output().map_err(|error| Failure::Machine(host_error("dup(2)")(error)))?,
    );
    fatal_signal::install_handler()
        .map_err(|error| Failure::Machine(host_error("sigaction(2) (SIGBUS)")(error)))?;
    // A plan is plain data: strings and numbers always make JSON.
    let write_plan = |blueprint: &Blueprint| {
        journal.note(Note::Plan(serde_json::to_value(&blueprint.report).unwrap_or_default()));
    };
    // Standard error of a boot that is compared is read by its parent, which shows the progress of its own.
    let mut progress = Progress::on_stderr(options.with_parent.is_some());
    let opened = match &machine.ras.ledger {
        Some(path) => {
            Some(ledger_file::Opened::open(path).map_err(|error| Failure::Ledger(path.clone(), error))?)
        }
        None => None,
    };
    let loaded = MappedMemory::new(machine, &platform, timings, &mut progress).and_then(|mut memory| {
        let inherited =
            opened.as_ref().map(|opened| opened.inherit(machine, &platform.memory.ram, memory.kept()));
        let inherited = inherited.unwrap_or_default();
        if let Some(poisoned) = inherited.found {
            journal.note(Note::LedgerRead { poisoned, not_applied: inherited.not_applied.clone() });
        }
        let poisoned = memory.inherit(inherited.ledger.clone(), machine.ras.repair)?;
        note_unusable(journal, &platform, &poisoned);
        let (entry, tables) = machine::load(machine, &platform, memory.ram(), &poisoned, timings)?;
        Ok((memory, inherited, entry, tables))
    });
    let (memory, inherited, mut entry, tables) = match loaded {
        Ok(loaded) => loaded,
        // There are no tables to plan from. The plan is still an event, and its refusal is reported first.
        Err(error) => {
            write_plan(&Blueprint::of(machine, offered, abilities).map_err(Failure::Plan)?);
            return Err(Failure::Machine(error));
        }
    };
    // Planned from the tables that the guest has.
    let mut blueprint = Blueprint::new(machine, platform, &tables, abilities).map_err(Failure::Plan)?;
    let note = machine.ras.ledger.as_deref().and_then(|path| inherited.note(path));
    blueprint.report.notes.extend(note);
    write_plan(&blueprint);
    let backends = profile_devices::open(machine).map_err(|error| Failure::Machine(error.into()))?;
    let store =
        match &machine.ras.persistent_store {
            Some(path) => {
                let store = error_serialization::open_file(path)
                    .map_err(|error| Failure::Store(path.clone(), error))?;
                let thread = StoreThread::start(store);
                Some(thread.map_err(|error| {
                    Failure::Machine(host_error("starting the thread error-store")(error))
                })?)
            }
            None => None,
        };
    let kept = memory.kept().map(|kept| kept.id);
    let mut preserved = PreservedState::new(memory, &blueprint, tables, &options.inject, journal, timings)
        .map_err(Failure::Machine)?;
    if let Some(opened) = opened {
        let writer = LedgerWriter::start(opened, &machine.name, kept, inherited, Arc::clone(journal));
        let writer =
            writer.map_err(|error| Failure::Machine(host_error("starting the thread ledger")(error)))?;
        preserved = preserved.with_ledger_writer(writer);
    }
    let control = match options.control.as_ref().or(machine.control_socket.as_ref()) {
        Some(path) => {
            let server = Server::listen(path, &machine.name, Arc::clone(journal));
            Some(server.map_err(|error| Failure::Control(path.clone(), error))?)
        }
        None => None,
    };
    let _metrics = match &machine.metrics {
        Some(Metrics { file, interval }) => {
            let (subject, reporting) = (Subject::from(&blueprint.report), Arc::clone(preserved.reporting()));
            let written = MetricsFile::start(file, *interval, move || {
                Sample::take(subject.clone(), &reporting).prometheus()
            });
            Some(
                written
                    .map_err(|error| Failure::Machine(host_error("starting the thread metrics")(error)))?,
            )
        }
        None => None,
    };
    let mut environment = Environment {
        journal: Arc::clone(journal),
        timings: Arc::clone(timings),
        signals,
        control,
        notifier: Notifier::from_environment(),
        backends,
        store,
    };
    loop {
        let prepared = machine::prepare(&kvm, machine, &blueprint, &entry, &preserved, &environment)
            .map_err(Failure::Machine)?;
        requests.get_or_insert_with(|| environment.signals.stops_are_requests());
        let ended =
            prepared.run(machine, &blueprint, &preserved, &mut environment).map_err(Failure::Machine)?;
        if !ended.boots_again(machine.on_reboot) {
            environment.notifier.stopping();
            return Ok(ended);
        }
        match ended.error() {
            Some(_) => tracing::warn!("{ended}: the machine boots again"),
            None => tracing::info!("{ended}: the machine boots again"),
        }
        preserved.keep_boot_record(&ended);
        entry = match reload(machine, &blueprint, &preserved, timings).map_err(Failure::Machine)? {
            Some(entry) => entry,
            None => {
                let report = StopReport { reason: StopReason::CannotRestart, error: None };
                return Ok(Ended { ending: Ending::MemoryError(report), after_error: None });
            }
        };
    }
}

/// Notes what the guest that is about to boot cannot use.
fn note_unusable(journal: &Journal, platform: &Platform, poisoned: &[Range]) {
    for Range { start, len } in platform.clone().with_unusable(poisoned).memory.unusable() {
        journal.note(Note::Unusable { gpa: start, len });
    }
}

/// Loads the memory again after a reset. `None` if kernel, initrd and tables no longer fit, because poisoned memory is not
/// repaired.
fn reload(
    machine: &Machine,
    blueprint: &Blueprint,
    preserved: &PreservedState,
    timings: &Timings,
) -> Result<Option<vmm::boot::Entry>, MachineError> {
    let poisoned = preserved.renew()?;
    note_unusable(preserved.reporting().journal(), &blueprint.platform, &poisoned);
    let loaded = machine::load(machine, &blueprint.platform, preserved.ram(), &poisoned, timings);
    let loaded = loaded.and_then(|(entry, tables)| {
        if tables.record_area != blueprint.record_area {
            return Err(MachineError::RecordArea);
        }
        preserved.loaded(&blueprint.platform, tables)?;
        Ok(entry)
    });
    match loaded {
        Ok(entry) => Ok(Some(entry)),
        Err(MachineError::Boot(error)) if !poisoned.is_empty() => {
            let poisoned: Vec<_> =
                poisoned.iter().map(|it| format!("{} bytes at {:#x}", it.len, it.start)).collect();
            tracing::error!("{error}; poisoned: {}", poisoned.join(", "));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
