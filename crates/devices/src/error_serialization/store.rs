//! The file of error records.

use std::fs::File;
use std::path::Path;

use crate::slot_file::{Layout, Medium, OpenError, SlotFile, records as records_of};

/// The most bytes of a record.
pub const MAX_RECORD_LEN: usize = LAYOUT.max_record_len();
/// The most records.
pub const SLOTS: u64 = LAYOUT.slots as u64;

/// A store never grows: 2 MiB.
const LAYOUT: Layout = Layout {
    what: "store for error records",
    magic: *b"ghest ERST store",
    slot_magic: *b"ERSTslot",
    slots: 32,
    slot_len: 64 << 10,
};

/// A store of records, in a file, or in tests in anything.
pub type Store<M> = SlotFile<M>;

/// Opens a file, or makes it, for this machine alone.
///
/// # Errors
/// Returns an error if the file is in use or something else, or a system call fails.
pub fn open_file(path: &Path) -> Result<Store<File>, OpenError> {
    SlotFile::open_file(path, LAYOUT)
}

/// Opens what may be a store, and makes an empty medium one.
///
/// # Errors
/// Returns an error if it is something else, or a system call fails.
pub fn open<M: Medium>(medium: M) -> Result<Store<M>, OpenError> {
    SlotFile::open(medium, LAYOUT)
}

/// The records in the bytes of a store, in the order in which they were written. `None` if they are no store.
#[must_use]
pub fn records(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    records_of(file, LAYOUT)
}
