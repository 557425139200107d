//! Where the pages of guest memory come from.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

/// Where the pages of guest memory come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Private anonymous memory, in pages of the host's base size.
    Anonymous,
    /// A memfd, mapped shared, so that another process can map the same pages.
    Memfd,
    /// A memfd of huge pages from the host's hugetlb pool.
    Hugetlbfs {
        /// Bytes of a page. The host must have a pool of this size (2 MiB and 1 GiB on most hosts).
        page_size: u64,
    },
}

/// Why guest memory could not be allocated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// A region is empty, or its start or length is not a multiple of the backing's page size.
    #[error(
        "guest memory at {gpa:#x}: address and length ({len} bytes) must be non-zero multiples of {page_size}-byte pages"
    )]
    Unaligned {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        len: u64,
        /// Bytes of a page.
        page_size: u64,
    },
    /// The host has no hugetlb pool of that page size.
    #[error(
        "/sys/kernel/mm/hugepages: no hugetlb pool of {} KiB pages; this host has: {}",
        page_size >> 10, if pools.is_empty() { "none".to_owned() } else { pools.join(", ") }
    )]
    NoPool {
        /// Bytes of a page.
        page_size: u64,
        /// The pools that the host has, for example `2048 KiB`.
        pools: Vec<String>,
    },
    /// The hugetlb pool has fewer free pages than the guest needs.
    #[error(
        "hugetlb pool of {} KiB pages: the guest needs {needed} pages, {free} are free; \
         write {needed} or more to /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
        page_size >> 10, page_size >> 10
    )]
    ShortPool {
        /// Bytes of a page.
        page_size: u64,
        /// Pages needed for the whole guest.
        needed: u64,
        /// Pages that are free and not reserved.
        free: u64,
    },
    /// A system call that provides the memory of a region failed.
    #[error("{call} ({len} bytes of guest memory at {gpa:#x}): {source}")]
    Map {
        /// The system call, for example `mmap(2)`.
        call: &'static str,
        /// First GPA of the region.
        gpa: u64,
        /// Bytes of the region.
        len: u64,
        /// Its error.
        source: io::Error,
    },
    /// This process has too many regions of guest memory for the table that the SIGBUS handler reads.
    #[error("this process has more than {max} regions of guest memory")]
    TooManyRegions {
        /// The size of the table.
        max: usize,
    },
    /// The regions overlap, or are not in ascending order.
    #[error("the regions of guest memory overlap or are not in ascending order")]
    Layout,
}

impl Backing {
    /// Bytes of a page of this backing.
    #[must_use]
    pub fn page_size(self) -> u64 {
        match self {
            Backing::Anonymous | Backing::Memfd => rustix::param::page_size() as u64,
            Backing::Hugetlbfs { page_size } => page_size,
        }
    }

    /// Maps the region of `len` bytes, a multiple of the page size, at `gpa`: from `kept`, a file and an offset in it, or from memory of its
    /// own. `progress` gets the number of bytes that are allocated.
    pub(crate) fn map(
        self,
        gpa: u64,
        len: u64,
        kept: Option<(&File, u64)>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<MmapRegion, AllocateError> {
        let failed =
            |call: &'static str| move |source: io::Error| AllocateError::Map { call, gpa, len, source };
        let size = usize::try_from(len).map_err(|_| failed("mmap(2)")(io::ErrorKind::OutOfMemory.into()))?;
        let offset = kept.map_or(0, |(_, offset)| offset);
        let memfd = |flags: MemfdFlags| {
            if let Some((file, _)) = kept {
                return file.try_clone().map_err(failed("dup(2)"));
            }
            let file = memfd_create("guest-memory", flags | MemfdFlags::CLOEXEC);
            let file = File::from(file.map_err(|error| failed("memfd_create(2)")(error.into()))?);
            ftruncate(&file, len).map_err(|error| failed("ftruncate(2)")(error.into()))?;
            Ok(file)
        };
        let file = match self {
            Backing::Anonymous => {
                return MmapRegion::new(size).map_err(|error| failed("mmap(2)")(into_io(error)));
            }
            Backing::Memfd => memfd(MemfdFlags::empty())?,
            Backing::Hugetlbfs { page_size } => {
                let file = memfd(MemfdFlags::HUGETLB | huge_flag(page_size))?;
                // Now: a reservation alone does not account for a cgroup's limit.
                preallocate(&file, offset..offset + len, page_size.max(PREALLOCATED), progress)
                    .map_err(|error| failed("fallocate(2)")(error.into()))?;
                file
            }
        };
        MmapRegionBuilder::new(size)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::new(file, offset))
            .with_hugetlbfs(matches!(self, Backing::Hugetlbfs { .. }))
            .build()
            .map_err(|error| failed("mmap(2)")(into_io(error)))
    }

    /// Checks that the hugetlb pool, if this backing uses one, has `len` free bytes, before anything is allocated.
    pub(crate) fn check_pool(self, len: u64) -> Result<(), AllocateError> {
        let Backing::Hugetlbfs { page_size } = self else { return Ok(()) };
        let pool = format!("{HUGEPAGES}/hugepages-{}kB", page_size >> 10);
        let read = |name: &str| -> Option<u64> {
            std::fs::read_to_string(format!("{pool}/{name}")).ok()?.trim().parse().ok()
        };
        let (Some(free), Some(reserved)) = (read("free_hugepages"), read("resv_hugepages")) else {
            return Err(AllocateError::NoPool { page_size, pools: pools() });
        };
        // Pages that the kernel may add on demand count as free.
        let surplus = read("nr_overcommit_hugepages")
            .unwrap_or(0)
            .saturating_sub(read("surplus_hugepages").unwrap_or(0));
        let free = free.saturating_sub(reserved).saturating_add(surplus);
        let needed = len / page_size;
        if free < needed {
            return Err(AllocateError::ShortPool { page_size, needed, free });
        }
        Ok(())
    }
}

/// Bytes that are allocated at once: some hundredths of a second for the kernel to zero.
const PREALLOCATED: u64 = 256 << 20;

/// Allocates these bytes of a file, `step` bytes at a time.
fn preallocate(
    file: &File,
    bytes: Range<u64>,
    step: u64,
    progress: &mut dyn FnMut(u64),
) -> rustix::io::Result<()> {
    let mut next = bytes.start;
    while next < bytes.end {
        let len = step.min(bytes.end - next);
        fallocate(file, FallocateFlags::empty(), next, len)?;
        next += len;
        progress(next - bytes.start);
    }
    Ok(())
}

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// A page size as memfd_create(2) encodes it: its base-two logarithm, from bit 26 (MFD_HUGE_SHIFT).
fn huge_flag(page_size: u64) -> MemfdFlags {
    MemfdFlags::from_bits_retain(page_size.trailing_zeros() << 26)
}

fn pools() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(HUGEPAGES) else { return Vec::new() };
    let mut sizes: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(|size| format!("{size} KiB")).collect()
}

fn into_io(error: vm_memory::mmap::MmapRegionError) -> io::Error {
    match error {
        vm_memory::mmap::MmapRegionError::Mmap(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_allocated_step_by_step() {
        let file = File::from(memfd_create("preallocated", MemfdFlags::CLOEXEC).unwrap());
        let mut steps = Vec::new();
        preallocate(&file, 0..10 << 20, 4 << 20, &mut |allocated| steps.push(allocated >> 20)).unwrap();
        assert_eq!(steps, [4, 8, 10]);
        // In blocks of 512 bytes.
        assert_eq!(file.metadata().unwrap().blocks(), (10 << 20) / 512);
    }
}
