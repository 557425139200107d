//! A running machine (x86_64): everything wired together, from its first instruction to its end.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use devices::ged::GenericEventDevice;
use devices::i8042::KeyboardController;
use devices::power::PowerRegisters;
use devices::rtc::RealTimeClock;
use devices::serial::SerialPort;
use devices::{InterruptLine, ged, i8042, power, rtc, serial};
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use firmware_tables::GuestTables;
use guest_memory::{AllocateError, Backing, GuestRam};
use kvm_ioctls::Kvm;
use machine_profile::{Backing as BackingKind, Machine};
use platform::{Platform, x86_64};
use vcpu::{Bus, Control, Ended, ThreadError, Vcpus};
use vmm_sys_util::epoll::EventSet;

use crate::boot::{self, BootError};
use crate::bus::{MachineBus, Occupied};
use crate::console::{Console, Input, Output};
use crate::journal::Journal;
use crate::kvm::{KvmError, KvmVm};
use crate::lifecycle::{Ending, Lifecycle};
use crate::signals::Signals;
use crate::timings::{Phase, Timings};

/// Why a machine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Guest memory can not be had.
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
    /// vCPUs can not be started.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// The host refuses something that every machine needs.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The event loop can not be run.
    #[error("the event loop fails: {0}")]
    Events(event_manager::Error),
}

/// What a machine needs beyond its profile.
pub struct Surroundings {
    /// Where events go.
    pub journal: Arc<Journal>,
    /// The clock of the process.
    pub timings: Arc<Timings>,
    /// Signals that end the machine.
    pub signals: Signals,
}

/// A machine that was set up and not started.
pub struct Prepared {
    vcpus: Vec<vcpu::KvmPort>,
    bus: Arc<dyn Bus>,
    serial: Arc<Mutex<SerialPort<Output>>>,
    console: Console,
    control: Arc<Control>,
    lifecycle: Arc<Lifecycle>,
    /// After everything that refers to it.
    _vm: KvmVm,
}

/// Sets a machine up: memory, kernel, tables, devices, vCPUs.
///
/// # Errors
/// Where a file, the host or KVM does not give what it needs.
pub fn prepare(
    kvm: Kvm,
    machine: &Machine,
    platform: &Platform,
    tables: &GuestTables,
    around: &Surroundings,
) -> Result<Prepared, MachineError> {
    let timings = &around.timings;
    let ram = GuestRam::allocate(
        &platform.memory.ram.iter().map(|range| (range.start, range.len)).collect::<Vec<_>>(),
        match machine.memory.backing {
            BackingKind::Anonymous => Backing::Anonymous,
            BackingKind::Memfd => Backing::Memfd,
            BackingKind::Hugetlbfs => Backing::Hugetlbfs { page_size: machine.memory.page_size.bytes() },
        },
    )?;
    timings.mark(Phase::Memory);
    let entry = boot::load(&machine.boot, &ram, &platform.memory, tables)?;
    timings.mark(Phase::Kernel);

    let control = Arc::new(Control::default());
    let lifecycle = Arc::new(Lifecycle::new(Arc::clone(&control))?);
    let vm = KvmVm::new(kvm, ram, machine.vcpus)?;
    let console = Console::stdio(&control)?;
    let mut bus = MachineBus::new(Arc::clone(&around.journal), Arc::clone(timings));
    let serial = add_devices(&mut bus, &vm, &lifecycle, console.output())?;
    let vcpus = vm.vcpus(machine.vcpus, &entry)?;
    timings.mark(Phase::Vcpus);
    Ok(Prepared { vcpus, bus: Arc::new(bus), serial, console, control, lifecycle, _vm: vm })
}

/// Every device of an x86_64 machine, at the addresses and on the lines that its description names.
fn add_devices(
    bus: &mut MachineBus,
    vm: &KvmVm,
    lifecycle: &Arc<Lifecycle>,
    output: Output,
) -> Result<Arc<Mutex<SerialPort<Output>>>, MachineError> {
    let line = InterruptLine::new()?;
    vm.bind(&line, x86_64::SERIAL_GSI)?;
    let serial = Arc::new(Mutex::new(SerialPort::new(line, output)?));
    bus.add_ports(x86_64::SERIAL_PORT, serial::LEN, serial.clone())?;

    bus.add_ports(x86_64::RTC_PORT, rtc::LEN, Arc::new(Mutex::new(RealTimeClock::new())))?;

    let keyboard = KeyboardController::new(lifecycle.clone());
    bus.add_ports(x86_64::I8042_DATA_PORT, i8042::LEN, Arc::new(Mutex::new(keyboard)))?;

    let registers = PowerRegisters::new(lifecycle.clone(), x86_64::S5_SLEEP_TYPE, x86_64::RESET_VALUE);
    bus.add_ports(x86_64::POWER_PORT, power::LEN, Arc::new(Mutex::new(registers)))?;

    let line = InterruptLine::new()?;
    vm.bind(&line, x86_64::GED_GSI)?;
    let ged = GenericEventDevice::new(line);
    bus.add_mmio(x86_64::GED_BASE, ged::LEN, Arc::new(Mutex::new(ged)))?;
    Ok(serial)
}

impl Prepared {
    /// Runs the machine to its end.
    ///
    /// # Errors
    /// Where its threads or the event loop can not be run.
    pub fn run(self, around: &mut Surroundings) -> Result<Ending, MachineError> {
        let Prepared { vcpus, bus, serial, console, control, lifecycle, _vm } = self;
        let input = Input::start(serial, &lifecycle)?;
        let announce: Arc<dyn Fn(Ended) + Send + Sync> = {
            let lifecycle = Arc::clone(&lifecycle);
            Arc::new(move |ended: Ended| {
                if ended.end != vcpu::End::Stopped {
                    lifecycle.end(Ending::Crashed(ended));
                }
            })
        };
        let mut vcpus = Vcpus::start(vcpus, &bus, &control, &announce)?;
        let outcome = watch(&lifecycle, &mut around.signals);
        if outcome.is_err() {
            lifecycle.end(Ending::Quit);
        }
        vcpus.stop();
        around.timings.mark(Phase::GuestShutdown);
        input.stop();
        console.close();
        outcome
    }
}

/// Waits for the machine's end.
fn watch(lifecycle: &Arc<Lifecycle>, signals: &mut Signals) -> Result<Ending, MachineError> {
    let mut events = EventManager::<Box<dyn MutEventSubscriber + '_>>::new().map_err(MachineError::Events)?;
    events.add_subscriber(Box::new(EndWatcher(lifecycle)));
    events.add_subscriber(Box::new(SignalWatcher { signals, lifecycle }));
    loop {
        events.run().map_err(MachineError::Events)?;
        if let Some(ending) = lifecycle.ending() {
            return Ok(ending);
        }
    }
}

/// Wakes the event loop when an end was announced.
struct EndWatcher<'a>(&'a Lifecycle);

impl MutEventSubscriber for EndWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // An error means that it was read already.
        let _ = self.0.wake().read();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.0.wake());
    }
}

/// Ends the machine when a signal asks for it.
struct SignalWatcher<'a> {
    signals: &'a mut Signals,
    lifecycle: &'a Lifecycle,
}

impl MutEventSubscriber for SignalWatcher<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        if let Some(signal) = self.signals.pending() {
            self.lifecycle.end(Ending::Signal(signal));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, self.signals);
    }
}

fn add(ops: &mut EventOps<'_>, descriptor: &impl AsRawFd) {
    if let Err(error) = ops.add(Events::new(descriptor, EventSet::IN)) {
        tracing::error!(?error, "a descriptor can not be watched");
    }
}
