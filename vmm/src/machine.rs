//! A running machine: everything wired together, from its first instruction to its end.

#[cfg_attr(target_arch = "x86_64", path = "machine/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "machine/aarch64.rs")]
mod arch;
mod operator;
mod preserved;
mod virtio;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use devices::ged::GenericEventDevice;
use devices::virtio::block::DiskError;
use devices::{ConsolePort, InterruptLine, ged};
use guest_memory::AllocateError;
use kvm_ioctls::Kvm;
use machine_profile::Machine;
use platform::Platform;
use ras_core::Notification;
use ras_core::reporters::BuildError;
use vcpu::{Bus, Control, Ended, ThreadError, Vcpus};

use crate::boot::{self, BootError};
use crate::bus::{MachineBus, Occupied};
use crate::console::{Console, Input};
use crate::control::Server;
use crate::describe;
use crate::journal::Journal;
use crate::kvm::{KvmError, KvmVm};
use crate::lifecycle::{Ending, Lifecycle};
use crate::plan::Blueprint;
use crate::ras::ActionExecutor;
use crate::signals::Signals;
use crate::timings::{Phase, Timings};

use operator::Operator;
pub use preserved::PreservedState;

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Guest memory cannot be had.
    #[error(transparent)]
    Memory(#[from] AllocateError),
    /// Kernel, initrd or tables do not get into guest memory.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// KVM refuses.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Two devices share an address.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// A disk of the profile is none.
    #[error("{path}: {source}")]
    Disk {
        /// Its place among the profile's devices, from 0.
        index: usize,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: DiskError,
    },
    /// This build cannot carry an answer of the plan.
    #[error(transparent)]
    Reporter(#[from] BuildError),
    /// vCPUs cannot be started.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// The host refuses something that every machine needs.
    #[error("this host gives no {what}: {source}")]
    Host {
        /// What.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The event loop cannot be run.
    #[error("the event loop fails: {0}")]
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
    /// Where others may ask things of the machine.
    pub control: Option<Server>,
}

/// A machine that was set up and not started.
pub struct Prepared {
    name: String,
    ports: Vec<vcpu::KvmPort>,
    bus: Arc<dyn Bus>,
    devices: Devices,
    console: Console,
    control: Arc<Control>,
    lifecycle: Arc<Lifecycle>,
    /// After everything that refers to it.
    vm: KvmVm,
}

/// The devices that the VMM itself has to do with.
struct Devices {
    console: Arc<Mutex<dyn ConsolePort>>,
    /// The event device; on every machine, even if its tables do not tell of it.
    events: Arc<Mutex<GenericEventDevice>>,
    power_button: PowerButton,
}

/// What the power button is wired to.
enum PowerButton {
    /// A Generic Event Device.
    Event(Arc<Mutex<GenericEventDevice>>),
    /// An interrupt line.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "an MP table has no words for it"))]
    Line(InterruptLine),
    /// Nothing: its tables have no word for one.
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "both kinds of aarch64 tables have one"))]
    Absent,
}

impl PowerButton {
    /// Presses it. False where there is none.
    fn press(&self) -> bool {
        match self {
            PowerButton::Event(events) => lock(events).raise(ged::POWER_BUTTON),
            PowerButton::Line(line) => line.raise(),
            PowerButton::Absent => return false,
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets a machine up in its memory: kernel, tables, devices, vCPUs.
///
/// # Errors
/// Where a file, the host or KVM does not give what it needs.
pub fn prepare(
    kvm: Kvm,
    machine: &Machine,
    blueprint: &Blueprint,
    preserved: &PreservedState,
    env: &Environment,
) -> Result<Prepared, MachineError> {
    let (timings, platform) = (&env.timings, &blueprint.platform);
    let command_line = describe::command_line(machine, platform);
    let entry = boot::load(
        &machine.boot,
        command_line,
        &preserved.ram,
        &preserved.lost_for_good(),
        platform,
        |chosen| {
            timings.mark(Phase::Kernel);
            describe::tables(machine, platform, chosen)
        },
    )?;
    timings.mark(Phase::Tables);
    tracing::info!(?entry, tables = machine.firmware.name(), "kernel and tables are in guest memory");

    let control = Arc::new(Control::default());
    let lifecycle = Lifecycle::new(Arc::clone(&control), Arc::clone(&env.journal), Arc::clone(timings));
    let lifecycle = Arc::new(lifecycle.map_err(no("event descriptor"))?);
    let mut vm = KvmVm::new(kvm, preserved.ram.clone(), platform)?;
    preserved.reporting.memslot_holes().spans().into_iter().try_for_each(|span| vm.punch_hole(span))?;
    let console = Console::stdio(&control, Arc::clone(&preserved.schedule));
    let console = console.map_err(no("thread for the console"))?;
    let mut bus = MachineBus::new(
        Arc::clone(&env.journal),
        Arc::clone(timings),
        lifecycle.clone(),
        Arc::clone(&preserved.reporting),
    );
    let devices = arch::add_devices(&mut bus, &vm, machine.firmware, &lifecycle, console.output())?;
    virtio::add_devices(&mut bus, &vm, machine, platform, preserved)?;
    let ports = vm.ports(&entry)?;
    timings.mark(Phase::Vcpus);
    let name = machine.name.clone();
    preserved.reporting.attach(ActionExecutor {
        events: Arc::clone(&devices.events),
        external: external_line(&vm, platform)?,
        control: Arc::clone(&control),
        vcpus: machine.vcpus,
        lifecycle: Arc::clone(&lifecycle),
    });
    Ok(Prepared { name, ports, bus: Arc::new(bus), devices, console, control, lifecycle, vm })
}

/// The line of the error source that has an interrupt of its own, where there is one.
fn external_line(vm: &KvmVm, platform: &Platform) -> Result<Option<InterruptLine>, MachineError> {
    let gsi = platform.error_sources.iter().find_map(|source| match source.notification {
        Notification::External { gsi } => Some(gsi),
        _ => None,
    });
    let Some(gsi) = gsi else { return Ok(None) };
    let line = InterruptLine::new().map_err(no("event descriptor"))?;
    vm.bind(&line, gsi)?;
    Ok(Some(line))
}

/// Makes a [`MachineError::Host`] of what the host said.
pub fn no(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Host { what, source }
}

impl Prepared {
    /// Runs the machine to its end.
    ///
    /// # Errors
    /// Where its threads or the event loop cannot be run.
    pub fn run(self, preserved: &PreservedState, env: &mut Environment) -> Result<Ending, MachineError> {
        let Prepared { name, ports, bus, devices, console, control, lifecycle, vm } = self;
        let input =
            Input::start(Arc::clone(&devices.console), &lifecycle).map_err(no("thread for console input"))?;
        let announce: Arc<dyn Fn(Ended) + Send + Sync> = {
            let lifecycle = Arc::clone(&lifecycle);
            Arc::new(move |ended: Ended| {
                if ended.end != vcpu::End::Stopped {
                    lifecycle.end(Ending::Crashed(ended));
                }
            })
        };
        let mut vcpus = Vcpus::start(ports, &bus, &control, &announce)?;
        let operator = Operator {
            name: &name,
            vcpus: &vcpus,
            power_button: &devices.power_button,
            lifecycle: &lifecycle,
            preserved,
            vm: &vm,
            started: Instant::now(),
        };
        let outcome = operator::watch(&operator, &mut env.signals, env.control.as_ref());
        vcpus.stop();
        // The last who have the devices: their threads end here.
        drop((vcpus, bus));
        // What was found until now is lost to this machine: the next one begins with other memory.
        preserved.detected_errors.all().for_each(|found| preserved.reporting.found(found));
        env.timings.mark(Phase::GuestShutdown);
        input.stop();
        console.close();
        // It may be more than a reset by now.
        outcome.map(|ending| lifecycle.ending().unwrap_or(ending))
    }
}
