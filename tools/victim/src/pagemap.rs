//! Translates virtual addresses of a process to page frames, by the pagemap of Linux (root only).
//!
//! Source: Linux, Documentation/admin-guide/mm/pagemap.rst.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bit 63 of an entry: the page is in memory, and bits 0 to 54 are the frame number.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;
/// Bits of a frame's flags (KPF_BUDDY, KPF_ANON, KPF_THP, KPF_ZERO_PAGE, KPF_PGTABLE): free memory; anonymous memory; part of a
/// transparent huge page; the shared zero page; a page table.
const FREE: u64 = 1 << 10;
const ANONYMOUS: u64 = 1 << 12;
const TRANSPARENT_HUGE: u64 = 1 << 22;
const ZERO_PAGE: u64 = 1 << 24;
const PAGE_TABLE: u64 = 1 << 26;

/// The pagemap of a process.
#[derive(Debug)]
pub struct Pagemap {
    entries: File,
}

/// Use of a page frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Anonymous memory of a process.
    Anonymous,
    /// The shared zero page.
    Zeros,
    /// A file, a huge page of hugetlbfs, the kernel.
    Other,
}

/// Page size of this kernel in bytes.
#[must_use]
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

impl Pagemap {
    /// Opens the pagemap of a process: its PID, or `self`.
    ///
    /// # Errors
    /// Returns an error if there is no such process, or access is denied.
    pub fn of(process: &str) -> io::Result<Self> {
        Ok(Self { entries: File::open(format!("/proc/{process}/pagemap"))? })
    }

    /// The number of the frame that is mapped at a virtual address. `None` if nothing is mapped.
    ///
    /// # Errors
    /// Returns an error for an address outside of the address space, and without CAP_SYS_ADMIN: Linux then returns frame 0.
    pub fn frame(&self, address: u64) -> io::Result<Option<u64>> {
        let entry = read_word(&self.entries, address / page_size())?;
        match (entry & PRESENT != 0, entry & FRAME) {
            (false, _) => Ok(None),
            (true, 0) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "frame numbers need CAP_SYS_ADMIN"))
            }
            (true, frame) => Ok(Some(frame)),
        }
    }
}

/// The use of a frame.
///
/// # Errors
/// Returns an error for a frame that is not memory, and without CAP_SYS_ADMIN.
pub fn frame_use(frame: u64) -> io::Result<Use> {
    let flags = read_word(&File::open("/proc/kpageflags")?, frame)?;
    Ok(match flags {
        _ if flags & ZERO_PAGE != 0 => Use::Zeros,
        _ if flags & ANONYMOUS != 0 => Use::Anonymous,
        _ => Use::Other,
    })
}

/// Whether a frame is part of a transparent huge page.
///
/// # Errors
/// Returns an error for a frame that is not memory, and without CAP_SYS_ADMIN.
pub fn is_transparent_huge(frame: u64) -> io::Result<bool> {
    Ok(read_word(&File::open("/proc/kpageflags")?, frame)? & TRANSPARENT_HUGE != 0)
}

/// The frames of all page tables.
///
/// # Errors
/// Returns an error without CAP_SYS_ADMIN.
pub fn page_tables() -> io::Result<BTreeSet<u64>> {
    let flags = File::open("/proc/kpageflags")?;
    let mut chunk = vec![0; 64 << 10];
    let mut tables = BTreeSet::new();
    let mut first = 0;
    loop {
        let len = flags.read_at(&mut chunk, first * 8)?;
        if len == 0 {
            return Ok(tables);
        }
        for (word, frame) in chunk[..len].chunks_exact(8).zip(first..) {
            if u64::from_ne_bytes(word.try_into().unwrap_or_default()) & PAGE_TABLE != 0 {
                tables.insert(frame);
            }
        }
        first += len as u64 / 8;
    }
}

/// The frames in free blocks of `frames` frames, at multiples of their size.
///
/// # Errors
/// Returns an error without CAP_SYS_ADMIN.
pub fn free_blocks(frames: usize) -> io::Result<Vec<u64>> {
    let flags = File::open("/proc/kpageflags")?;
    let mut block = vec![0; frames * 8];
    let mut free = Vec::new();
    for first in (0..).step_by(frames) {
        let len = flags.read_at(&mut block, first * 8)?;
        let words = block.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        match len {
            0 => break,
            // The last may be shorter.
            _ if len == block.len() && words.clone().all(|flags| flags & FREE != 0) => {
                free.extend(first..first + frames as u64);
            }
            _ => {}
        }
    }
    Ok(free)
}

/// Parses a number: decimal, or hexadecimal with `0x`.
///
/// # Errors
/// Returns an error if the text is not a number.
pub fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("invalid number {text:?}: {error}"))
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
    fn an_unmapped_page_has_no_frame() {
        assert_eq!(Pagemap::of("self").unwrap().frame(0).unwrap(), None);
    }
}
