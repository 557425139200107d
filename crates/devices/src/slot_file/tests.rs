use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;

const LAYOUT: Layout = Layout {
    what: "test",
    magic: *b"a file for tests",
    slot_magic: *b"slottest",
    slots: 32,
    slot_len: 64 << 10,
};
const SLOTS: u64 = LAYOUT.slots as u64;
const SLOT_LEN: u64 = LAYOUT.slot_len as u64;
const FILE_LEN: u64 = LAYOUT.file_len();
const MAX_RECORD_LEN: usize = LAYOUT.max_record_len();

type Store<M> = SlotFile<M>;

/// A medium that ends with its process after so many bytes were written.
#[derive(Clone, Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    left: Option<usize>,
}

impl Memory {
    fn new(bytes: Vec<u8>) -> Self {
        Memory { bytes, left: None }
    }
}

impl Medium for Memory {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.bytes.as_slice().read_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let len = self.left.map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left = self.left.map(|left| left - len);
        let (start, end) = (offset as usize, offset as usize + len);
        assert!(end <= FILE_LEN as usize, "beyond the file");
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(&bytes[..len]);
        if len < bytes.len() { Err(io::Error::other("the process has ended")) } else { Ok(()) }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if self.left == Some(0) {
            return Err(io::Error::other("the process has ended"));
        }
        self.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open<M: Medium>(medium: M) -> Result<Store<M>, OpenError> {
    SlotFile::open(medium, LAYOUT)
}

type Records = BTreeMap<u64, Vec<u8>>;

fn contents<M: Medium>(store: &Store<M>) -> Records {
    let read = |id| (id, store.read(id).expect("a medium").expect("a record"));
    store.record_ids().map(read).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Clear(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let record = (any::<u8>(), 0..5000_usize).prop_map(|(byte, len)| vec![byte; len]);
    prop_oneof![
        3 => (1..6_u64, record).prop_map(|(id, record)| Change::Write(id, record)),
        1 => (1..6_u64).prop_map(Change::Clear),
    ]
}

/// Changes a store, and what it should have. Returns false if the medium has ended.
fn apply(store: &mut Store<Memory>, records: &mut Records, change: &Change) -> bool {
    match change {
        Change::Write(id, record) => {
            records.insert(*id, record.clone());
            store.write(*id, record).is_ok()
        }
        Change::Clear(id) => {
            let is_there = records.remove(id).is_some();
            match store.clear(*id) {
                Ok(cleared) => {
                    assert_eq!(cleared, is_there);
                    true
                }
                Err(_) => false,
            }
        }
    }
}

proptest! {
    /// kill -9 after any byte: what was complete is there, and of the change in progress all or nothing.
    #[test]
    fn a_process_that_ends_in_a_write_leaves_all_or_nothing(
        changes in prop::collection::vec(change(), 1..20),
        left in 0..60_000_usize,
        later in prop::collection::vec(change(), 0..4),
    ) {
        let medium = Memory { bytes: Vec::new(), left: Some(left) };
        let mut records = Records::new();
        let mut before = records.clone();
        let medium = match open(medium) {
            Ok(mut store) => {
                for change in &changes {
                    before = records.clone();
                    if !apply(&mut store, &mut records, change) {
                        break;
                    }
                    before = records.clone();
                }
                store.medium
            }
            // It has ended while it was made; what it wrote is of no use here.
            Err(_) => Memory::new(LAYOUT.header().as_bytes()[..left.min(32)].to_vec()),
        };
        let mut store = open(Memory::new(medium.bytes)).expect("a store");
        let found = contents(&store);
        prop_assert!(found == before || found == records, "{:?}, {:?} or {:?}", found.keys(), before.keys(), records.keys());
        // It goes on, and what has replaced something is not undone.
        let mut records = found;
        for change in &later {
            prop_assert!(apply(&mut store, &mut records, change));
        }
        prop_assert_eq!(&contents(&store), &records);
        prop_assert_eq!(&contents(&open(store.medium).expect("a store")), &records);
    }

    /// A record that is damaged is not there, and the others are.
    #[test]
    fn a_damaged_record_is_dropped(at in 0..2 * SLOT_LEN, bit in 0..8_u32) {
        let mut store = open(Memory::default()).expect("a store");
        for id in 1..3 {
            store.write(id, &vec![id as u8; MAX_RECORD_LEN]).expect("space");
        }
        let mut medium = store.medium;
        let slot = at / SLOT_LEN;
        medium.bytes[(BLOCK + at) as usize] ^= 1 << bit;
        let found: Vec<u64> = open(medium).expect("a store").record_ids().collect();
        // The rest of the block of a slot's header has no content.
        let is_content = at % SLOT_LEN < 32 || at % SLOT_LEN >= BLOCK;
        prop_assert_eq!(found.len(), if is_content { 1 } else { 2 });
        prop_assert!(found.contains(&(2 - slot)) || !is_content);
    }

    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), is_store in any::<bool>(), slot in 0..SLOTS) {
        let mut file = if is_store { LAYOUT.header().as_bytes().to_vec() } else { Vec::new() };
        if is_store {
            file.resize(LAYOUT.slot_offset(slot) as usize, 0);
            file.extend(LAYOUT.slot_magic);
        }
        file.extend(&bytes);
        let _ = records(&file, LAYOUT);
        if let Ok(mut store) = open(Memory::new(file)) {
            store.write(1, &bytes).expect("space");
            prop_assert_eq!(store.read(1).expect("a medium"), Some(bytes));
        }
    }
}

#[test]
fn records_survive_in_their_order() {
    let mut store = open(Memory::default()).expect("a store");
    for id in [7, 3, 9] {
        store.write(id, &[id as u8; 100]).expect("space");
    }
    store.write(3, b"newer").expect("space");
    assert!(store.clear(7).expect("a medium") && !store.clear(7).expect("a medium"));
    let store = open(store.medium).expect("a store");
    assert!(store.record_ids().eq([9, 3]));
    assert_eq!(store.read(3).expect("a medium").as_deref(), Some(&b"newer"[..]));
    assert_eq!(store.read(7).expect("a medium"), None);
    assert_eq!(records(&store.medium.bytes, LAYOUT), Some(vec![vec![9; 100], b"newer".to_vec()]));
    assert_eq!(records(b"something else", LAYOUT), None);
}

#[test]
fn a_store_is_bounded() {
    let mut store = open(Memory::default()).expect("a store");
    let longest = vec![1; MAX_RECORD_LEN];
    for id in 0..SLOTS {
        store.write(id, &longest).expect("space");
    }
    assert!(matches!(store.write(SLOTS, b"one more"), Err(WriteError::Full(_))));
    assert!(matches!(store.write(1, &vec![1; MAX_RECORD_LEN + 1]), Err(WriteError::TooLong { .. })));
    assert_eq!(store.medium.bytes.len() as u64, FILE_LEN);
    store.clear(5).expect("a medium");
    store.write(SLOTS, b"one more").expect("space");
}

#[test]
fn another_file_is_left_alone() {
    for bytes in [&b"data"[..], b"a file for tests\x02"] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), bytes).expect("a file");
        assert!(matches!(SlotFile::open_file(file.path(), LAYOUT), Err(OpenError::Other(_))));
        assert_eq!(fs::read(file.path()).expect("a file"), bytes);
    }
    assert!(matches!(SlotFile::open_file(Path::new("/dev/null"), LAYOUT), Err(OpenError::NotAFile)));
    assert!(matches!(
        SlotFile::open_file(Path::new("/missing/store"), LAYOUT),
        Err(OpenError::System { call: "open(2)", .. })
    ));
}

#[test]
fn a_store_is_of_one_machine() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let mut store = SlotFile::open_file(&path, LAYOUT).expect("a new store");
    assert!(matches!(SlotFile::open_file(&path, LAYOUT), Err(OpenError::InUse(_))));
    store.write(1, b"record").expect("space");
    drop(store);
    assert!(SlotFile::open_file(&path, LAYOUT).expect("the store").record_ids().eq([1]));
    assert_eq!(fs::metadata(&path).expect("a file").len(), FILE_LEN);
}
