//! Error injection: the registers to which EINJ leads (ACPI 6.5, 18.6), by which a guest injects errors into its own machine.
//!
//! | offset | register | action | access |
//! |---|---|---|---|
//! | 0x00 | begin: a new operation | BEGIN_INJECTION_OPERATION | write |
//! | 0x08 | the GPA of the trigger table | GET_TRIGGER_ERROR_ACTION_TABLE | read |
//! | 0x10 | error type, if it has no address | SET_ERROR_TYPE | read, write |
//! | 0x18 | the error types that can be injected | GET_ERROR_TYPE | read |
//! | 0x20 | end: an error that was not triggered stays where it was injected | END_OPERATION | write |
//! | 0x28 | execute: inject the error | EXECUTE_OPERATION | write |
//! | 0x30 | busy: 1 while the error is being injected | CHECK_BUSY_STATUS | read |
//! | 0x38 | [status](Outcome) of the last operation | GET_COMMAND_STATUS | read |
//! | 0x40 | trigger the error that was injected | TRIGGER_ERROR | write |
//!
//! Each has 64 bits, and is accessed as a whole. Other reads return zero, and other writes are ignored. Type and address of an error
//! (SET_ERROR_TYPE_WITH_ADDRESS) are in memory, which the device reads when it executes, and clears when an operation begins; the trigger
//! table is in memory too, and the device does not read it.
//!
//! The device injects nothing itself: it keeps one error to inject and one to trigger, wakes the VMM ([`wake`](ErrorInjector::wake)), which
//! takes them ([`take`](ErrorInjector::take)) and reports how the injection has ended ([`finish`](ErrorInjector::finish)). The guest polls
//! meanwhile. So a guest makes the VMM keep no more than these two, whatever it writes.
//!
//! It is not a device in ACPI: EINJ describes the registers.

use std::io;
use std::sync::Arc;

use guest_memory::GuestRam;
use platform::{ErrorInjection, Range};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Bytes of the registers.
pub const LEN: u64 = 0x1000;

const BEGIN: u64 = 0x00;
const TRIGGER_POINTER: u64 = 0x08;
const ERROR_TYPE: u64 = 0x10;
const ERROR_TYPES: u64 = 0x18;
const END: u64 = 0x20;
const EXECUTE: u64 = 0x28;
const BUSY: u64 = 0x30;
const STATUS: u64 = 0x38;
const TRIGGER: u64 = 0x40;

/// Offsets in the block of memory.
const PARAMETERS: u64 = 0x00;
const TRIGGER_TABLE: u64 = 0x40;

/// The device with its registers at a GPA and this block of memory, for the machine's description.
#[must_use]
pub const fn description(base: u64, memory: Range) -> ErrorInjection {
    ErrorInjection {
        begin: base + BEGIN,
        trigger_pointer: base + TRIGGER_POINTER,
        error_type: base + ERROR_TYPE,
        error_types: base + ERROR_TYPES,
        end: base + END,
        execute: base + EXECUTE,
        busy: base + BUSY,
        status: base + STATUS,
        trigger: base + TRIGGER,
        parameters: memory.start + PARAMETERS,
        trigger_table: memory.start + TRIGGER_TABLE,
    }
}

/// A type of error that a guest can inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Memory Correctable.
    MemoryCorrectable,
    /// Memory Uncorrectable non-fatal.
    MemoryUncorrectable,
    /// Memory Uncorrectable fatal.
    MemoryFatal,
}

impl ErrorType {
    /// All types.
    pub const ALL: [ErrorType; 3] =
        [ErrorType::MemoryCorrectable, ErrorType::MemoryUncorrectable, ErrorType::MemoryFatal];

    /// Its bit in registers (ACPI 6.5, 18.6, "Error Type Definition").
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            ErrorType::MemoryCorrectable => 1 << 3,
            ErrorType::MemoryUncorrectable => 1 << 4,
            ErrorType::MemoryFatal => 1 << 5,
        }
    }

    /// Its name, as Linux prints it (`available_error_type`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorType::MemoryCorrectable => "Memory Correctable",
            ErrorType::MemoryUncorrectable => "Memory Uncorrectable non-fatal",
            ErrorType::MemoryFatal => "Memory Uncorrectable fatal",
        }
    }
}

/// An error that a guest injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectedError {
    /// What it is.
    pub error_type: ErrorType,
    /// The GPA of the memory. Any value: the guest may not have such memory.
    pub gpa: u64,
}

/// What a guest requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Inject the error, and report to [`ErrorInjector::finish`].
    Inject(InjectedError),
    /// The error that was injected is to be detected now.
    Trigger(InjectedError),
}

/// How an injection has ended: its command status (ACPI 6.5, 18.6, "Command Status Definition"; Linux reads the code from bit 0 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The error is injected.
    Success,
    /// It cannot be injected.
    Failure,
    /// The machine has no such error, or the guest no such memory.
    InvalidAccess,
}

impl Outcome {
    const fn code(self) -> u64 {
        match self {
            Outcome::Success => 0,
            Outcome::Failure => 1,
            Outcome::InvalidAccess => 2,
        }
    }
}

/// The structure that SET_ERROR_TYPE_WITH_ADDRESS writes (ACPI 6.5, 18.6, "SET_ERROR_TYPE_WITH_ADDRESS Data Structure"): error type, offset
/// of a vendor's extension (none), flags, APIC id, address, address mask, PCIe id.
type Parameters = [u8; 36];

/// Flags of [`Parameters`]: the fields that are valid.
mod valid {
    pub(super) const PROCESSOR: u32 = 1;
    pub(super) const MEMORY: u32 = 1 << 1;
    pub(super) const PCIE: u32 = 1 << 2;
}

/// The device.
pub struct ErrorInjector {
    ram: GuestRam,
    /// GPA of the guest's [`Parameters`].
    parameters: u64,
    trigger_table: u64,
    /// Bits of the types that the guest can inject.
    offered: u32,
    error_type: u64,
    operation: Operation,
    outcome: Outcome,
    /// An error to trigger, until the VMM takes it.
    triggered: Option<InjectedError>,
    wake: Arc<EventFd>,
}

/// What has become of the last injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// There is none, or it has ended.
    None,
    /// The guest has requested it.
    Requested(InjectedError),
    /// The VMM carries it out.
    InProgress(InjectedError),
    /// The error is injected, and can be triggered.
    Injected(InjectedError),
}

impl ErrorInjector {
    /// The device of that description, in a guest with this memory.
    ///
    /// # Errors
    /// Returns the error of eventfd(2).
    pub fn new(description: &ErrorInjection, ram: GuestRam, offered: &[ErrorType]) -> io::Result<Self> {
        Ok(ErrorInjector {
            ram,
            parameters: description.parameters,
            trigger_table: description.trigger_table,
            offered: offered.iter().fold(0, |bits, error_type| bits | error_type.bit()),
            error_type: 0,
            operation: Operation::None,
            outcome: Outcome::Success,
            triggered: None,
            wake: Arc::new(EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?),
        })
    }

    /// Readable if the guest has requested something.
    #[must_use]
    pub fn wake(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// Takes what the guest requests next. `None` if there is nothing.
    pub fn take(&mut self) -> Option<Request> {
        // The error before the one that is to be injected.
        if let Some(error) = self.triggered.take() {
            return Some(Request::Trigger(error));
        }
        let Operation::Requested(error) = self.operation else { return None };
        self.operation = Operation::InProgress(error);
        Some(Request::Inject(error))
    }

    /// The injection that was [taken](Self::take) has ended.
    pub fn finish(&mut self, outcome: Outcome) {
        let Operation::InProgress(error) = self.operation else { return };
        self.outcome = outcome;
        self.operation = match outcome {
            Outcome::Success => Operation::Injected(error),
            Outcome::Failure | Outcome::InvalidAccess => Operation::None,
        };
    }

    fn is_busy(&self) -> bool {
        matches!(self.operation, Operation::Requested(_) | Operation::InProgress(_))
    }

    /// A new operation begins, or one ends: what was injected before can no longer be triggered.
    fn forget(&mut self) {
        if !self.is_busy() {
            self.operation = Operation::None;
        }
    }

    fn execute(&mut self) {
        if self.is_busy() {
            return;
        }
        match self.requested() {
            Some(error) => {
                self.operation = Operation::Requested(error);
                self.notify();
            }
            None => {
                self.operation = Operation::None;
                self.outcome = Outcome::InvalidAccess;
            }
        }
    }

    /// The error that the guest has described. `None` if the device does not offer it. An error without an address is not: no page of the
    /// guest's is chosen for it. Nor is one whose description cannot be read.
    fn requested(&self) -> Option<InjectedError> {
        let mut parameters: Parameters = [0; size_of::<Parameters>()];
        self.ram.read(self.parameters, &mut parameters).ok()?;
        let word = |at: usize| {
            let bytes = parameters.get(at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let (bits, flags) = (word(0)?, word(8)?);
        let gpa = u64::from(word(20)?) << 32 | u64::from(word(16)?);
        let error_type = ErrorType::ALL.into_iter().find(|error_type| error_type.bit() == bits)?;
        let has_address = flags & valid::MEMORY != 0;
        let is_known = flags & !(valid::PROCESSOR | valid::MEMORY | valid::PCIE) == 0;
        // The address is within its own mask, whatever that is.
        (self.offered & bits != 0 && has_address && is_known).then_some(InjectedError { error_type, gpa })
    }

    fn begin(&mut self) {
        self.error_type = 0;
        // Memory that cannot be written cannot be read either: nothing is injected then.
        let _ = self.ram.write(self.parameters, &[0; size_of::<Parameters>()]);
        self.forget();
    }

    fn trigger(&mut self) {
        if let Operation::Injected(error) = self.operation {
            self.operation = Operation::None;
            self.triggered = Some(error);
            self.notify();
        }
    }

    fn notify(&self) {
        // Fails only if the counter would overflow.
        let _ = self.wake.write(1);
    }
}

impl MutDeviceMmio for ErrorInjector {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let value = match offset {
            TRIGGER_POINTER => self.trigger_table,
            ERROR_TYPE => self.error_type,
            ERROR_TYPES => self.offered.into(),
            BUSY => self.is_busy().into(),
            STATUS => self.outcome.code(),
            _ => 0,
        };
        match <&mut [u8; 8]>::try_from(&mut *data) {
            Ok(data) => *data = value.to_le_bytes(),
            Err(_) => data.fill(0),
        }
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let Ok(value) = data.try_into().map(u64::from_le_bytes) else { return };
        match (offset, value) {
            (BEGIN, 1) => self.begin(),
            (ERROR_TYPE, value) => self.error_type = value,
            (END, 1) => self.forget(),
            (EXECUTE, 1) => self.execute(),
            (TRIGGER, 1) => self.trigger(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
