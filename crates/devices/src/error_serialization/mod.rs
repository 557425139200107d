//! A store for error records (ACPI 6.5, 18.5, "Error Serialization"): the registers to which ERST leads. What a guest writes there outlives
//! it: Linux keeps its last log in it (pstore).
//!
//! | offset | register | action | access |
//! |---|---|---|---|
//! | 0x00 | operation: 0 write, 1 read, 2 clear, 11 dummy write | BEGIN_WRITE_OPERATION, ... | write |
//! | 0x08 | end: no operation | END_OPERATION | write |
//! | 0x10 | offset of the record in the error log address range | SET_RECORD_OFFSET | write |
//! | 0x18 | execute the operation | EXECUTE_OPERATION | write |
//! | 0x20 | 1 while the operation is carried out | CHECK_BUSY_STATUS | read |
//! | 0x28 | [status](Status) of the last operation | GET_COMMAND_STATUS | read |
//! | 0x30 | identifier of the next record, or all ones; the record to read or to clear | GET_, SET_RECORD_IDENTIFIER | read, write |
//! | 0x38 | number of records | GET_RECORD_COUNT | read |
//! | 0x40 | the error log address range: GPA | GET_ERROR_LOG_ADDRESS_RANGE | read |
//! | 0x48 | its bytes | GET_ERROR_LOG_ADDRESS_RANGE_LENGTH | read |
//! | 0x50 | its attributes: slow | GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES | read |
//! | 0x58 | how long an operation takes | GET_EXECUTE_OPERATION_TIMINGS | read |
//!
//! Registers are accessed as a whole, 64 bits; other writes are ignored, and other reads return the bytes of the registers without a
//! further effect.
//!
//! The error log address range is reserved guest memory, not registers: kernels copy records with instructions that KVM on arm64 cannot
//! emulate for a device.
//!
//! # An operation
//!
//! EXECUTE_OPERATION copies the record out of guest memory and hands it to the [thread of the store](StoreThread), which alone accesses the
//! file; the guest polls CHECK_BUSY_STATUS, and the poll that finds the operation ended copies a record that was read into guest memory.
//! So no vCPU waits for the file, and no other thread accesses guest memory. An operation that takes longer than two seconds is abandoned:
//! it has failed for the guest, which does not hang in its panic, although the file may still be written.
//!
//! A record is a CPER record: its identifier and its length are in its header (UEFI 2.10, N.2.1). A record of the same identifier replaces the
//! one before.

mod service;
mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_memory::{AccessError, GuestRam};
use platform::{ErrorSerialization, Range};
use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::poison_observer::PoisonObserver;
use service::{Job, Pending, take_outcome};
pub use service::{StoreService, StoreThread};
pub use store::{MAX_RECORD_LEN, SLOTS, Store, open, open_file, records};

/// Bytes of the registers.
pub const LEN: u64 = 0x1000;

const OPERATION: u64 = 0x00;
const END: u64 = 0x08;
const OFFSET: u64 = 0x10;
const EXECUTE: u64 = 0x18;
const BUSY: u64 = 0x20;
const STATUS: u64 = 0x28;
const RECORD_ID: u64 = 0x30;
const COUNT: u64 = 0x38;
const LOG_ADDRESS: u64 = 0x40;
const LOG_LEN: u64 = 0x48;
const LOG_ATTRIBUTES: u64 = 0x50;
const TIMINGS: u64 = 0x58;

/// The registers at a GPA, for the machine's description.
#[must_use]
pub const fn registers(base: u64) -> ErrorSerialization {
    ErrorSerialization {
        operation: base + OPERATION,
        end: base + END,
        offset: base + OFFSET,
        execute: base + EXECUTE,
        busy: base + BUSY,
        status: base + STATUS,
        record_id: base + RECORD_ID,
        count: base + COUNT,
        log_address: base + LOG_ADDRESS,
        log_len: base + LOG_LEN,
        log_attributes: base + LOG_ATTRIBUTES,
        timings: base + TIMINGS,
    }
}

/// How an operation has ended (ACPI 6.5, 18.5.1.1, "Command Status Definition").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has succeeded.
    Success,
    /// The store is full.
    NotEnoughSpace,
    /// It has failed.
    Failed,
    /// There are no records.
    StoreEmpty,
    /// There is no such record.
    NotFound,
}

impl Status {
    const fn code(self) -> u64 {
        match self {
            Status::Success => 0,
            Status::NotEnoughSpace => 1,
            Status::Failed => 3,
            Status::StoreEmpty => 4,
            Status::NotFound => 5,
        }
    }
}

/// What EXECUTE_OPERATION does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Write,
    Read,
    Clear,
    /// A write that stores nothing.
    DummyWrite,
}

impl Operation {
    /// By the number of the action that begins it.
    const fn of(action: u64) -> Option<Self> {
        match action {
            0 => Some(Operation::Write),
            1 => Some(Operation::Read),
            2 => Some(Operation::Clear),
            11 => Some(Operation::DummyWrite),
            _ => None,
        }
    }
}

/// An operation that the store's thread carries out.
#[derive(Debug)]
struct Running {
    pending: Pending,
    since: Instant,
    /// Where a record that is read is put.
    offset: u64,
}

/// How long a guest waits for an operation.
const TIMEOUT: Duration = Duration::from_secs(2);
/// ERST_RANGE_SLOW: GET_EXECUTE_OPERATION_TIMINGS says how slow.
const ATTRIBUTE_SLOW: u64 = 1 << 2;
/// In microseconds: the longest time (bits 63:32), and the usual one.
const TIMINGS_VALUE: u64 = 2_000_000 << 32 | 1_000;
/// The identifier that no record has: there is none, or any.
const NO_RECORD: u64 = u64::MAX;

/// The device.
pub struct ErrorStore {
    log: Range,
    ram: GuestRam,
    observer: Arc<dyn PoisonObserver>,
    store: StoreService,
    operation: Option<Operation>,
    offset: u64,
    record_id: u64,
    /// Position of the record whose identifier is read next.
    next: usize,
    running: Option<Running>,
    status: Status,
}

impl ErrorStore {
    /// The device of a boot, with the error log address range `log`, which is guest memory.
    #[must_use]
    pub fn new(log: Range, ram: GuestRam, store: StoreService, observer: Arc<dyn PoisonObserver>) -> Self {
        let log = Range { len: log.len.min(MAX_RECORD_LEN as u64), ..log };
        ErrorStore {
            log,
            ram,
            observer,
            store,
            operation: None,
            offset: 0,
            record_id: 0,
            next: 0,
            running: None,
            status: Status::Success,
        }
    }

    /// The value of the register at an offset, without an effect.
    fn register(&self, offset: u64) -> u64 {
        match offset {
            BUSY => self.running.is_some().into(),
            STATUS => self.status.code(),
            RECORD_ID => self.store.id_at(self.next).unwrap_or(NO_RECORD),
            COUNT => self.store.count() as u64,
            LOG_ADDRESS => self.log.start,
            LOG_LEN => self.log.len,
            LOG_ATTRIBUTES => ATTRIBUTE_SLOW,
            TIMINGS => TIMINGS_VALUE,
            _ => 0,
        }
    }

    /// Goes on to the next record: after the last one there is none, and then the first one again.
    fn advance(&mut self) {
        self.next = if self.next < self.store.count() { self.next + 1 } else { 0 };
    }

    fn execute(&mut self) {
        if self.running.is_some() {
            return;
        }
        let job = match self.operation {
            None => Err(Status::Failed),
            Some(Operation::Write) => self.record().map(|(record_id, record)| Job::Write(record_id, record)),
            Some(Operation::DummyWrite) => self.record().and(Err(Status::Success)),
            Some(Operation::Read) => self.record_to_read().map(Job::Read),
            Some(Operation::Clear) => Ok(Job::Clear(self.record_id)),
        };
        match job.map(|job| self.store.submit(job)) {
            Ok(Some(pending)) => {
                self.running = Some(Running { pending, since: Instant::now(), offset: self.offset });
            }
            // The file has not responded since an earlier boot.
            Ok(None) => self.status = Status::Failed,
            Err(status) => self.status = status,
        }
    }

    /// Takes the outcome of an operation that has ended.
    fn poll(&mut self) {
        let Some(running) = &self.running else { return };
        match take_outcome(&running.pending) {
            Some((status, record)) => {
                let at = running.offset;
                self.running = None;
                self.status = if record.is_empty() { status } else { self.put(at, &record) };
            }
            None if running.since.elapsed() > TIMEOUT => {
                tracing::warn!(
                    "the store for error records does not respond: the guest's operation has failed"
                );
                self.running = None;
                self.status = Status::Failed;
            }
            None => {}
        }
    }

    /// The first record has the identifiers that none has.
    fn record_to_read(&self) -> Result<u64, Status> {
        match self.record_id {
            0 | NO_RECORD => self.store.id_at(0).ok_or(Status::StoreEmpty),
            record_id => Ok(record_id),
        }
    }

    /// The record in guest memory, and its identifier.
    fn record(&self) -> Result<(u64, Vec<u8>), Status> {
        let mut header = [0; HEADER_LEN];
        self.load(self.offset, &mut header)?;
        let len = record_len(&header).ok_or(Status::Failed)?;
        let mut record = vec![0; len];
        self.load(self.offset, &mut record)?;
        // Another vCPU may have changed it meanwhile.
        let record_id = record_id(&record).filter(|_| record_len(&record) == Some(len));
        Ok((record_id.ok_or(Status::Failed)?, record))
    }

    /// GPA of `len` bytes at an offset of the range. `None` if they are not within it.
    fn within(&self, offset: u64, len: usize) -> Option<u64> {
        (offset <= self.log.len && len as u64 <= self.log.len - offset).then(|| self.log.start + offset)
    }

    fn load(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Status> {
        let gpa = self.within(offset, bytes.len()).ok_or(Status::Failed)?;
        self.ram.read(gpa, bytes).map_err(|error| self.inaccessible(&error))
    }

    fn put(&self, offset: u64, record: &[u8]) -> Status {
        let Some(gpa) = self.within(offset, record.len()) else { return Status::Failed };
        match self.ram.write(gpa, record) {
            Ok(()) => Status::Success,
            Err(error) => self.inaccessible(&error),
        }
    }

    fn inaccessible(&self, error: &AccessError) -> Status {
        if let AccessError::Poisoned(page) = error {
            self.observer.touched(page.gpa, page.log2_len);
        }
        tracing::warn!(%error, "the error log address range cannot be accessed");
        Status::Failed
    }
}

/// Bytes of a CPER record's header.
const HEADER_LEN: usize = 128;

/// The length of a record, from its header. `None` if it is none, or is longer than any.
fn record_len(record: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(*record.get(20..)?.first_chunk()?) as usize;
    (record.starts_with(b"CPER") && (HEADER_LEN..=MAX_RECORD_LEN).contains(&len)).then_some(len)
}

/// The identifier of a record. `None` if it has none of its own.
fn record_id(record: &[u8]) -> Option<u64> {
    let id = u64::from_le_bytes(*record.get(96..)?.first_chunk()?);
    (id != 0 && id != NO_RECORD).then_some(id)
}

impl MutDeviceMmio for ErrorStore {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let is_whole = data.len() == 8 && offset.is_multiple_of(8);
        if is_whole && offset == BUSY {
            self.poll();
        }
        for (at, byte) in (offset..).zip(data.iter_mut()) {
            *byte = self.register(at & !7).to_le_bytes()[(at & 7) as usize];
        }
        if is_whole && offset == RECORD_ID {
            self.advance();
        }
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let Ok(value) = data.try_into().map(u64::from_le_bytes) else { return };
        match offset {
            OPERATION => self.operation = Operation::of(value),
            END => self.operation = None,
            OFFSET => self.offset = value,
            EXECUTE => self.execute(),
            RECORD_ID => self.record_id = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
