//! A file of records in slots, each with a checksum: what was written to it survives the end of the process at any moment.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 32 | the file's header, the same in every file of a [layout](Layout) |
//! | 0x1000 + n * L | 32 | the header of slot n: zeroes if it is free. L is the length of a slot |
//! | 0x2000 + n * L | up to L - 0x1000 | its record |
//!
//! A record is written in two steps, into a free slot: first the record, then the slot's header, whose checksum covers both. Until the
//! header is complete the slot counts as free, so the end of the process, or of the host, at any moment leaves each record that was complete
//! before, and of the one that was being written all or nothing. A record that replaces another of its identifier goes to another slot too,
//! and the old one is freed when the new one is on stable storage; if that did not happen, the newer one counts.
//!
//! The file has its full size from the start, mostly as a hole: it never grows. It is written only within its slots.

mod medium;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use medium::Medium;

/// What distinguishes a kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What it is, for messages: "store for error records".
    pub what: &'static str,
    /// The file's first bytes.
    pub magic: [u8; 16],
    /// The first bytes of a slot's header.
    pub slot_magic: [u8; 8],
    /// The number of slots. One of them has to be free while a record is replaced.
    pub slots: u32,
    /// Bytes of a slot: a multiple of 4096, at least 8192.
    pub slot_len: u32,
}

/// Offset of the first slot's header, and of each record behind its slot's.
const BLOCK: u64 = 0x1000;

impl Layout {
    /// The most bytes of a record.
    #[must_use]
    pub const fn max_record_len(&self) -> usize {
        self.slot_len as usize - BLOCK as usize
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.slot_offset(self.slots as u64)
    }

    const fn slot_offset(&self, slot: u64) -> u64 {
        BLOCK + slot * self.slot_len as u64
    }

    const fn record_offset(&self, slot: u64) -> u64 {
        self.slot_offset(slot) + BLOCK
    }

    fn header(&self) -> FileHeader {
        FileHeader {
            magic: self.magic,
            version: U32::new(1),
            slots: U32::new(self.slots),
            slot_len: U32::new(self.slot_len),
            reserved: [0; 4],
        }
    }
}

/// The first bytes of a file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 16],
    version: U32,
    slots: U32,
    slot_len: U32,
    reserved: [u8; 4],
}

const _: () = assert!(size_of::<FileHeader>() == 32);

/// The header of a slot with a record.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SlotHeader {
    magic: [u8; 8],
    /// It increases from record to record.
    sequence: U64,
    record_id: U64,
    len: U32,
    /// CRC-32 (IEEE 802.3) of this header up to here, and of the record.
    checksum: U32,
}

const _: () = assert!(size_of::<SlotHeader>() == 32);

impl SlotHeader {
    fn new(layout: &Layout, sequence: u64, record_id: u64, record: &[u8]) -> Self {
        // The cast is lossless: a record is shorter than a slot.
        let len = U32::new(record.len() as u32);
        let mut header = SlotHeader {
            magic: layout.slot_magic,
            sequence: U64::new(sequence),
            record_id: U64::new(record_id),
            len,
            checksum: U32::ZERO,
        };
        header.checksum = U32::new(header.sum(record));
        header
    }

    fn sum(&self, record: &[u8]) -> u32 {
        let bytes = self.as_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..bytes.len() - size_of::<U32>()]);
        crc.update(record);
        crc.finalize()
    }
}

/// Why a file cannot be one of a layout.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Another machine has it.
    #[error("another machine has this {0} (flock(2))")]
    InUse(&'static str),
    /// It holds something else.
    #[error("it is not a {0}, or one of another version, and not empty")]
    Other(&'static str),
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It is longer than [`Layout::max_record_len`].
    #[error("a record of {len} bytes: the maximum is {max}")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// The maximum.
        max: usize,
    },
    /// All slots have records.
    #[error("there are {0} records, the maximum")]
    Full(u32),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A record in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    slot: u64,
    sequence: u64,
    record_id: u64,
}

/// A file of records.
#[derive(Debug)]
pub struct SlotFile<M> {
    medium: M,
    layout: Layout,
    /// In the order in which they were written.
    records: Vec<Stored>,
    /// Slots of records that newer ones have replaced, to be freed before anything else is changed.
    outdated: Vec<u64>,
    next_sequence: u64,
}

impl SlotFile<File> {
    /// Opens a file, or makes it, for this machine alone.
    ///
    /// # Errors
    /// Returns an error if the file is in use or something else, or a system call fails.
    pub fn open_file(path: &Path, layout: Layout) -> Result<Self, OpenError> {
        let failed = |call| move |source| OpenError::System { call, source };
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(path).map_err(failed("open(2)"))?;
        if !file.metadata().map_err(failed("fstat(2)"))?.is_file() {
            return Err(OpenError::NotAFile);
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse(layout.what)),
            Err(error) => {
                tracing::warn!(?path, %error, "the file system has no locks: nothing keeps two machines from using this {}", layout.what);
            }
        }
        SlotFile::open(file, layout)
    }
}

impl<M: Medium> SlotFile<M> {
    /// Opens what may be such a file, and makes an empty medium one. Records that are not complete do not count.
    ///
    /// # Errors
    /// Returns an error if it is something else, or a system call fails.
    pub fn open(mut medium: M, layout: Layout) -> Result<Self, OpenError> {
        let failed = |call| move |source| OpenError::System { call, source };
        let mut start = FileHeader::new_zeroed();
        let len = medium.read_at(start.as_mut_bytes(), 0).map_err(failed("pread(2)"))?;
        let header = layout.header();
        let (found, expected) = (&start.as_bytes()[..len], header.as_bytes());
        if found != expected {
            // It is new, or was being made when its process ended.
            if !expected.starts_with(found) {
                return Err(OpenError::Other(layout.what));
            }
            medium.write_at(expected, 0).map_err(failed("pwrite(2)"))?;
            medium.set_len(layout.file_len()).map_err(failed("ftruncate(2)"))?;
            medium.sync().map_err(failed("fdatasync(2)"))?;
        }
        let (records, outdated) = scan(&medium, &layout).map_err(failed("pread(2)"))?;
        let next_sequence = records.last().map_or(0, |last| last.sequence.saturating_add(1));
        Ok(SlotFile { medium, layout, records, outdated, next_sequence })
    }

    /// The identifiers of all records, in the order in which they were written.
    pub fn record_ids(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.records.iter().map(|stored| stored.record_id)
    }

    /// Writes a record. On return it survives the end of the process; for that of the host, see [`sync`](Self::sync).
    ///
    /// # Errors
    /// Returns an error if there is no space, or the file cannot be written. Then what the store had before is unchanged.
    pub fn write(&mut self, record_id: u64, record: &[u8]) -> Result<(), WriteError> {
        let (len, max) = (record.len(), self.layout.max_record_len());
        if len > max {
            return Err(WriteError::TooLong { len, max });
        }
        self.free_outdated()?;
        let is_free = |slot: &u64| self.records.iter().all(|stored| stored.slot != *slot);
        let slot = (0..self.layout.slots.into()).find(is_free).ok_or(WriteError::Full(self.layout.slots))?;
        let sequence = self.next_sequence;
        let header = SlotHeader::new(&self.layout, sequence, record_id, record);
        self.medium.write_at(record, self.layout.record_offset(slot))?;
        if let Err(error) = self.medium.write_at(header.as_bytes(), self.layout.slot_offset(slot)) {
            // It may be complete nevertheless. An error means that this cannot be changed.
            let _ = self.free(slot);
            return Err(error.into());
        }
        if let Some(index) = self.records.iter().position(|stored| stored.record_id == record_id) {
            self.outdated.push(self.records.remove(index).slot);
            // An error is one of the next write, which tries it again.
            let _ = self.medium.sync().and_then(|()| self.free_outdated());
        }
        self.records.push(Stored { slot, sequence, record_id });
        self.next_sequence = sequence.saturating_add(1);
        Ok(())
    }

    /// Reads a record. `None` if there is no such record, or the file no longer has what was written.
    ///
    /// # Errors
    /// Returns the error of pread(2).
    pub fn read(&self, record_id: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(stored) = self.records.iter().find(|stored| stored.record_id == record_id) else {
            return Ok(None);
        };
        Ok(read_slot(&self.medium, &self.layout, stored.slot)?.map(|(_, record)| record))
    }

    /// Removes a record. Returns false if there is no such record.
    ///
    /// # Errors
    /// Returns the error of pwrite(2). Then the record is still there.
    pub fn clear(&mut self, record_id: u64) -> io::Result<bool> {
        let Some(index) = self.records.iter().position(|stored| stored.record_id == record_id) else {
            return Ok(false);
        };
        // Otherwise an older one of that identifier would be there again.
        self.free_outdated()?;
        self.free(self.records[index].slot)?;
        self.records.remove(index);
        Ok(true)
    }

    /// Waits until everything is on stable storage.
    ///
    /// # Errors
    /// Returns the error of fdatasync(2).
    pub fn sync(&mut self) -> io::Result<()> {
        self.medium.sync()
    }

    fn free_outdated(&mut self) -> io::Result<()> {
        while let Some(slot) = self.outdated.last().copied() {
            self.free(slot)?;
            self.outdated.pop();
        }
        Ok(())
    }

    fn free(&mut self, slot: u64) -> io::Result<()> {
        self.medium.write_at(SlotHeader::new_zeroed().as_bytes(), self.layout.slot_offset(slot))
    }
}

/// The records in the bytes of a file, in the order in which they were written. `None` if it is of another layout.
#[must_use]
pub fn records(file: &[u8], layout: Layout) -> Option<Vec<Vec<u8>>> {
    if !file.starts_with(layout.header().as_bytes()) {
        return None;
    }
    let (records, _) = scan(&file, &layout).ok()?;
    let read = |stored: &Stored| Some(read_slot(&file, &layout, stored.slot).ok()??.1);
    Some(records.iter().filter_map(read).collect())
}

/// The newest record of each identifier, in the order in which they were written; and the slots of older ones.
fn scan(medium: &impl Medium, layout: &Layout) -> io::Result<(Vec<Stored>, Vec<u64>)> {
    let mut found = Vec::new();
    for slot in 0..layout.slots.into() {
        if let Some((header, _)) = read_slot(medium, layout, slot)? {
            let (sequence, record_id) = (header.sequence.get(), header.record_id.get());
            found.push(Stored { slot, sequence, record_id });
        }
    }
    found.sort_by_key(|stored| stored.sequence);
    let is_outdated = |index: usize, stored: &Stored| {
        found.iter().skip(index + 1).any(|newer| newer.record_id == stored.record_id)
    };
    let all = found.iter().enumerate();
    let (outdated, records): (Vec<_>, Vec<_>) = all.partition(|(index, stored)| is_outdated(*index, stored));
    let records = records.into_iter().map(|(_, stored)| *stored).collect();
    Ok((records, outdated.into_iter().map(|(_, stored)| stored.slot).collect()))
}

/// The complete record of a slot.
fn read_slot(medium: &impl Medium, layout: &Layout, slot: u64) -> io::Result<Option<(SlotHeader, Vec<u8>)>> {
    let mut header = SlotHeader::new_zeroed();
    medium.read_at(header.as_mut_bytes(), layout.slot_offset(slot))?;
    let len = header.len.get() as usize;
    if header.magic != layout.slot_magic || len > layout.max_record_len() {
        return Ok(None);
    }
    let mut record = vec![0; len];
    let read = medium.read_at(&mut record, layout.record_offset(slot))?;
    Ok((read == len && header.checksum.get() == header.sum(&record)).then_some((header, record)))
}

#[cfg(test)]
mod tests;
