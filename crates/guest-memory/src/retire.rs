//! Retiring pages of the host that are suspect, for example because of corrected errors: their contents move, and the guest runs on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use crate::backing::Backing;
use crate::pages::{self, EHWPOISON, HostRange};
use crate::ram::GuestRam;

/// Guest memory that was moved to another page of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetiredPage {
    /// First GPA.
    pub gpa: u64,
    /// Bytes: those of a page of the backing.
    pub len: u64,
    /// Physical address, on the host, of the page that is out of use. `None` if this process may not know it.
    pub host_address: Option<u64>,
}

/// Why a page could not be retired. Its contents are unchanged, and the guest has them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetireError {
    /// The guest has no memory at the address.
    #[error("GPA {gpa:#x} is not memory of this guest")]
    NotMemory {
        /// GPA.
        gpa: u64,
    },
    /// No guest memory is in that page of the host.
    #[error("no memory of this guest is at the host's physical address {host_address:#x}")]
    NotOfGuest {
        /// Physical address on the host.
        host_address: u64,
    },
    /// Physical addresses cannot be read.
    #[error(
        "/proc/self/pagemap: {source}; the host's physical addresses are visible with CAP_SYS_ADMIN: give the GPA instead"
    )]
    HiddenAddresses {
        /// The error, EPERM if the addresses are hidden.
        source: io::Error,
    },
    /// There is no page of the host to retire.
    #[error(
        "the host has no page for GPA {gpa:#x} in its memory: the guest has never used it, has given it back, or it is in the swap"
    )]
    Absent {
        /// First GPA of the page.
        gpa: u64,
    },
    /// The page is poisoned: its contents are lost, and cannot be moved.
    #[error("GPA {gpa:#x} is poisoned already: its page is out of use, and its contents cannot be moved")]
    Poisoned {
        /// First GPA of the page.
        gpa: u64,
    },
    /// The kernel refused.
    #[error("madvise(MADV_SOFT_OFFLINE) of GPA {gpa:#x} ({len} bytes): {source}{}", remedy(.source, *.len))]
    Refused {
        /// First GPA of the page.
        gpa: u64,
        /// Bytes of the page.
        len: u64,
        /// Its error.
        source: io::Error,
    },
    /// The kernel reported success, and the memory is in the same page of the host as before.
    #[error(
        "the host's kernel has not moved GPA {gpa:#x}: it is still at the host's physical address {host_address:#x}"
    )]
    NotMoved {
        /// First GPA of the page.
        gpa: u64,
        /// Physical address on the host.
        host_address: u64,
    },
}

/// What the errors of MADV_SOFT_OFFLINE mean (Linux, mm/madvise.c and mm/memory-failure.c), and what the user can do.
fn remedy(error: &io::Error, len: u64) -> String {
    let base_page = rustix::param::page_size() as u64;
    match error.raw_os_error() {
        Some(libc::EPERM) => "; it needs CAP_SYS_ADMIN: give it to this process, or write the page's physical address \
                              (from /proc/PID/pagemap) to /sys/devices/system/memory/soft_offline_page as root"
            .into(),
        Some(libc::EINVAL) => "; the host's kernel needs CONFIG_MEMORY_FAILURE".into(),
        Some(libc::EOPNOTSUPP) => "; it is disabled on this host: set vm.enable_soft_offline to 1".into(),
        Some(libc::EBUSY) => "; the kernel cannot move the page now: a device or the kernel holds a reference to it. Try again; a page \
                              that is pinned for long (io_uring, VFIO) cannot be moved"
            .into(),
        Some(libc::EIO) => "; the kernel does not move such a page: it is the shared page of zeros, because the guest has never written \
                            there, or one of the kernel's own"
            .into(),
        Some(libc::ENOMEM) if len > base_page => format!(
            "; a huge page moves to another one, and none is free: enlarge the pool (/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages)",
            len >> 10
        ),
        Some(libc::ENOMEM) => "; the host has no free page to move it to".into(),
        Some(libc::ENXIO) => "; the host has taken that memory offline".into(),
        _ => String::new(),
    }
}

impl GuestRam {
    /// Retires the page of the host, of the backing's size, that contains the byte at this GPA, by MADV_SOFT_OFFLINE: its contents
    /// move to another page, and the kernel does not use the old one again. The guest may run and access it: it waits for the kernel at
    /// most, which copies one page. A transparent huge page is split first. A page of hugetlbfs moves as a whole, to a
    /// free one of the pool, or else to free memory of the host in one piece.
    ///
    /// A page that is busy is tried again for a fifth of a second. Otherwise it takes milliseconds, or for a huge page of 1 GiB a good part of a second. The calling thread needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// Returns an error, with the remedy, if nothing was moved.
    pub fn retire(&self, gpa: u64) -> Result<RetiredPage, RetireError> {
        let len = self.backing().page_size();
        let gpa = gpa & !(len - 1);
        let range = self.host_range(gpa, len).ok_or(RetireError::NotMemory { gpa })?;
        let refused = |source: io::Error| match source.raw_os_error() {
            Some(EHWPOISON) => RetireError::Poisoned { gpa },
            _ => RetireError::Refused { gpa, len, source },
        };
        // Otherwise the kernel would allocate a page, and retire that.
        if !matches!(self.backing(), Backing::Hugetlbfs { .. }) && !is_in_memory(range).map_err(refused)? {
            return Err(RetireError::Absent { gpa });
        }
        match pages::populate_read(range.hva(), len) {
            // Before Linux 5.14: MADV_SOFT_OFFLINE itself returns EFAULT for a poisoned page.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            outcome => outcome.map_err(refused)?,
        }
        let before = host_address(range.hva());
        let is_there_still = || self::host_address(range.hva()) == before;
        soft_offline(range, is_there_still).map_err(refused)?;
        match before {
            Some(host_address) if is_there_still() => Err(RetireError::NotMoved { gpa, host_address }),
            host_address => Ok(RetiredPage { gpa, len, host_address }),
        }
    }

    /// The GPA of the byte at a physical address of the host. It reads the page table of all of guest memory: some hundredths of a second
    /// for each 10 GiB.
    ///
    /// # Errors
    /// Returns an error if no guest memory is there, or if this process may not read physical addresses (CAP_SYS_ADMIN).
    pub fn guest_address_of_host(&self, host_address: u64) -> Result<u64, RetireError> {
        let hidden = |source| RetireError::HiddenAddresses { source };
        let page = rustix::param::page_size() as u64;
        let pagemap = File::open(PAGEMAP).map_err(hidden)?;
        let mut entries = vec![0; CHUNK];
        for slot in self.slots() {
            for first in (0..slot.len).step_by(CHUNK / ENTRY * page as usize) {
                let pages = ((slot.len - first) / page).min((CHUNK / ENTRY) as u64) as usize;
                let Some(bytes) = entries.get_mut(..ENTRY * pages) else { continue };
                pagemap.read_exact_at(bytes, (slot.hva + first) / page * ENTRY as u64).map_err(hidden)?;
                for (entry, index) in bytes.as_chunks::<ENTRY>().0.iter().zip(0..) {
                    match frame(*entry) {
                        Some(0) => return Err(hidden(io::Error::from_raw_os_error(libc::EPERM))),
                        Some(frame) if frame == host_address / page => {
                            return Ok(slot.gpa + first + index * page + host_address % page);
                        }
                        _ => {}
                    }
                }
            }
        }
        Err(RetireError::NotOfGuest { host_address })
    }
}

/// How often the kernel is asked to move a page that is busy: a processor may be accessing it, or have it in a list of its own.
const MAX_ATTEMPTS: u32 = 20;
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Moves a page. While it is busy, tries again: if it has moved all the same, the kernel could not take the old one out of use, and the next
/// attempt would move it from the new one.
fn soft_offline(range: HostRange<'_>, is_there_still: impl Fn() -> bool) -> io::Result<()> {
    let mut outcome = pages::soft_offline(range);
    for _ in 1..MAX_ATTEMPTS {
        let is_busy = outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
        if !is_busy || !is_there_still() {
            break;
        }
        thread::sleep(RETRY_INTERVAL);
        outcome = pages::soft_offline(range);
    }
    outcome
}

/// Whether the host has a page in its memory for each page of the range.
fn is_in_memory(range: HostRange<'_>) -> io::Result<bool> {
    let mut pages = vec![0; range.len() as usize / rustix::param::page_size()];
    pages::in_memory(range.hva(), &mut pages)?;
    Ok(pages.iter().all(|page| page & 1 != 0))
}

/// An entry for each page of this process (Linux, `Documentation/admin-guide/mm/pagemap.rst`).
const PAGEMAP: &str = "/proc/self/pagemap";
/// Bytes of an entry.
const ENTRY: usize = 8;
/// Bytes that are read in one call.
const CHUNK: usize = 256 << 10;
/// The page is present.
const IS_PRESENT: u64 = 1 << 63;
/// The number of its frame. Zero without CAP_SYS_ADMIN.
const FRAME: u64 = (1 << 55) - 1;

/// The number of the frame of a page that is present.
fn frame(entry: [u8; ENTRY]) -> Option<u64> {
    let entry = u64::from_ne_bytes(entry);
    (entry & IS_PRESENT != 0).then_some(entry & FRAME)
}

/// The physical address of a page of this process. `None` if it is not present, or the address is hidden.
fn host_address(hva: u64) -> Option<u64> {
    let page = rustix::param::page_size() as u64;
    let mut entry = [0; ENTRY];
    File::open(PAGEMAP).ok()?.read_exact_at(&mut entry, hva / page * ENTRY as u64).ok()?;
    frame(entry).filter(|frame| *frame != 0).map(|frame| frame * page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0x1_0000;

    #[test]
    fn what_is_not_there_is_not_retired() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 4 * PAGE)], backing).expect("memory");
            ram.write(0, &[1]).expect("memory");
            assert!(matches!(ram.retire(4 * PAGE), Err(RetireError::NotMemory { gpa }) if gpa == 4 * PAGE));
            assert!(matches!(ram.retire(PAGE + 5), Err(RetireError::Absent { gpa: PAGE })), "{backing:?}");
        }
    }

    #[test]
    fn every_error_of_the_kernel_has_its_remedy() {
        let message = |errno, len| {
            let source = io::Error::from_raw_os_error(errno);
            RetireError::Refused { gpa: 0x20_0000, len, source }.to_string()
        };
        for (errno, len, said) in [
            (libc::EPERM, 4096, "CAP_SYS_ADMIN"),
            (libc::EPERM, 4096, "/sys/devices/system/memory/soft_offline_page"),
            (libc::EINVAL, 4096, "CONFIG_MEMORY_FAILURE"),
            (libc::EOPNOTSUPP, 4096, "vm.enable_soft_offline"),
            (libc::EBUSY, 4096, "Try again"),
            (libc::EIO, 4096, "page of zeros"),
            (libc::ENOMEM, 4096, "no free page to move it to"),
            (libc::ENOMEM, 2 << 20, "hugepages-2048kB"),
        ] {
            let message = message(errno, len);
            assert!(message.starts_with("madvise(MADV_SOFT_OFFLINE) of GPA 0x200000"), "{message}");
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn frames_are_read_from_present_entries_only() {
        let entry = |value: u64| frame(value.to_ne_bytes());
        // Soft-dirty and exclusively mapped; swapped.
        assert_eq!([1 << 63 | 3 << 55 | 0x1234, 1 << 62 | 0x1234].map(entry), [Some(0x1234), None]);
    }
}
