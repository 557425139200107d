use std::io;
use std::sync::Mutex;

use guest_memory::Backing;
use proptest::prelude::*;

use super::*;
use crate::slot_file::Medium;

/// The error log address range, in memory of 1 MiB.
const LOG: Range = Range { start: 0x8_0000, len: 64 << 10 };

#[derive(Default)]
struct Observer(Mutex<Vec<u64>>);

impl PoisonObserver for Observer {
    fn touched(&self, gpa: u64, _: u8) {
        self.0.lock().expect("no panic").push(gpa);
    }
}

/// A medium that fails when it is to.
#[derive(Default)]
struct Memory(Vec<u8>, Arc<Mutex<Option<io::ErrorKind>>>);

impl Medium for Memory {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.as_slice().read_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(kind) = *self.1.lock().expect("no panic") {
            return Err(kind.into());
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn empty() -> (StoreService, Arc<Mutex<Option<io::ErrorKind>>>) {
    let fails = Arc::default();
    let medium = Memory(Vec::new(), Arc::clone(&fails));
    (StoreService::immediate(open(medium).expect("a store")), fails)
}

/// A guest that does what Linux's driver does.
struct Guest {
    device: ErrorStore,
    ram: GuestRam,
}

impl Guest {
    fn new(store: StoreService) -> Self {
        let ram = GuestRam::allocate(&[(0, 1 << 20)], Backing::Anonymous).expect("memory");
        Guest { device: ErrorStore::new(LOG, ram.clone(), store, Arc::new(Observer::default())), ram }
    }

    fn write_register(&mut self, register: u64, value: u64) {
        self.device.mmio_write(MmioAddress(0), register, &value.to_le_bytes());
    }

    fn read_register(&mut self, register: u64) -> u64 {
        let mut data = [0; 8];
        self.device.mmio_read(MmioAddress(0), register, &mut data);
        u64::from_le_bytes(data)
    }

    /// Begins an operation, executes it, and returns its status.
    fn operate(&mut self, operation: u64, offset: u64, record_id: u64) -> u64 {
        self.write_register(OPERATION, operation);
        self.write_register(OFFSET, offset);
        self.write_register(RECORD_ID, record_id);
        self.write_register(EXECUTE, 1);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.read_register(BUSY) != 0 {
            assert!(Instant::now() < deadline, "busy for a minute");
            std::thread::yield_now();
        }
        let status = self.read_register(STATUS);
        self.write_register(END, 1);
        status
    }

    fn save(&mut self, record: &[u8]) -> u64 {
        self.ram.write(LOG.start, record).expect("memory");
        self.operate(0, 0, 0)
    }

    fn read_back(&mut self, record_id: u64, len: usize) -> (u64, Vec<u8>) {
        self.ram.write(LOG.start, &vec![0xee; LOG.len as usize]).expect("memory");
        let status = self.operate(1, 0, record_id);
        let mut record = vec![0; len];
        self.ram.read(LOG.start, &mut record).expect("memory");
        (status, record)
    }

    /// The identifiers, until there is none.
    fn ids(&mut self) -> Vec<u64> {
        let next = std::iter::repeat_with(|| self.read_register(RECORD_ID));
        next.take_while(|id| *id != NO_RECORD).collect()
    }
}

fn record(id: u64, len: usize) -> Vec<u8> {
    let mut record = vec![id as u8; len];
    record[..4].copy_from_slice(b"CPER");
    record[20..24].copy_from_slice(&(len as u32).to_le_bytes());
    record[96..104].copy_from_slice(&id.to_le_bytes());
    record
}

#[test]
fn records_outlive_the_guest() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let thread = StoreThread::start(open_file(&path).expect("a store")).expect("a thread");
    let mut guest = Guest::new(thread.service().expect("a store"));
    assert_eq!((guest.ids(), guest.read_register(COUNT)), (vec![], 0));
    assert_eq!([guest.save(&record(7, 200)), guest.save(&record(8, MAX_RECORD_LEN))], [0, 0]);
    // The next boot. A device holds the store as long as its machine has it.
    drop(guest);
    let mut guest = Guest::new(thread.service().expect("a store"));
    assert_eq!((guest.ids(), guest.ids()), (vec![7, 8], vec![7, 8]));
    assert_eq!(guest.read_back(7, 200), (0, record(7, 200)));
    assert_eq!(guest.operate(2, 0, 7), 0);
    drop((guest, thread));
    // The next process.
    let thread = StoreThread::start(open_file(&path).expect("a store")).expect("a thread");
    let mut guest = Guest::new(thread.service().expect("a store"));
    assert_eq!((guest.ids(), guest.read_register(COUNT)), (vec![8], 1));
    // The first one has the identifiers of none.
    for id in [8, 0, NO_RECORD] {
        assert_eq!(guest.read_back(id, MAX_RECORD_LEN), (0, record(8, MAX_RECORD_LEN)));
    }
}

#[test]
fn what_cannot_be_done_has_its_status() {
    let (store, fails) = empty();
    let mut guest = Guest::new(store);
    // RECORD_STORE_EMPTY.
    assert_eq!([guest.operate(1, 0, 7), guest.operate(1, 0, 0), guest.operate(2, 0, 7)], [4, 4, 4]);
    assert_eq!(guest.save(&record(7, 200)), 0);
    // RECORD_NOT_FOUND.
    assert_eq!([guest.operate(1, 0, 8), guest.operate(2, 0, 8)], [5, 5]);
    // FAILED: no operation, no record, one that is too long, one without an identifier, and places outside the range.
    assert_eq!(guest.operate(3, 0, 7), 3);
    assert_eq!(guest.save(&[0; 200]), 3);
    let mut long = record(9, 200);
    long[20..24].copy_from_slice(&(MAX_RECORD_LEN as u32 + 1).to_le_bytes());
    assert_eq!(guest.save(&long), 3);
    assert_eq!([guest.save(&record(0, 200)), guest.save(&record(NO_RECORD, 200))], [3, 3]);
    guest.ram.write(LOG.start, &record(9, 200)).expect("memory");
    for offset in [MAX_RECORD_LEN as u64 - 100, MAX_RECORD_LEN as u64, u64::MAX, u64::MAX - 199] {
        assert_eq!(guest.operate(0, offset, 0), 3, "{offset:#x}");
        assert_eq!(guest.operate(1, offset, 7), 3, "{offset:#x}");
    }
    assert_eq!(guest.ids(), [7]);
    // NOT_ENOUGH_SPACE: of the host, of the store.
    for (kind, status) in [(io::ErrorKind::StorageFull, 1), (io::ErrorKind::Other, 3)] {
        *fails.lock().expect("no panic") = Some(kind);
        assert_eq!(guest.save(&record(9, 200)), status);
        assert_eq!(guest.operate(2, 0, 7), 3);
    }
    *fails.lock().expect("no panic") = None;
    assert!((8..7 + SLOTS).all(|id| guest.save(&record(id, 200)) == 0));
    assert_eq!(guest.save(&record(1000, 200)), 1);
    assert_eq!((guest.read_register(COUNT), guest.read_back(7, 200)), (SLOTS, (0, record(7, 200))));
}

#[test]
fn a_dummy_write_stores_nothing() {
    let mut guest = Guest::new(empty().0);
    guest.ram.write(LOG.start + 8, &record(7, 200)).expect("memory");
    assert_eq!((guest.operate(11, 8, 0), guest.operate(11, 0, 0)), (0, 3));
    assert!(guest.ids().is_empty());
}

/// The guest does not wait for a file that does not respond, and is not given what it no longer waits for.
#[test]
fn an_operation_that_does_not_end_is_abandoned() {
    let mut guest = Guest::new(StoreService::silent());
    guest.ram.write(LOG.start, &record(7, 200)).expect("memory");
    guest.write_register(OPERATION, 0);
    guest.write_register(EXECUTE, 1);
    guest.write_register(EXECUTE, 1);
    assert_eq!(guest.read_register(BUSY), 1);
    let running = guest.device.running.as_mut().expect("an operation");
    running.since = running.since.checked_sub(2 * TIMEOUT).expect("a machine that has been up for a while");
    assert_eq!((guest.read_register(BUSY), guest.read_register(STATUS)), (0, 3));
}

proptest! {
    /// Whatever is written: no panic, nothing outside the file and the range, and no register but those of its own has a value.
    #[test]
    fn a_hostile_guest_changes_nothing_else(
        accesses in prop::collection::vec(
            (prop_oneof![4 => (0..13_u64).prop_map(|it| 8 * it), 1 => 0..LEN], any::<bool>(),
             prop_oneof![2 => 0..12_u64, 1 => any::<u64>(), 1 => (0..=LOG.len).boxed()], prop_oneof![6 => Just(8_usize), 1 => 0..9_usize]),
            1..100,
        ),
        header in prop::collection::vec(any::<u8>(), 128),
        is_record in any::<bool>(),
    ) {
        let mut guest = Guest::new(empty().0);
        let outside = vec![0x77; LOG.start as usize];
        guest.ram.write(0, &outside).expect("memory");
        guest.ram.write(LOG.start, &if is_record { record(3, 300) } else { header }).expect("memory");
        for (offset, is_write, value, len) in accesses {
            let mut data = value.to_le_bytes()[..len].to_vec();
            if is_write {
                guest.device.mmio_write(MmioAddress(0), offset, &data);
            } else {
                guest.device.mmio_read(MmioAddress(0), offset, &mut data);
                prop_assert!(offset < TIMINGS + 8 || data.iter().all(|byte| *byte == 0));
            }
        }
        let mut after = vec![0; LOG.start as usize];
        guest.ram.read(0, &mut after).expect("memory");
        prop_assert!(after == outside);
        let mut behind = vec![0; 64 << 10];
        guest.ram.read(LOG.start + MAX_RECORD_LEN as u64, &mut behind).expect("memory");
        prop_assert!(behind.iter().all(|byte| *byte == 0));
        prop_assert!(guest.ids().len() as u64 <= SLOTS);
    }
}
