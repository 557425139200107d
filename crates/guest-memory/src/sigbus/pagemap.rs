//! Scans for poisoned pages (Linux, `Documentation/admin-guide/mm/pagemap.rst`).
//!
//! A poisoned page leaves an entry in the process's page table that pagemap shows like that of a swapped page. Populating the page
//! distinguishes them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::pages::{self, EHWPOISON};
use crate::ranges::Range;

/// /proc/self/pagemap.
pub(super) struct Pagemap {
    file: File,
    entries: Vec<u8>,
}

/// Bytes that are read in one call: 8 for each page.
const CHUNK: usize = 256 << 10;

const IS_PRESENT: u64 = 1 << 63;
const IS_SWAPPED: u64 = 1 << 62;

impl Pagemap {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Pagemap { file: File::open("/proc/self/pagemap")?, entries: vec![0; CHUNK] })
    }

    /// Calls `report` with the HVA of each poisoned page of a region. Pages whose entry cannot be read are skipped.
    pub(super) fn poisoned_pages(&mut self, range: Range, mut report: impl FnMut(u64)) {
        let base_page = rustix::param::page_size() as u64;
        let page = 1_u64 << range.log2_page;
        // pagemap shows no entry for poisoned huge pages, so each huge page that is not present is tried.
        let is_huge = page > base_page;
        let mut at = range.hva;
        while at < range.hva + range.len {
            let pages = ((range.hva + range.len - at) / base_page).min(CHUNK as u64 / 8);
            let Some(bytes) = self.entries.get_mut(..8 * pages as usize) else { return };
            if self.file.read_exact_at(bytes, at / base_page * 8).is_err() {
                return;
            }
            for (entry, hva) in bytes.as_chunks::<8>().0.iter().zip((at..).step_by(base_page as usize)) {
                let entry = u64::from_ne_bytes(*entry);
                let is_candidate = if is_huge { hva.is_multiple_of(page) } else { entry & IS_SWAPPED != 0 };
                if entry & IS_PRESENT == 0 && is_candidate && is_poisoned(hva, page) {
                    report(hva);
                }
            }
            at += pages * base_page;
        }
    }
}

/// Whether a page is poisoned. A kernel before 5.14 does not report it.
fn is_poisoned(hva: u64, len: u64) -> bool {
    pages::populate_read(hva, len).is_err_and(|error| error.raw_os_error() == Some(EHWPOISON))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, GuestRam};

    /// A region larger than a chunk, with pages that are present and pages that were never touched.
    #[test]
    fn intact_memory_has_no_poisoned_pages() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 300 << 20)], backing).expect("memory");
            ram.write(0x1000, &[1; 0x3000]).expect("memory");
            let slot = ram.slots().next().expect("a slot");
            let range = Range { hva: slot.hva, len: slot.len, gpa: 0, log2_page: 12 };
            let mut pagemap = Pagemap::open().expect("a page table");
            pagemap.poisoned_pages(range, |hva| panic!("{hva:#x} is not poisoned"));
        }
    }
}
