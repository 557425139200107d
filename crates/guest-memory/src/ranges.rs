//! Which host virtual addresses are guest memory, in a table that the SIGBUS handler can read without a lock.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use crate::backing::AllocateError;

/// A region of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First HVA.
    pub(crate) hva: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// First GPA.
    pub(crate) gpa: u64,
    /// Base-two logarithm of the bytes of a page of the backing.
    pub(crate) log2_page: u8,
}

/// Regions that the table can hold. A machine has three at most; a process may have several machines, as tests do.
const MAX_RANGES: usize = 512;

static TABLE: [Entry; MAX_RANGES] = [const { Entry::free() }; MAX_RANGES];

/// Serialises writers of the table. Readers do not take it.
static WRITERS: Mutex<()> = Mutex::new(());

/// An entry of the table, a sequence lock: its version is odd while it changes, and a reader uses what it read only if the version
/// was even and the same before and after.
struct Entry {
    version: AtomicU64,
    hva: AtomicU64,
    len: AtomicU64,
    gpa: AtomicU64,
    log2_page: AtomicU64,
}

impl Entry {
    const fn free() -> Self {
        Entry {
            version: AtomicU64::new(0),
            hva: AtomicU64::new(0),
            len: AtomicU64::new(0),
            gpa: AtomicU64::new(0),
            log2_page: AtomicU64::new(0),
        }
    }

    /// `None` if the entry is free, or is being changed: then it is not the region of an address in use.
    fn get(&self) -> Option<Range> {
        let before = self.version.load(Ordering::Acquire);
        let range = Range {
            hva: self.hva.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            gpa: self.gpa.load(Ordering::Relaxed),
            log2_page: self.log2_page.load(Ordering::Relaxed) as u8,
        };
        fence(Ordering::Acquire);
        let is_stable = before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before;
        (is_stable && range.len > 0).then_some(range)
    }

    /// The caller holds [`WRITERS`].
    fn set(&self, range: Range) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.hva.store(range.hva, Ordering::Relaxed);
        self.len.store(range.len, Ordering::Relaxed);
        self.gpa.store(range.gpa, Ordering::Relaxed);
        self.log2_page.store(range.log2_page.into(), Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }
}

/// The GPA of an HVA, of any guest in this process. Async-signal-safe.
pub(crate) fn guest_address(hva: u64) -> Option<u64> {
    all()
        .find(|range| hva >= range.hva && hva - range.hva < range.len)
        .map(|range| range.gpa + (hva - range.hva))
}

/// The regions that are in the table now. Async-signal-safe.
pub(crate) fn all() -> impl Iterator<Item = Range> {
    TABLE.iter().filter_map(Entry::get)
}

/// Keeps regions in the table until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    entries: Vec<(usize, Range)>,
    /// Called with HVA and bytes of each region that is no longer in the table.
    removed: fn(u64, u64),
}

impl Registration {
    /// Adds regions to the table. `removed` is called with HVA and bytes of each when it is removed.
    ///
    /// # Errors
    /// Returns [`AllocateError::TooManyRegions`] if the table is full.
    pub(crate) fn new(
        ranges: impl Iterator<Item = Range>,
        removed: fn(u64, u64),
    ) -> Result<Self, AllocateError> {
        // On an error it is dropped after the lock, which its drop takes.
        let mut taken = Registration { entries: Vec::new(), removed };
        let writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        for range in ranges {
            let free = TABLE.iter().enumerate().find(|(_, entry)| entry.get().is_none());
            let Some((index, entry)) = free else {
                drop(writers);
                return Err(AllocateError::TooManyRegions { max: MAX_RANGES });
            };
            entry.set(range);
            taken.entries.push((index, range));
        }
        Ok(taken)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        for &(index, range) in &self.entries {
            if let Some(entry) = TABLE.get(index) {
                entry.set(Range { hva: 0, len: 0, gpa: 0, log2_page: 0 });
            }
            (self.removed)(range.hva, range.len);
        }
        drop(writers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_guest_memory_while_it_is_registered() {
        // No process has memory at this address.
        let hva = u64::MAX - 0xffff;
        let range = Range { hva, len: 0x2000, gpa: 0x8000_0000, log2_page: 12 };
        let registration = Registration::new([range].into_iter(), |_, _| ()).expect("a free entry");
        assert_eq!(guest_address(hva - 1), None);
        assert_eq!(guest_address(hva), Some(0x8000_0000));
        assert_eq!(guest_address(hva + 0x1fff), Some(0x8000_1fff));
        assert_eq!(guest_address(hva + 0x2000), None);
        drop(registration);
        assert_eq!(guest_address(hva), None);
    }
}
