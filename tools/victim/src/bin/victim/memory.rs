//! The pages: mapped, filled, locked.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Backing of the pages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    Anonymous,
    Shared,
    Huge,
    /// Transparent huge pages.
    TransparentHuge,
    File(PathBuf),
    /// The page cache of a disk, whose contents are overwritten.
    Disk(PathBuf),
}

/// Contiguous pages, mapped until the process ends.
pub(crate) struct Memory {
    start: *mut u8,
    page_len: usize,
    pages: usize,
}

/// Machine code that returns zero, at the start of each page.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 8] = [0x31, 0xc0, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc];
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 8] = [0x00, 0x00, 0x80, 0xd2, 0xc0, 0x03, 0x5f, 0xd6];

impl Memory {
    pub(crate) fn new(backing: &Backing, pages: usize) -> io::Result<Self> {
        let small = rustix::param::page_size();
        let is_huge = matches!(backing, Backing::Huge | Backing::TransparentHuge);
        let page_len = if is_huge { HUGE } else { small };
        let len = pages.checked_mul(page_len).ok_or(io::ErrorKind::OutOfMemory)?;
        let start = map(backing, len)?;
        let memory = Self { start, page_len, pages };
        for page in 0..pages {
            memory.fill(page);
        }
        memory.lock(len)?;
        Ok(memory)
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    pub(crate) fn page_len(&self) -> usize {
        self.page_len
    }

    /// A page's address.
    pub(crate) fn address(&self, page: usize) -> u64 {
        self.page(page) as u64
    }

    /// The start of a page, with its code.
    pub(crate) fn page(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        self.start.wrapping_add(page * self.page_len)
    }

    /// Where a word of a page is.
    pub(crate) fn word(&self, page: usize, word: usize) -> *mut u64 {
        assert!(word < self.page_len / size_of::<u64>(), "word {word} of a page");
        self.page(page).cast::<u64>().wrapping_add(word)
    }

    /// The word of a page that is read and written.
    pub(crate) fn probe(&self, page: usize) -> *mut u64 {
        self.page(page).wrapping_add(self.page_len / 2).cast()
    }

    /// Contents of a page's words.
    pub(crate) fn pattern(page: usize) -> u64 {
        0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(page as u64 + 1)
    }

    #[expect(unsafe_code, reason = "writes to memory that was mapped with mmap")]
    fn fill(&self, page: usize) {
        let words = self.page_len / size_of::<u64>();
        let start = self.page(page);
        // SAFETY: `map` made `pages` pages of `page_len` bytes, page-aligned, writable, and without references to them.
        unsafe {
            std::slice::from_raw_parts_mut(start.cast::<u64>(), words).fill(Self::pattern(page));
            ptr::copy_nonoverlapping(CODE.as_ptr(), start, CODE.len());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the range is within the page.
        unsafe {
            // Instruction fetches are not coherent with data writes.
            __clear_cache(start, start.wrapping_add(CODE.len()));
        }
    }

    #[expect(unsafe_code, reason = "a system call")]
    fn lock(&self, len: usize) -> io::Result<()> {
        // SAFETY: the range is this mapping; locking does not change its contents.
        check(unsafe { libc::mlock(self.start.cast(), len) })
    }
}

#[cfg(target_arch = "aarch64")]
#[expect(unsafe_code, reason = "a compiler builtin that Rust does not provide")]
unsafe extern "C" {
    fn __clear_cache(start: *mut u8, end: *mut u8);
}

#[expect(unsafe_code, reason = "a system call")]
fn map(backing: &Backing, len: usize) -> io::Result<*mut u8> {
    let (flags, file) = match backing {
        Backing::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None),
        Backing::Shared => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, None),
        Backing::Huge => {
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB, None)
        }
        // They begin at a multiple of their size.
        Backing::TransparentHuge => return map_transparent_huge(len),
        Backing::Disk(path) => {
            (libc::MAP_SHARED, Some(OpenOptions::new().read(true).write(true).open(path)?))
        }
        Backing::File(path) => {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            file.set_len(len as u64)?;
            (libc::MAP_SHARED, Some(file))
        }
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let descriptor = file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, descriptor, 0) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start.cast()) }
}

#[expect(unsafe_code, reason = "system calls")]
fn map_transparent_huge(len: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), len + HUGE, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = start.cast::<u8>();
    let start = start.wrapping_add(start.align_offset(HUGE));
    // SAFETY: the range is within the mapping.
    check(unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) })?;
    Ok(start)
}

/// A system call's return value.
pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_contiguous() {
        let memory = Memory::new(&Backing::Shared, 2).unwrap();
        assert_eq!(memory.address(1) - memory.address(0), memory.page_len() as u64);
        assert_ne!(Memory::pattern(0), Memory::pattern(1));
    }
}
