//! Scans for poisoned pages (Linux, `Documentation/admin-guide/mm/pagemap.rst`).
//!
//! A poisoned page leaves an entry in the process's page table that pagemap shows like that of a swapped page. mincore(2) distinguishes
//! them, so that no page is read from the swap; populating the page then confirms it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::pages::{self, EHWPOISON};
use crate::ranges::Range;

/// /proc/self/pagemap.
pub(super) struct Pagemap {
    file: File,
    entries: Vec<u8>,
    /// A byte for each page of a chunk.
    in_memory: Vec<u8>,
}

/// Bytes that are read in one call: 8 for each page.
const CHUNK: usize = 256 << 10;

const IS_PRESENT: u64 = 1 << 63;
const IS_SWAPPED: u64 = 1 << 62;

impl Pagemap {
    pub(super) fn open() -> io::Result<Self> {
        let file = File::open("/proc/self/pagemap")?;
        Ok(Pagemap { file, entries: vec![0; CHUNK], in_memory: vec![0; CHUNK / 8] })
    }

    /// Calls `report` with the HVA of each poisoned page of a region. Pages whose entry cannot be read are skipped.
    pub(super) fn poisoned_pages(&mut self, range: Range, mut report: impl FnMut(u64)) {
        let base_page = rustix::param::page_size() as u64;
        let page = 1_u64 << range.log2_page;
        let Pagemap { file, entries, in_memory } = self;
        let mut at = range.hva;
        while at < range.hva + range.len {
            let pages = ((range.hva + range.len - at) / base_page).min(CHUNK as u64 / 8);
            let Some(bytes) = entries.get_mut(..8 * pages as usize) else { return };
            if file.read_exact_at(bytes, at / base_page * 8).is_err() {
                return;
            }
            let entries = bytes.as_chunks::<8>().0;
            let mut try_page = |index: usize| {
                let hva = at + index as u64 * base_page;
                if is_poisoned(hva, page) {
                    report(hva);
                }
            };
            if page > base_page {
                // pagemap shows no entry for poisoned huge pages, so each huge page that is not present is tried. They are never swapped.
                let per_page = (page / base_page) as usize;
                let first = (at.next_multiple_of(page) - at) / base_page;
                let absent = |index: &usize| entries.get(*index).is_some_and(|entry| !is_present(*entry));
                (first as usize..entries.len()).step_by(per_page).filter(absent).for_each(try_page);
            } else {
                let residency =
                    |index: usize, pages: &mut [u8]| pages::in_memory(at + index as u64 * base_page, pages);
                suspects(entries, in_memory, residency, &mut try_page);
            }
            at += pages * base_page;
        }
    }
}

/// Calls `suspect` with the index of each page that may be poisoned: one that is not present, whose entry looks like that of a swapped page,
/// and which is in memory all the same. `residency` is [`pages::in_memory`] of the pages from an index on, and `buffer` has a byte for each.
fn suspects(
    entries: &[[u8; 8]],
    buffer: &mut [u8],
    residency: impl Fn(usize, &mut [u8]) -> io::Result<()>,
    suspect: &mut impl FnMut(usize),
) {
    let mut first = 0;
    while let Some(rest) = entries.get(first..).filter(|rest| !rest.is_empty()) {
        let len = rest.iter().take_while(|entry| is_swapped(**entry)).count();
        if let Some(pages) = buffer.get_mut(..len).filter(|pages| !pages.is_empty()) {
            // If mincore(2) fails, nothing is known of the pages: they are left alone, and reported when they are touched.
            if residency(first, pages).is_ok() {
                let in_memory = pages.iter().zip(first..).filter(|(page, _)| **page & 1 != 0);
                in_memory.for_each(|(_, index)| suspect(index));
            }
        }
        first += len.max(1);
    }
}

fn is_present(entry: [u8; 8]) -> bool {
    u64::from_ne_bytes(entry) & IS_PRESENT != 0
}

/// Whether an entry is that of a swapped page, or looks like it.
fn is_swapped(entry: [u8; 8]) -> bool {
    u64::from_ne_bytes(entry) & IS_SWAPPED != 0 && !is_present(entry)
}

/// Whether a page is poisoned. A kernel before 5.14 does not report it.
fn is_poisoned(hva: u64, len: u64) -> bool {
    pages::populate_read(hva, len).is_err_and(|error| error.raw_os_error() == Some(EHWPOISON))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, GuestRam};

    /// Of four pages that pagemap shows as swapped, those that are really in the swap are not touched.
    #[test]
    fn pages_in_the_swap_are_not_suspected() {
        let [absent, present, swapped] = [0, IS_PRESENT, IS_SWAPPED].map(u64::to_ne_bytes);
        let entries = [swapped, swapped, present, absent, swapped, swapped];
        let residency = |first: usize, pages: &mut [u8]| {
            // Pages 1 and 4 have an entry of their own: they are poisoned, or about to be migrated.
            pages.iter_mut().zip(first..).for_each(|(page, index)| *page = matches!(index, 1 | 4).into());
            Ok(())
        };
        let mut found = Vec::new();
        suspects(&entries, &mut [0; 6], residency, &mut |index| found.push(index));
        assert_eq!(found, [1, 4]);
        let fails = |_: usize, _: &mut [u8]| Err(io::ErrorKind::OutOfMemory.into());
        suspects(&entries, &mut [0; 6], fails, &mut |index| panic!("page {index}"));
    }

    /// mincore(2) of this kernel, on pages that are present and pages that were never touched.
    #[test]
    fn residency_is_that_of_each_page() {
        let ram = GuestRam::allocate(&[(0, 1 << 20)], Backing::Anonymous).expect("memory");
        let page = rustix::param::page_size() as u64;
        ram.write(page, &[1]).expect("memory");
        let mut pages = [0xff; 3];
        pages::in_memory(ram.host_address(0).expect("memory"), &mut pages).expect("mapped");
        assert_eq!(pages.map(|page| page & 1), [0, 1, 0]);
    }

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
