//! What is asked of the host for whole pages.

use std::io;

/// The host has lost the page (Linux, `include/uapi/asm-generic/errno.h`).
pub(crate) const EHWPOISON: i32 = 133;

/// What pages are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Reading,
    Writing,
}

/// Makes pages be there, by MADV_POPULATE_READ or MADV_POPULATE_WRITE (Linux 5.14).
///
/// # Errors
/// EHWPOISON where the host has lost one, EFAULT where it has none to put there, EINVAL where it does not know how.
pub(crate) fn populate(hva: u64, len: u64, what_for: For) -> io::Result<()> {
    let advice = match what_for {
        For::Reading => libc::MADV_POPULATE_READ,
        For::Writing => libc::MADV_POPULATE_WRITE,
    };
    advise(hva, len, advice)
}

/// Drops what is mapped, by MADV_DONTNEED. Private memory reads as zero afterwards.
///
/// # Errors
/// What the host says.
pub(crate) fn drop_mapped(hva: u64, len: u64) -> io::Result<()> {
    advise(hva, len, libc::MADV_DONTNEED)
}

/// Has the host lose pages, by MADV_HWPOISON.
///
/// # Errors
/// EINVAL where its kernel has no CONFIG_MEMORY_FAILURE, EPERM without CAP_SYS_ADMIN.
pub(crate) fn poison(hva: u64, len: u64) -> io::Result<()> {
    // A page that nobody has written to is one of the zeros that all processes share, which the kernel does not lose. Where it
    // cannot be had, as where it is lost already, what follows says so.
    let _ = populate(hva, len, For::Writing);
    advise(hva, len, libc::MADV_HWPOISON)
}

#[expect(unsafe_code, reason = "madvise(2) is called")]
fn advise(hva: u64, len: u64, advice: i32) -> io::Result<()> {
    loop {
        // SAFETY: callers name guest memory, which nobody here has references to; the kernel checks that it is mapped.
        if unsafe { libc::madvise(hva as *mut libc::c_void, len as usize, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
