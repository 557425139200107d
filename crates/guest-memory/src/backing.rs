//! Where the pages come from.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use vm_memory::FileOffset;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

/// Where a guest's pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous memory, in pages of the host's base size.
    Anonymous,
    /// A memfd, mapped shared: another process can map the same pages.
    Memfd,
    /// A memfd on the host's pool of huge pages.
    Hugetlbfs {
        /// Bytes of a page: a size that the host has a pool for (2 MiB and 1 GiB on most).
        page_size: u64,
    },
}

/// Why memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// A run of GPA does not fit the host's address space or the backing's page size.
    #[error("{len} bytes at {gpa:#x} cannot be backed by pages of {page_size} bytes")]
    Unaligned {
        /// First GPA.
        gpa: u64,
        /// Bytes.
        len: u64,
        /// Bytes of a page.
        page_size: u64,
    },
    /// The host has no pool of pages of that size.
    #[error(
        "this host has no pool of {} KiB pages; pools it has: {}",
        page_size >> 10, if pools.is_empty() { "none".to_owned() } else { pools.join(", ") }
    )]
    NoPool {
        /// Bytes of a page.
        page_size: u64,
        /// The pools there are, as `2048 KiB`.
        pools: Vec<String>,
    },
    /// The pool has fewer pages than the guest needs.
    #[error(
        "the guest needs {needed} pages of {} KiB and the host's pool has {free} free; \
         write {needed} or more to /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
        page_size >> 10, page_size >> 10
    )]
    ShortPool {
        /// Bytes of a page.
        page_size: u64,
        /// Pages needed for the whole guest.
        needed: u64,
        /// Pages free and not reserved.
        free: u64,
    },
    /// The host has not that much memory, or does not promise it.
    #[error("{len} bytes of guest memory cannot be had: {source}")]
    Map {
        /// Bytes.
        len: u64,
        /// What the host said.
        source: io::Error,
    },
    /// There are too many guests in this process.
    #[error("the addresses of guest memory cannot be written down: {0}")]
    Register(io::Error),
    /// Runs of GPA overlap, or are not ascending.
    #[error("the runs of guest memory overlap or do not ascend")]
    Layout,
}

impl Backing {
    /// Bytes of the pages that the backing deals in.
    #[must_use]
    pub fn page_size(self) -> u64 {
        match self {
            Backing::Anonymous | Backing::Memfd => rustix::param::page_size() as u64,
            Backing::Hugetlbfs { page_size } => page_size,
        }
    }

    /// Maps `len` bytes, a multiple of the page size.
    pub(crate) fn map(self, len: u64) -> Result<MmapRegion, AllocateError> {
        let failed = |source: io::Error| AllocateError::Map { len, source };
        let size = usize::try_from(len).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let file = match self {
            Backing::Anonymous => return MmapRegion::new(size).map_err(|error| failed(into_io(error))),
            Backing::Memfd => memfd(len, MemfdFlags::empty()).map_err(failed)?,
            Backing::Hugetlbfs { page_size } => {
                let file = memfd(len, MemfdFlags::HUGETLB | huge_flag(page_size)).map_err(failed)?;
                // Takes the pages now: a reservation alone does not count a cgroup's limit.
                fallocate(&file, FallocateFlags::empty(), 0, len).map_err(|error| failed(error.into()))?;
                file
            }
        };
        MmapRegionBuilder::new(size)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::new(file, 0))
            .with_hugetlbfs(matches!(self, Backing::Hugetlbfs { .. }))
            .build()
            .map_err(|error| failed(into_io(error)))
    }

    /// Asks the host's pool, where the backing has one, for `len` bytes before anything is mapped.
    pub(crate) fn check_pool(self, len: u64) -> Result<(), AllocateError> {
        let Backing::Hugetlbfs { page_size } = self else { return Ok(()) };
        let pool = format!("{HUGEPAGES}/hugepages-{}kB", page_size >> 10);
        let read = |name: &str| -> Option<u64> {
            std::fs::read_to_string(format!("{pool}/{name}")).ok()?.trim().parse().ok()
        };
        let (Some(free), Some(reserved)) = (read("free_hugepages"), read("resv_hugepages")) else {
            return Err(AllocateError::NoPool { page_size, pools: pools() });
        };
        // Pages the kernel may add on demand count as free.
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

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

fn memfd(len: u64, flags: MemfdFlags) -> io::Result<File> {
    let file = File::from(memfd_create("ghest-memory", flags | MemfdFlags::CLOEXEC)?);
    ftruncate(&file, len)?;
    Ok(file)
}

/// The page size as memfd_create(2) takes it: its logarithm from bit 26 on.
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
