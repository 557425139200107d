//! The board: the devices of a machine, described for its tables and attached to its bus.
//!
//! Each architecture has a file with the devices of every machine: their nodes and, beside them, how they are attached. The
//! devices of the profile are found by their kind ([`profile_devices`]). Everything here is compiled on both architectures.

mod aarch64;
pub mod profile_devices;
mod x86_64;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::error_injection::{self, ErrorInjector};
use devices::error_serialization::{self, ErrorStore, StoreService};
use devices::ged::GenericEventDevice;
use devices::kind::DeviceError;
use devices::{ConsolePort, InterruptLine, LevelLine, PoisonObserver};
use guest_memory::GuestRam;
use machine_profile::TableSet;
use platform::{Arch, DeviceNode, ErrorInjection, ErrorSerialization, Range};
use ras_core::plan::Plan;

use crate::bus::{MachineBus, Occupied};
use crate::console::Output;
use crate::kvm::{KvmError, KvmVm};
use crate::lifecycle::Lifecycle;
use crate::ras::inject::from_guest;

/// Why the devices of a machine cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Two devices are at one address.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// An ioctl for an interrupt line failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// eventfd(2) failed.
    #[error("eventfd(2): {0}")]
    EventFd(std::io::Error),
    /// A device of the profile cannot be made.
    #[error("{source}")]
    Device {
        /// Its position among the devices of the profile, from 0.
        index: usize,
        /// What is wrong.
        source: DeviceError,
    },
    /// The devices of the profile have no place in the machine.
    #[error(transparent)]
    Place(#[from] profile_devices::PlaceError),
}

/// The devices that the VMM itself drives.
pub(crate) struct Board {
    /// The console's serial port.
    pub(crate) console: Arc<Mutex<dyn ConsolePort>>,
    /// The event device; attached to every machine, whether its tables describe it or not.
    pub(crate) events: Arc<Mutex<GenericEventDevice>>,
    /// The power button.
    pub(crate) power_button: EventLine,
    /// What notifies the guest of a new generation id.
    pub(crate) new_generation: EventLine,
}

/// What the event of a device without registers is wired to: what the guest's tables describe.
pub(crate) enum EventLine {
    /// An event of a Generic Event Device.
    Ged(Arc<Mutex<GenericEventDevice>>, u32),
    /// An interrupt line of its own.
    Interrupt(InterruptLine),
    /// Nothing: the machine's tables cannot describe the device.
    Absent,
}

impl EventLine {
    /// Notifies the guest. Returns `false` if there is no such device.
    pub(crate) fn raise(&self) -> bool {
        match self {
            EventLine::Ged(events, event) => lock(events).raise(*event),
            EventLine::Interrupt(line) => line.raise(),
            EventLine::Absent => return false,
        }
        true
    }

    /// Whether there is such a device.
    pub(crate) fn is_present(&self) -> bool {
        !matches!(self, EventLine::Absent)
    }
}

/// `_HID` of the generation id: ours, as its specification leaves it to the vendor.
const GENERATION_ID_HID: &str = "GHST0032";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The nodes of the devices of every machine of an architecture.
#[must_use]
pub fn nodes(arch: Arch) -> Vec<DeviceNode> {
    match arch {
        Arch::X86_64 => x86_64::nodes(),
        Arch::Aarch64 => aarch64::nodes(),
    }
}

/// The name of the device that is the guest's first console.
#[must_use]
pub fn console(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => devices::serial::NAME,
        Arch::Aarch64 => devices::pl011::NAME,
    }
}

/// The GPA of the generation id.
pub(crate) fn generation_id(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 => platform::x86_64::GENERATION_ID.start,
        Arch::Aarch64 => platform::aarch64::GENERATION_ID.start,
    }
}

/// Error injection, with this block of memory.
#[must_use]
pub fn error_injection(arch: Arch, memory: Range) -> ErrorInjection {
    let base = match arch {
        Arch::X86_64 => platform::x86_64::ERROR_INJECTION_BASE,
        Arch::Aarch64 => platform::aarch64::ERROR_INJECTION_BASE,
    };
    error_injection::description(base, memory)
}

/// Attaches the device by which the guest injects errors, with what the plan can report.
pub(crate) fn attach_error_injector(
    wiring: &mut Wiring<'_>,
    description: &ErrorInjection,
    ram: &GuestRam,
    plan: &Plan,
) -> Result<Arc<Mutex<ErrorInjector>>, BoardError> {
    let injector = ErrorInjector::new(description, ram.clone(), &from_guest::error_types(plan));
    let injector = Arc::new(Mutex::new(injector.map_err(BoardError::EventFd)?));
    wiring.bus.add_mmio(description.begin, error_injection::LEN, injector.clone())?;
    Ok(injector)
}

/// The registers of a store for error records.
pub(crate) fn error_serialization(arch: Arch) -> ErrorSerialization {
    error_serialization::registers(match arch {
        Arch::X86_64 => platform::x86_64::ERROR_SERIALIZATION_BASE,
        Arch::Aarch64 => platform::aarch64::ERROR_SERIALIZATION_BASE,
    })
}

/// Attaches the device of a store for error records behind its registers. `range` is the error log address range.
pub(crate) fn attach_error_store(
    wiring: &mut Wiring<'_>,
    registers: &ErrorSerialization,
    range: Range,
    ram: GuestRam,
    store: StoreService,
    observer: Arc<dyn PoisonObserver>,
) -> Result<(), BoardError> {
    let device = ErrorStore::new(range, ram, store, observer);
    // The first register.
    wiring.bus.add_mmio(registers.operation, error_serialization::LEN, Arc::new(Mutex::new(device)))?;
    Ok(())
}

/// Attaches the devices of every machine of an architecture.
pub(crate) fn attach(
    arch: Arch,
    wiring: &mut Wiring<'_>,
    firmware: TableSet,
    lifecycle: &Arc<Lifecycle>,
    output: Output,
) -> Result<Board, BoardError> {
    match arch {
        Arch::X86_64 => x86_64::attach(wiring, firmware, lifecycle, output),
        Arch::Aarch64 => aarch64::attach(wiring, firmware, output),
    }
}

/// Where devices are attached: the bus, and KVM's interrupt controller.
pub(crate) struct Wiring<'a> {
    pub(crate) bus: &'a mut MachineBus,
    pub(crate) vm: &'a KvmVm,
}

impl Wiring<'_> {
    /// A line whose edges KVM delivers to a GSI.
    fn edge_line(&self, gsi: u32) -> Result<InterruptLine, BoardError> {
        let line = InterruptLine::new().map_err(BoardError::EventFd)?;
        self.vm.bind(&line, gsi)?;
        Ok(line)
    }

    /// A level-triggered line to a GSI.
    fn level_line(&self, gsi: u32) -> LevelLine {
        LevelLine::new(self.vm.level(gsi))
    }
}
