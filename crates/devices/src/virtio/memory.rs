//! Guest memory as a device accesses it.

use std::io;
use std::sync::Arc;

use guest_memory::{AccessError, GuestRam};

use crate::poison_observer::{PoisonFlag, PoisonObserver};

/// Guest memory whose accesses survive a poisoned page and report it to the device's [`PoisonObserver`].
///
/// A device makes every access to rings, descriptors and buffers through this.
#[derive(Clone)]
pub struct DeviceMemory {
    ram: GuestRam,
    observer: Arc<dyn PoisonObserver>,
}

impl DeviceMemory {
    /// Accesses to `ram` that report poisoned pages to `observer`.
    #[must_use]
    pub fn new(ram: GuestRam, observer: Arc<dyn PoisonObserver>) -> Self {
        DeviceMemory { ram, observer }
    }

    /// The memory itself, for a back end in another process.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Copies from guest memory, not atomically.
    ///
    /// # Errors
    /// Returns an error at the first byte that cannot be read. The bytes before it are copied.
    pub fn read(&self, gpa: u64, to: &mut [u8]) -> Result<(), AccessError> {
        self.ram.read(gpa, to).map_err(|error| self.reported(error))
    }

    /// Copies to guest memory, not atomically.
    ///
    /// # Errors
    /// Returns an error at the first byte that cannot be written. The bytes before it are copied.
    pub fn write(&self, gpa: u64, from: &[u8]) -> Result<(), AccessError> {
        self.ram.write(gpa, from).map_err(|error| self.reported(error))
    }

    /// Loads a 16-bit little-endian value in one access, with acquire ordering.
    ///
    /// # Errors
    /// Returns an error if the GPA is not aligned or cannot be read.
    pub fn load_u16(&self, gpa: u64) -> Result<u16, AccessError> {
        self.ram.load_u16(gpa).map_err(|error| self.reported(error))
    }

    /// Stores a 16-bit little-endian value in one access, with release ordering.
    ///
    /// # Errors
    /// Returns an error if the GPA is not aligned or cannot be written.
    pub fn store_u16(&self, gpa: u64, value: u16) -> Result<(), AccessError> {
        self.ram.store_u16(gpa, value).map_err(|error| self.reported(error))
    }

    /// Reads one byte of every page of a range.
    ///
    /// # Errors
    /// Returns an error if part of the range is not memory, is poisoned or has no page of the host. A page may become
    /// poisoned at any time afterwards.
    pub fn probe(&self, gpa: u64, len: u64) -> Result<(), AccessError> {
        self.ram.probe(gpa, len).map_err(|error| self.reported(error))
    }

    /// Gives the whole pages among these bytes back to the host, poisoned or not: they are zero when they are accessed again
    /// ([`GuestRam::discard_pages`]). The observer is notified.
    ///
    /// # Errors
    /// Returns an error if part of the range is not memory, or the host does not take it.
    pub fn discard(&self, gpa: u64, len: u64) -> io::Result<()> {
        self.ram.discard_pages(gpa, len, |gpa, len| self.observer.discarded(gpa, len))
    }

    /// Whether guest memory has poisoned pages. `None` if the VMM does not say.
    #[must_use]
    pub fn poisoned(&self) -> Option<&PoisonFlag> {
        self.observer.poisoned()
    }

    fn reported(&self, error: AccessError) -> AccessError {
        if let AccessError::Poisoned(page) = &error {
            self.observer.touched(page.gpa, page.log2_len);
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use guest_memory::{Backing, PoisonedPage};

    use super::*;

    #[derive(Default)]
    struct Reported(Mutex<Vec<(u64, u8)>>);

    impl PoisonObserver for Reported {
        fn touched(&self, gpa: u64, log2_len: u8) {
            self.0.lock().expect("no panic").push((gpa, log2_len));
        }
    }

    #[test]
    fn poisoned_pages_are_reported_and_other_errors_are_not() {
        let reported = Arc::new(Reported::default());
        let ram = GuestRam::allocate(&[(0, 0x1_0000)], Backing::Anonymous).expect("memory");
        let memory = DeviceMemory::new(ram, reported.clone());
        for error in [
            AccessError::Host { gpa: 0x1000, code: 2 },
            AccessError::Poisoned(PoisonedPage { gpa: 0x2004, log2_len: 12 }),
        ] {
            assert_eq!(memory.reported(error), error);
        }
        let outside = memory.write(0x1_0000, &[0]);
        assert!(matches!(outside, Err(AccessError::NotMemory { .. })));
        assert_eq!(*reported.0.lock().expect("no panic"), [(0x2004, 12)]);
    }
}
