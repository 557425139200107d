//! A hostile guest of the store for error records: any registers, any memory, resets, and a file that fails or whose process ends.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::PoisonObserver;
use devices::error_serialization::{ErrorStore, LEN, MAX_RECORD_LEN, SLOTS, StoreService, open, registers};
use devices::slot_file::Medium;
use guest_memory::{Backing, GuestRam};
use platform::Range;
use vm_device::MutDeviceMmio;
use vm_device::bus::MmioAddress;

/// Bytes of guest memory, and the error log address range in it.
const MEMORY: u64 = 0x4_0000;
const LOG: Range = Range { start: 0x1_0000, len: 0x1_0000 };
/// Bytes of a store.
const FILE_LEN: usize = 0x1000 + SLOTS as usize * 0x1_0000;
/// The most steps of a program.
const MAX_STEPS: usize = 64;

/// A step of a guest, or of its host.
#[derive(Debug)]
enum Step {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    Read {
        offset: u64,
        len: usize,
    },
    /// Puts a record's header into the range.
    Record {
        at: u64,
        id: u64,
        len: u32,
    },
    /// Begins an operation, executes it, and reads its status.
    Operate {
        operation: u64,
        offset: u64,
        id: u64,
    },
    Reset,
    /// The machine starts again with the file as it is.
    Restart,
    /// So many bytes can still be written.
    Limit(Option<usize>),
}

impl Step {
    fn of(input: &mut Unstructured<'_>) -> Result<Self> {
        let offset = |input: &mut Unstructured<'_>| {
            Ok(if input.ratio(7, 8)? {
                8 * input.int_in_range(0..=12)?
            } else {
                input.int_in_range(0..=LEN - 9)?
            })
        };
        let place = |input: &mut Unstructured<'_>| {
            Ok(if input.ratio(7, 8)? { input.int_in_range(0..=0x200)? } else { input.arbitrary()? })
        };
        let id = |input: &mut Unstructured<'_>| {
            Ok(if input.ratio(7, 8)? { input.int_in_range(0..=40)? } else { input.arbitrary()? })
        };
        Ok(match input.int_in_range(0..=15)? {
            0 | 1 => {
                let (offset, len) =
                    (offset(input)?, if input.ratio(7, 8)? { 8 } else { input.int_in_range(0..=8)? });
                let value: u64 = place(input)?;
                Step::Write { offset, bytes: value.to_le_bytes()[..len].to_vec() }
            }
            2 | 3 => Step::Read {
                offset: offset(input)?,
                len: if input.ratio(3, 4)? { 8 } else { input.int_in_range(0..=8)? },
            },
            4..=7 => {
                let len = if input.ratio(7, 8)? {
                    input.int_in_range(128..=MAX_RECORD_LEN as u32)?
                } else {
                    input.arbitrary()?
                };
                Step::Record { at: place(input)? % LOG.len, id: id(input)?, len }
            }
            8..=12 => Step::Operate {
                operation: if input.ratio(7, 8)? { input.int_in_range(0..=2)? } else { input.arbitrary()? },
                offset: place(input)?,
                id: id(input)?,
            },
            13 => Step::Reset,
            14 => Step::Restart,
            _ => Step::Limit(Option::<u16>::arbitrary(input)?.map(usize::from)),
        })
    }
}

fn program(data: &[u8]) -> Vec<Step> {
    let mut input = Unstructured::new(data);
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < MAX_STEPS {
        // An error means that the input has ended.
        let Ok(step) = Step::of(&mut input) else { break };
        steps.push(step);
    }
    steps
}

/// The file: its bytes, and how many more can be written.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, Option<usize>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for Memory {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.lock().0.as_slice().read_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (file, left) = &mut *self.lock();
        let len = left.map_or(bytes.len(), |left| left.min(bytes.len()));
        *left = left.map(|left| left - len);
        let (start, end) = (offset as usize, offset as usize + len);
        assert!(end <= FILE_LEN, "a write outside the file");
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(&bytes[..len]);
        if len < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.lock().0.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Observer;

impl PoisonObserver for Observer {
    fn touched(&self, _: u64, _: u8) {}
}

struct Machine {
    file: Memory,
    ram: GuestRam,
    service: StoreService,
    device: ErrorStore,
}

impl Machine {
    fn new() -> Self {
        let file = Memory::default();
        let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Anonymous).expect("memory");
        let service = StoreService::immediate(open(file.clone()).expect("a store"));
        let device = ErrorStore::new(LOG, ram.clone(), service.clone(), Arc::new(Observer));
        Machine { file, ram, service, device }
    }

    fn reset(&mut self) {
        self.device = ErrorStore::new(LOG, self.ram.clone(), self.service.clone(), Arc::new(Observer));
    }

    fn write(&mut self, register: u64, value: u64) {
        self.device.mmio_write(MmioAddress(0), register, &value.to_le_bytes());
    }

    fn read(&mut self, register: u64) -> u64 {
        let mut data = [0; 8];
        self.device.mmio_read(MmioAddress(0), register, &mut data);
        u64::from_le_bytes(data)
    }

    fn operate(&mut self, operation: u64, offset: u64, id: u64) -> u64 {
        let at = registers(0);
        for (register, value) in
            [(at.operation, operation), (at.offset, offset), (at.record_id, id), (at.execute, 1)]
        {
            self.write(register, value);
        }
        assert_eq!(self.read(at.busy), 0, "busy without end");
        let status = self.read(at.status);
        assert!(status <= 5, "{status} is no command status");
        status
    }

    fn put_record(&self, at: u64, id: u64, len: u32) {
        let mut header = [0; 128];
        header[..4].copy_from_slice(b"CPER");
        header[20..24].copy_from_slice(&len.to_le_bytes());
        header[96..104].copy_from_slice(&id.to_le_bytes());
        let end = header.len().min((LOG.len - at) as usize);
        self.ram.write(LOG.start + at, &header[..end]).expect("memory");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { offset, bytes } => self.device.mmio_write(MmioAddress(0), offset, &bytes),
            Step::Read { offset, len } => self.device.mmio_read(MmioAddress(0), offset, &mut vec![0; len]),
            Step::Record { at, id, len } => self.put_record(at, id, len),
            Step::Operate { operation, offset, id } => drop(self.operate(operation, offset, id)),
            Step::Reset => self.reset(),
            Step::Restart => {
                self.file.lock().1 = None;
                self.service = StoreService::immediate(open(self.file.clone()).expect("a store"));
                self.reset();
            }
            Step::Limit(left) => self.file.lock().1 = left,
        }
    }
}

/// Runs a program. Whatever it was, memory outside the range is as it was, and a guest that follows the rules then stores and finds a record.
pub(crate) fn run(data: &[u8]) {
    let mut machine = Machine::new();
    program(data).into_iter().for_each(|step| machine.step(step));
    for (start, len) in [(0, LOG.start), (LOG.start + LOG.len, MEMORY - LOG.start - LOG.len)] {
        let mut outside = vec![0; len as usize];
        machine.ram.read(start, &mut outside).expect("memory");
        assert!(outside.iter().all(|byte| *byte == 0), "memory outside the range has changed");
    }
    machine.step(Step::Restart);
    let at = registers(0);
    let count = machine.read(at.count);
    assert!(count <= SLOTS, "{count} records");
    while machine.read(at.count) == SLOTS {
        let first = machine.read(at.record_id);
        assert_eq!(machine.operate(2, 0, first), 0, "a record that cannot be cleared");
    }
    const ID: u64 = 0x1234_5678_9abc;
    machine.put_record(0, ID, 200);
    assert_eq!(machine.operate(0, 0, 0), 0, "a record that cannot be written");
    machine.ram.write(LOG.start, &[0; 200]).expect("memory");
    assert_eq!(machine.operate(1, 0, ID), 0, "a record that cannot be read");
    let mut record = [0; 200];
    machine.ram.read(LOG.start, &mut record).expect("memory");
    assert_eq!((&record[..4], &record[96..104]), (&b"CPER"[..], &ID.to_le_bytes()[..]));
}

/// The steps.
pub(crate) fn show(data: &[u8]) -> String {
    program(data).iter().map(|step| format!("{step:x?}\n")).collect()
}
