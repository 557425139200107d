//! From a process's virtual addresses to page frames, as Linux shows them to root.
//!
//! Source: Linux, Documentation/admin-guide/mm/pagemap.rst.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bit 63 of an entry: the page is in memory, and the frame number is what bits 0 to 54 say.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;
/// Bits of a frame's flags: it belongs to anonymous memory; it is the page of zeros that all processes share.
const ANONYMOUS: u64 = 1 << 12;
const ZERO_PAGE: u64 = 1 << 24;

/// The pages of one process.
#[derive(Debug)]
pub struct Pagemap {
    entries: File,
}

/// What a page frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Anonymous memory of a process.
    Anonymous,
    /// Zeros, for everybody who has only read so far.
    Zeros,
    /// A file, a huge page of hugetlbfs, the kernel.
    Other,
}

/// Bytes of a page, as this kernel has them.
#[must_use]
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

impl Pagemap {
    /// The pages of a process: its number, or `self`.
    ///
    /// # Errors
    /// Where there is no such process, or it is not for this user to look at.
    pub fn of(process: &str) -> io::Result<Self> {
        Ok(Self { entries: File::open(format!("/proc/{process}/pagemap"))? })
    }

    /// The number of the frame that is mapped at a virtual address; none where nothing is mapped.
    ///
    /// # Errors
    /// For an address that no process has, and without CAP_SYS_ADMIN, which Linux answers with frame 0.
    pub fn frame(&self, address: u64) -> io::Result<Option<u64>> {
        let entry = read_word(&self.entries, address / page_size())?;
        match (entry & PRESENT != 0, entry & FRAME) {
            (false, _) => Ok(None),
            (true, 0) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "frame numbers are for root only"))
            }
            (true, frame) => Ok(Some(frame)),
        }
    }
}

/// What a frame is used for.
///
/// # Errors
/// For a frame that is no memory, and without CAP_SYS_ADMIN.
pub fn frame_use(frame: u64) -> io::Result<Use> {
    let flags = read_word(&File::open("/proc/kpageflags")?, frame)?;
    Ok(match flags {
        _ if flags & ZERO_PAGE != 0 => Use::Zeros,
        _ if flags & ANONYMOUS != 0 => Use::Anonymous,
        _ => Use::Other,
    })
}

/// A number as people write it: decimal, or hexadecimal after `0x`.
///
/// # Errors
/// A text that is none.
pub fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{text:?} is no number: {error}"))
}

fn read_word(file: &File, index: u64) -> io::Result<u64> {
    let mut word = [0; 8];
    let offset = index.checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
    file.read_exact_at(&mut word, offset)?;
    Ok(u64::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_both_notations() {
        assert_eq!((number("0x1000"), number("4096")), (Ok(4096), Ok(4096)));
        assert!(number("1000h").unwrap_err().contains("1000h"));
    }

    #[test]
    fn a_page_that_is_not_there_has_no_frame() {
        assert_eq!(Pagemap::of("self").unwrap().frame(0).unwrap(), None);
    }
}
