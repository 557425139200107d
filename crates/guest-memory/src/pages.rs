//! madvise(2) on whole pages.

use std::io;
use std::marker::PhantomData;

/// The page is poisoned (Linux, `include/uapi/asm-generic/errno.h`).
pub(crate) const EHWPOISON: i32 = 133;

/// Host virtual addresses of guest memory: mapped for `'r`, and nothing but guest memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostRange<'r> {
    hva: u64,
    len: u64,
    _mapping: PhantomData<&'r ()>,
}

impl HostRange<'_> {
    /// # Safety
    /// The range is mapped as long as this value exists, and contains nothing but guest memory.
    #[expect(unsafe_code, reason = "madvise(2) takes any address")]
    pub(crate) unsafe fn new(hva: u64, len: u64) -> Self {
        Self { hva, len, _mapping: PhantomData }
    }

    /// First HVA.
    pub(crate) fn hva(self) -> u64 {
        self.hva
    }

    /// Bytes.
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// Whether an HVA is in the range.
    pub(crate) fn contains(self, hva: u64) -> bool {
        hva >= self.hva && hva - self.hva < self.len
    }
}

/// Makes pages present and readable, by MADV_POPULATE_READ (Linux 5.14).
///
/// It takes any address: no byte of memory changes, and an address that is not mapped is an error.
///
/// # Errors
/// EHWPOISON if a page is poisoned, EFAULT if the host cannot provide one (a file that was truncated), ENOMEM if the range is not
/// mapped, EINVAL if the kernel does not know the advice.
#[expect(unsafe_code, reason = "madvise(2) is called")]
pub(crate) fn populate_read(hva: u64, len: u64) -> io::Result<()> {
    // SAFETY: MADV_POPULATE_READ faults pages in as a read would and changes no byte; the kernel checks that they are mapped.
    unsafe { advise(hva, len, libc::MADV_POPULATE_READ) }
}

/// Makes pages present and writable, by MADV_POPULATE_WRITE (Linux 5.14).
///
/// # Errors
/// As [`populate_read`].
#[expect(unsafe_code, reason = "madvise(2) is called")]
pub(crate) fn populate_write(range: HostRange<'_>) -> io::Result<()> {
    // SAFETY: the range is guest memory, and its contents do not change.
    unsafe { advise(range.hva(), range.len(), libc::MADV_POPULATE_WRITE) }
}

/// Unmaps pages, by MADV_DONTNEED. Private memory reads as zero afterwards, shared memory as its file.
///
/// # Errors
/// EINVAL for huge pages before Linux 5.18.
#[expect(unsafe_code, reason = "madvise(2) is called")]
pub(crate) fn unmap(range: HostRange<'_>) -> io::Result<()> {
    // SAFETY: the range is guest memory. Guests and devices change it at any time, so no code here holds a reference to it or
    // relies on its contents.
    unsafe { advise(range.hva(), range.len(), libc::MADV_DONTNEED) }
}

/// Which pages are in memory, by mincore(2): bit 0 of the byte of each page. Of a page that is not present, it is set if there is nothing
/// to read from the swap: the kernel sets it for the entry of a poisoned page.
///
/// # Errors
/// ENOMEM if the range is not mapped.
#[expect(unsafe_code, reason = "mincore(2) is called")]
pub(crate) fn in_memory(hva: u64, pages: &mut [u8]) -> io::Result<()> {
    let len = pages.len() * rustix::param::page_size();
    // SAFETY: the kernel writes one byte for each page, as many as `pages` has, and checks that the range is mapped.
    match unsafe { libc::mincore(hva as *mut libc::c_void, len, pages.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Zeroed pages that belong to this process alone, to be filled and moved into guest memory.
#[derive(Debug)]
pub(crate) struct FreshPages {
    start: *mut u8,
    len: usize,
}

#[expect(unsafe_code, reason = "memory is mapped and moved")]
impl FreshPages {
    /// Maps private anonymous memory, `len` bytes, as that of [`Backing::Anonymous`](crate::Backing::Anonymous).
    ///
    /// # Errors
    /// The error of mmap(2).
    pub(crate) fn map(len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(FreshPages { start: start.cast(), len })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping of `map`, initialised by the kernel, which nothing else knows the address of.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// Replaces a range by these pages, in one step.
    ///
    /// # Errors
    /// The error of mremap(2).
    pub(crate) fn move_to(mut self, range: HostRange<'_>) -> io::Result<()> {
        debug_assert_eq!(self.len as u64, range.len());
        let (flags, to) = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, range.hva() as *mut libc::c_void);
        // SAFETY: the range is guest memory, private and anonymous like these pages and as long, and stays mapped. Guests and devices
        // change it at any time, so no code here holds a reference to it or relies on its contents.
        let moved = unsafe { libc::mremap(self.start.cast(), self.len, self.len, flags, to) };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // The mapping is part of guest memory now.
        self.len = 0;
        Ok(())
    }
}

#[expect(unsafe_code, reason = "memory is unmapped")]
impl Drop for FreshPages {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping of `map`, to which no reference outlives `self`.
            unsafe { libc::munmap(self.start.cast(), self.len) };
        }
    }
}

/// Poisons pages, by MADV_HWPOISON.
///
/// # Errors
/// EINVAL if the kernel lacks CONFIG_MEMORY_FAILURE, EPERM without CAP_SYS_ADMIN.
#[expect(unsafe_code, reason = "madvise(2) is called")]
pub(crate) fn poison(range: HostRange<'_>) -> io::Result<()> {
    // A page that was never written is the shared zero page, which the kernel does not poison. If this fails, for example because
    // the page is poisoned already, the next call reports why.
    let _ = populate_write(range);
    // SAFETY: the range is guest memory, of which no code here holds a reference or relies on the contents; an access to a
    // poisoned page is a SIGBUS.
    unsafe { advise(range.hva(), range.len(), libc::MADV_HWPOISON) }
}

/// Moves the contents of pages elsewhere and takes the frames out of use, by MADV_SOFT_OFFLINE.
///
/// # Errors
/// See [`RetireError`](crate::RetireError).
#[expect(unsafe_code, reason = "madvise(2) is called")]
pub(crate) fn soft_offline(range: HostRange<'_>) -> io::Result<()> {
    // SAFETY: the range is guest memory, and its contents do not change.
    unsafe { advise(range.hva(), range.len(), libc::MADV_SOFT_OFFLINE) }
}

/// madvise(2), repeated while a signal interrupts it.
///
/// # Safety
/// What the advice does to the memory in the range must be allowed: nothing in this process may rely on contents that it drops.
#[expect(unsafe_code, reason = "madvise(2) is called")]
unsafe fn advise(hva: u64, len: u64, advice: i32) -> io::Result<()> {
    loop {
        // SAFETY: as the caller guarantees; the kernel checks that the range is mapped.
        if unsafe { libc::madvise(hva as *mut libc::c_void, len as usize, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
