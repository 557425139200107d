//! The places of an error: what the page is used for.

#![expect(unsafe_code, reason = "maps and accesses memory")]

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;

use pagemap::{Pagemap, page_size};

use crate::access::{self, Outcome};
use crate::frames;
use crate::memory::{Backing, Memory, check};
use crate::sigbus;

/// What the page is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    User,
    EarlyKill,
    FileClean,
    FileDirty,
    Hugetlb,
    TransparentHuge,
    Free,
    KernelText,
    PageTable,
    DeviceBuffer,
}

pub(super) const NAMES: [(&str, Place); 10] = [
    ("user", Place::User),
    ("early-kill", Place::EarlyKill),
    ("file-clean", Place::FileClean),
    ("file-dirty", Place::FileDirty),
    ("hugetlb", Place::Hugetlb),
    ("thp", Place::TransparentHuge),
    ("free", Place::Free),
    ("kernel-text", Place::KernelText),
    ("page-table", Place::PageTable),
    ("device-buffer", Place::DeviceBuffer),
];

/// A page that can be poisoned.
pub(super) struct Prepared {
    pub(super) gpa: u64,
    pub(super) access: Box<dyn Fn() -> Access>,
}

/// The outcome of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It was not made.
    None,
    Fine,
    /// A SIGBUS, whose handler has printed it.
    Abandoned,
    /// Other data than were there.
    Stale,
    /// A system call returned this error number.
    Failed(i32),
    /// The free page was not allocated any more.
    NotAllocated,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::None => f.write_str("none"),
            Access::Fine => f.write_str("fine"),
            Access::Abandoned => f.write_str("abandoned"),
            Access::Stale => f.write_str("stale"),
            Access::Failed(libc::EIO) => f.write_str("EIO"),
            Access::Failed(libc::EFAULT) => f.write_str("EFAULT"),
            Access::Failed(libc::EHWPOISON) => f.write_str("EHWPOISON"),
            Access::Failed(number) => write!(f, "errno {number}"),
            Access::NotAllocated => f.write_str("not-allocated"),
        }
    }
}

/// The serial of the disk that may be overwritten.
const DISK: &str = "ras-check";

impl Place {
    /// Whether an access has the kernel consume the error.
    pub(super) const fn is_of_kernel(self) -> bool {
        matches!(self, Place::KernelText | Place::PageTable)
    }

    /// Prepares the page. An error is the reason why this kernel has no such page.
    pub(super) fn prepare(self) -> Result<Prepared, String> {
        match self {
            Place::User | Place::EarlyKill => in_memory(&Backing::Anonymous),
            Place::FileClean => of_disk(false),
            Place::FileDirty => of_disk(true),
            Place::Hugetlb => {
                let reserved = fs::write("/proc/sys/vm/nr_hugepages", "2");
                reserved.map_err(|error| format!("/proc/sys/vm/nr_hugepages: {error}"))?;
                in_memory(&Backing::Huge)
            }
            Place::TransparentHuge => {
                // By default there are none on machines of less than 512 MiB. Without the file there are none at all.
                let _ = fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
                let page = in_memory(&Backing::TransparentHuge)?;
                let is_huge = pagemap::is_transparent_huge(page.gpa / page_size());
                match is_huge.map_err(|error| format!("/proc/kpageflags: {error}"))? {
                    true => Ok(page),
                    false => Err("the kernel gave no transparent huge page".into()),
                }
            }
            Place::Free => free(),
            Place::KernelText => kernel_text(),
            Place::PageTable => page_table(),
            Place::DeviceBuffer => device_buffer(),
        }
    }
}

/// Memory whose first page is watched, mapped until the process ends.
fn memory(backing: &Backing, pages: usize) -> Result<&'static Memory, String> {
    let memory =
        Memory::new(backing, pages).map_err(|error| format!("{backing:?}: mmap(2) or mlock(2): {error}"))?;
    let memory: &'static Memory = Box::leak(Box::new(memory));
    sigbus::watch("ras-check:", memory, Some(access::exit_address()))
        .map_err(|error| format!("sigaction(2), SIGBUS: {error}"))?;
    Ok(memory)
}

/// The physical address of what is mapped at an address.
fn physical(address: u64) -> Result<u64, String> {
    let frame = Pagemap::of("self").and_then(|pages| pages.frame(address));
    let frame = frame.map_err(|error| format!("/proc/self/pagemap: {error}"))?;
    let frame = frame.ok_or_else(|| format!("{address:#x} is not in memory"))?;
    Ok(frame * page_size())
}

/// The page of a word that is accessed: in a huge page, one in the middle.
fn in_memory(backing: &Backing) -> Result<Prepared, String> {
    let memory = memory(backing, 1)?;
    Ok(Prepared {
        gpa: physical(memory.probe(0) as u64)?,
        access: Box::new(|| match access::read(memory, 0) {
            Outcome::Fine => Access::Fine,
            Outcome::Abandoned => Access::Abandoned,
            Outcome::Wrong { .. } => Access::Stale,
        }),
    })
}

/// A page of a disk's page cache. A dirty one holds other data than the disk.
fn of_disk(is_dirty: bool) -> Result<Prepared, String> {
    let path = disk()?;
    let memory = memory(&Backing::Disk(path.clone()), 1)?;
    let synchronized = OpenOptions::new().write(true).open(&path).and_then(|disk| disk.sync_all());
    synchronized.map_err(|error| format!("{}: fsync(2): {error}", path.display()))?;
    let word = memory.probe(0);
    let value = if is_dirty { !Memory::pattern(0) } else { Memory::pattern(0) };
    if is_dirty {
        // SAFETY: the word is in the mapping, aligned, and there are no references to it.
        unsafe { word.write_volatile(value) };
    }
    Ok(Prepared {
        gpa: physical(word as u64)?,
        access: Box::new(move || {
            // SAFETY: the mapping stays, and the word is aligned.
            match unsafe { access::load_at(memory.probe(0)) } {
                None => Access::Abandoned,
                Some(read) if read == value => Access::Fine,
                Some(_) => Access::Stale,
            }
        }),
    })
}

/// The disk that may be overwritten.
fn disk() -> Result<PathBuf, String> {
    let disks = fs::read_dir("/sys/block").map_err(|error| format!("/sys/block: {error}"))?;
    let has_serial = |path: &Path| {
        fs::read_to_string(path.join("serial"))
            .is_ok_and(|serial| serial.trim_end_matches(['\0', '\n']) == DISK)
    };
    let found = disks.flatten().map(|entry| entry.path()).find(|path| has_serial(path));
    let name = found.as_deref().and_then(Path::file_name);
    let name = name.ok_or(format!(
        "no disk with the serial {DISK}: has the kernel a driver for virtio-mmio and virtio-blk?"
    ))?;
    Ok(Path::new("/dev").join(name))
}

/// A free page that had data before. Its allocation is an access by the kernel, which writes zeros.
fn free() -> Result<Prepared, String> {
    memory(&Backing::Anonymous, 1)?;
    let frames = frames::freed(1).map_err(|error| format!("/proc/kpageflags: {error}"))?;
    let frame = *frames.first().ok_or("no free page was found among those that were in use")?;
    Ok(Prepared { gpa: frame * page_size(), access: Box::new(move || allocate(frame)) })
}

/// Memory that stays free.
const RESERVE: u64 = 24 << 20;
/// Bytes that are allocated at most: several times those that were freed, which are the first that the kernel gives out again.
const MAX_ALLOCATED: usize = 160 << 20;
const CHUNK: usize = 2 << 20;

/// Allocates memory until it gets this frame.
fn allocate(frame: u64) -> Access {
    let Ok(pages) = Pagemap::of("self") else { return Access::None };
    let mut chunks = Vec::new();
    let mut access = Access::NotAllocated;
    while chunks.len() * CHUNK < MAX_ALLOCATED && free_memory() > RESERVE && access == Access::NotAllocated {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), CHUNK, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            break;
        }
        chunks.push(start);
        let mut addresses = (start as u64..start as u64 + CHUNK as u64).step_by(page_size() as usize);
        if addresses.any(|address| pages.frame(address).ok().flatten() == Some(frame)) {
            access = Access::Fine;
        }
    }
    for start in chunks {
        // SAFETY: the mapping is not used any more.
        unsafe { libc::munmap(start, CHUNK) };
    }
    access
}

/// Free memory in bytes.
fn free_memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.freeram.saturating_mul(system.mem_unit.into())
}

/// The page of the kernel's code for sethostname(2), which nothing else calls.
fn kernel_text() -> Result<Prepared, String> {
    memory(&Backing::Anonymous, 1)?;
    let function =
        if cfg!(target_arch = "aarch64") { "__arm64_sys_sethostname" } else { "__x64_sys_sethostname" };
    let symbols = fs::read_to_string("/proc/kallsyms").map_err(|error| format!("/proc/kallsyms: {error}"))?;
    let address = |name: &str| {
        let line = symbols.lines().find(|line| line.split_whitespace().nth(2) == Some(name))?;
        u64::from_str_radix(line.split_whitespace().next()?, 16).ok().filter(|address| *address != 0)
    };
    let addresses = address("_stext").zip(address(function));
    let (start, function) =
        addresses.ok_or(format!("/proc/kallsyms has no addresses of _stext and {function}"))?;
    let ranges = fs::read_to_string("/proc/iomem").map_err(|error| format!("/proc/iomem: {error}"))?;
    let range = ranges.lines().find_map(|line| line.trim().strip_suffix(" : Kernel code")?.split('-').next());
    let physical =
        range.and_then(|range| u64::from_str_radix(range, 16).ok()).filter(|address| *address != 0);
    let physical = physical.ok_or("/proc/iomem has no address of Kernel code")?;
    let gpa = function.checked_sub(start).and_then(|offset| physical.checked_add(offset));
    let gpa = gpa.ok_or(format!("{function:#x} is not in the kernel's code"))?;
    let name = rustix::system::uname().nodename().to_bytes().to_vec();
    Ok(Prepared {
        gpa: gpa & !(page_size() - 1),
        access: Box::new(move || {
            // SAFETY: the name has this length.
            match check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }) {
                Ok(()) => Access::Fine,
                Err(error) => failed(&error),
            }
        }),
    })
}

fn failed(error: &io::Error) -> Access {
    Access::Failed(error.raw_os_error().unwrap_or_default())
}

/// Pages in ranges of their own, each with a page table of its own.
const TABLES: usize = 64;

/// A page table of this process, of the last level: any of those that appear while it maps pages.
fn page_table() -> Result<Prepared, String> {
    memory(&Backing::Anonymous, 1)?;
    // A table has as many entries of 8 bytes as fit into a page.
    let covered = page_size() as usize * (page_size() as usize / 8);
    let len = (TABLES + 1) * covered;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(format!("mmap(2): {}", io::Error::last_os_error()));
    }
    // SAFETY: the mapping has this length. An error means that there are no transparent huge pages.
    let _ = unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) };
    let start = start.cast::<u8>();
    let start = start.wrapping_add(start.align_offset(covered)) as usize;
    let words = move || (0..TABLES).map(move |table| (start + table * covered) as *mut u64);
    let tables = || pagemap::page_tables().map_err(|error| format!("/proc/kpageflags: {error}"));
    let before = tables()?;
    for word in words() {
        // SAFETY: the word is in the mapping and aligned, and there are no references to it.
        unsafe { word.write_volatile(1) };
    }
    let own: Vec<u64> = tables()?.difference(&before).copied().collect();
    if own.len() < TABLES {
        return Err(format!("/proc/kpageflags shows {} new page tables of {TABLES}", own.len()));
    }
    let frame = own[own.len() / 2];
    Ok(Prepared {
        gpa: frame * page_size(),
        access: Box::new(move || {
            // SAFETY: as above.
            let is_read = |word: *mut u64| unsafe { access::load_at(word) }.is_some();
            if words().all(is_read) { Access::Fine } else { Access::Abandoned }
        }),
    })
}

/// A page that a disk writes to.
fn device_buffer() -> Result<Prepared, String> {
    let path = disk()?;
    let memory = memory(&Backing::Anonymous, 1)?;
    Ok(Prepared {
        gpa: physical(memory.probe(0) as u64)?,
        access: Box::new(move || match access::read_from(&path, memory, 0) {
            Ok(_) => Access::Fine,
            Err(error) => failed(&error),
        }),
    })
}
