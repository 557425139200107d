//! A running machine: everything wired together, from its first instruction to its end.

mod balloon;
mod budget;
mod console_size;
mod detected_errors;
mod device_choice;
mod dump;
mod error_injector;
mod event_loop;
mod jobs;
mod observers;
mod preserved;
mod renewal;
mod request_error;
mod retire;
mod running;
mod terminal;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use devices::InterruptLine;
use devices::error_injection::ErrorInjector;
use devices::error_serialization::StoreThread;
use devices::kind::Backend;
use firmware_tables::GuestTables;
use guest_memory::{AllocateError, GuestRam, MemoryFileError};
use kvm_ioctls::Kvm;
use machine_profile::Machine;
use platform::{Platform, Range};
use ras_core::Notification;
use ras_core::reporters::BuildError;
use vcpu::{Control, ThreadError, VcpuEnvironment, VcpuExitReason, VcpuExited, Vcpus};

use crate::board::{self, Board, BoardError, Wiring, profile_devices};
use crate::boot::{self, BootError};
use crate::bus::MachineBus;
use crate::console::{Console, Input};
use crate::control::Server;
use crate::describe;
use crate::journal::Journal;
use crate::kvm::{KvmError, KvmVm};
use crate::lifecycle::{Ended, Ending, Lifecycle};
use crate::notify::Notifier;
use crate::plan::Blueprint;
use crate::ras::ActionExecutor;
use crate::signals::Signals;
use crate::startup::StartupObserver;
use crate::timings::{Phase, Timings};

use dump::CurrentDump;
pub use preserved::{MappedMemory, PreservedState};
use running::RunningMachine;
use terminal::Terminal;

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Guest memory cannot be allocated.
    #[error(transparent)]
    Memory(#[from] AllocateError),
    /// A file cannot hold guest memory.
    #[error("{}: {source}", path.display())]
    MemoryFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: MemoryFileError,
    },
    /// Kernel, initrd or tables cannot be loaded into guest memory.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The tables of a later boot place the error records elsewhere than those of the first one.
    #[error("the tables of this boot have another record area than those that the machine was planned from")]
    RecordArea,
    /// An ioctl of KVM failed, or KVM does not support the machine.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// getrandom(2) failed.
    #[error("getrandom(2) for the generation id: {0}")]
    GenerationId(io::Error),
    /// A device cannot be attached.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// This build does not support a response of the plan.
    #[error(transparent)]
    Reporter(#[from] BuildError),
    /// vCPUs cannot be started.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// A system call failed that every machine needs.
    #[error("{what}: {source}")]
    Host {
        /// The system call, or what was attempted.
        what: &'static str,
        /// Its errno.
        source: io::Error,
    },
    /// The event loop failed.
    #[error("event loop: {0}")]
    Events(event_manager::Error),
}

/// What a machine needs beyond its profile.
pub struct Environment {
    /// Where events go.
    pub journal: Arc<Journal>,
    /// The clock of the process.
    pub timings: Arc<Timings>,
    /// Signals that end the machine.
    pub signals: Signals,
    /// The control socket. `None` if the machine has none.
    pub control: Option<Server>,
    /// The service manager.
    pub notifier: Notifier,
    /// The open files of the profile's devices ([`profile_devices::open`]).
    pub backends: Vec<Backend>,
    /// The store for error records. `None` if the profile has none.
    pub store: Option<StoreThread>,
}

/// A machine that was set up and not started.
pub struct Prepared {
    ports: Vec<vcpu::KvmPort>,
    environment: VcpuEnvironment,
    board: Board,
    /// The device by which the guest injects errors. `None` if it cannot.
    error_injector: Option<Arc<Mutex<ErrorInjector>>>,
    console: Console,
    /// `None` if the console is the serial port.
    terminal: Option<Terminal>,
    control: Arc<Control>,
    lifecycle: Arc<Lifecycle>,
    /// After everything that refers to it.
    vm: KvmVm,
}

/// Loads kernel, initrd and tables into guest memory. `poisoned` is memory that cannot be used.
///
/// # Errors
/// Returns an error if a file cannot be used, or if kernel, initrd or tables do not fit.
pub fn load(
    machine: &Machine,
    platform: &Platform,
    ram: &GuestRam,
    poisoned: &[Range],
    timings: &Timings,
) -> Result<(boot::Entry, GuestTables), MachineError> {
    let command_line = profile_devices::command_line(machine).map_err(BoardError::Place)?;
    let (entry, tables) =
        boot::load(&machine.boot, command_line, ram, poisoned, platform, |platform, chosen| {
            timings.mark(Phase::Kernel);
            describe::tables(machine, platform, chosen)
        })?;
    timings.mark(Phase::Tables);
    tracing::info!(?entry, tables = machine.firmware.name(), "kernel and tables are in guest memory");
    Ok((entry, tables))
}

/// Sets a machine up whose memory is loaded: devices, vCPUs.
///
/// # Errors
/// Returns an error if a system call, an ioctl or a device of the profile fails.
pub fn prepare(
    kvm: &Kvm,
    machine: &Machine,
    blueprint: &Blueprint,
    entry: &boot::Entry,
    preserved: &PreservedState,
    env: &Environment,
) -> Result<Prepared, MachineError> {
    let (timings, platform) = (&env.timings, &blueprint.platform);
    let control = Arc::new(Control::default());
    let lifecycle = Lifecycle::new(Arc::clone(&control), Arc::clone(timings), machine.on_reboot);
    let lifecycle = Arc::new(lifecycle.map_err(host_error("eventfd(2)"))?);
    let mut vm = KvmVm::new(kvm, preserved.ram.clone(), platform)?;
    preserved.reporting.memslot_holes().spans().into_iter().try_for_each(|span| vm.punch_hole(span))?;
    let console = Console::stdio(&control, preserved.schedule.clone());
    let console = console.map_err(host_error("starting the thread console-output"))?;
    let mut bus = MachineBus::new(lifecycle.clone());
    let mut wiring = Wiring { bus: &mut bus, vm: &vm };
    let terminal = terminal::of(&env.backends).map_err(host_error("dup(2)"))?;
    let serial = if terminal.is_some() { console.output().dropped() } else { console.output() };
    let board = board::attach(machine.arch, &mut wiring, machine.firmware, &lifecycle, serial)?;
    profile_devices::attach(&mut wiring, machine, &env.backends, &preserved.ram, |device| {
        preserved.device_observer(device, &env.journal)
    })?;
    let error_injector = match &platform.error_injection {
        Some(description) => {
            Some(board::attach_error_injector(&mut wiring, description, &preserved.ram, &blueprint.ras)?)
        }
        None => None,
    };
    let store = env.store.as_ref().and_then(StoreThread::service);
    if let (Some(registers), Some(range), Some(store)) =
        (&platform.error_serialization, platform.memory.error_log, store)
    {
        let (ram, observer) = (preserved.ram.clone(), preserved.store_observer());
        board::attach_error_store(&mut wiring, registers, range, ram, store, observer)?;
    }
    let ports = vm.ports(kvm, entry)?;
    timings.mark(Phase::Vcpus);
    preserved.reporting.attach(ActionExecutor {
        events: Arc::clone(&board.events),
        interrupts: interrupt_lines(&vm, platform)?,
        control: Arc::clone(&control),
        vcpus: machine.vcpus,
        lifecycle: Arc::clone(&lifecycle),
    });
    let environment = VcpuEnvironment {
        io: Arc::new(bus),
        memory_errors: Arc::clone(&preserved.reporting) as _,
        observer: Arc::new(StartupObserver::new(Arc::clone(&env.journal), Arc::clone(timings))),
    };
    Ok(Prepared { ports, environment, board, error_injector, console, terminal, control, lifecycle, vm })
}

/// The interrupt lines of the error sources that have an interrupt of their own, each with its GSI.
fn interrupt_lines(vm: &KvmVm, platform: &Platform) -> Result<Vec<(u32, InterruptLine)>, MachineError> {
    let mut lines: Vec<(u32, InterruptLine)> = Vec::new();
    for source in &platform.error_sources {
        if let Notification::External { gsi } = source.notification
            && !lines.iter().any(|(wired, _)| *wired == gsi)
        {
            let line = InterruptLine::new().map_err(host_error("eventfd(2)"))?;
            vm.bind(&line, gsi)?;
            lines.push((gsi, line));
        }
    }
    Ok(lines)
}

/// Makes a [`MachineError::Host`] of an errno. `what` is the system call, for example `eventfd(2)`.
pub fn host_error(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Host { what, source }
}

impl Prepared {
    /// Runs the machine to its end.
    ///
    /// # Errors
    /// Returns an error if a thread cannot be started or the event loop fails.
    pub fn run(
        self,
        machine: &Machine,
        blueprint: &Blueprint,
        preserved: &PreservedState,
        env: &mut Environment,
    ) -> Result<Ended, MachineError> {
        let Prepared { ports, environment, board, error_injector, console, terminal, control, lifecycle, vm } =
            self;
        let (port, stream) = match &terminal {
            Some(terminal) => {
                let started = terminal.start(console.output());
                let (port, stream) = started.map_err(host_error("starting the thread console-stream"))?;
                (port, Some(stream))
            }
            None => (Arc::clone(&board.console), None),
        };
        let input =
            Input::start(port, &lifecycle).map_err(host_error("starting the thread console-input"))?;
        let exited: Arc<dyn Fn(VcpuExited) + Send + Sync> = {
            let lifecycle = Arc::clone(&lifecycle);
            Arc::new(move |exited: VcpuExited| {
                if exited.reason != VcpuExitReason::Stopped {
                    lifecycle.end(Ending::Crashed(exited));
                }
            })
        };
        let mut vcpus = Vcpus::start(ports, &environment, &control, &exited)?;
        let running = RunningMachine {
            machine,
            plan: &blueprint.report,
            vcpus: &vcpus,
            power_button: &board.power_button,
            new_generation: &board.new_generation,
            terminal: terminal.as_ref(),
            lifecycle: &lifecycle,
            preserved,
            vm: &vm,
            memory: &blueprint.platform.memory,
            error_injector: error_injector.as_deref(),
            backends: &env.backends,
            started: Instant::now(),
            dump: CurrentDump::default(),
        };
        env.notifier.ready();
        let outcome = event_loop::run(&running, &mut env.signals, env.control.as_mut(), &mut env.notifier);
        // The error that ended the machine may have spent it.
        running.check_budget();
        preserved.jobs.stop(|| env.notifier.tick());
        let stopped = vcpus.stop();
        // The last references to the devices: their threads end here.
        drop((vcpus, environment));
        // A stop may have replaced a reset meanwhile.
        let ended =
            outcome.map(|ending| Ended::note(lifecycle.ending().unwrap_or(ending), &preserved.reporting));
        // Errors detected until now are reported as errors of this boot: the next one starts with fresh memory.
        preserved.detected_errors.pending().for_each(|error| preserved.reporting.detected(error));
        preserved.save_ledger();
        env.timings.mark(Phase::GuestShutdown);
        // A vCPU that does not return may hold the lock of the serial port, which the input's thread waits for then.
        if stopped.is_ok() {
            input.stop();
        }
        if let Some(stream) = stream {
            stream.stop();
        }
        console.close();
        let ended = ended?;
        match stopped {
            // A vCPU that runs on has the memory of the next boot.
            Err(error) if ended.boots_again(machine.on_reboot) => Err(MachineError::Threads(error)),
            Err(error) => {
                tracing::error!("{error}: the process ends without them");
                Ok(ended)
            }
            Ok(()) => Ok(ended),
        }
    }
}
