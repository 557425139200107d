//! Replacing poisoned pages: by zeroed ones, or by pages with the contents that they had.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::backing::Backing;
use crate::pages::{self, EHWPOISON, FreshPages, HostRange};
use crate::ram::GuestRam;
use crate::{AccessError, sigbus};

/// Whole pages of one region.
#[derive(Clone, Copy, Debug)]
struct Pages<'r> {
    gpa: u64,
    range: HostRange<'r>,
}

impl GuestRam {
    /// Replaces the pages, of the backing's size, that contain these bytes by zeroed ones. They are present when it returns. A
    /// concurrent access sees the old contents or zeros.
    ///
    /// # Errors
    /// `InvalidInput` if the bytes are not all guest memory; EHWPOISON if a page is still poisoned; ENOSPC if the hugetlb pool is
    /// empty; or the error of fallocate(2) or madvise(2).
    pub fn replace_pages(&self, gpa: u64, len: u64) -> io::Result<()> {
        let end = self.end_of_memory(gpa, len)?;
        // Checked before a page is released, so that an empty pool does not take a page from the guest.
        let needed = self.pages(gpa, end).iter().map(|pages| pages.range.len()).sum();
        self.backing().check_pool(needed).map_err(io::Error::other)?;
        for pages in self.pages(gpa, end) {
            self.release(pages)?;
            self.verify(pages)?;
            sigbus::memory_replaced(pages.range.hva(), pages.range.len());
        }
        Ok(())
    }

    /// Replaces the pages, of the backing's size, that contain these bytes by pages with other contents: `fill` gets the GPA of the
    /// first page and the bytes of the new pages, which are zero. A poisoned page is replaced in one step: an access faults, or sees the
    /// new contents. So is one of anonymous memory that is not poisoned; one of a file is zero for a moment.
    ///
    /// They are present when it returns. It allocates no memory of the heap, so that it can be called while a vCPU waits.
    ///
    /// # Errors
    /// `InvalidInput` if the bytes are not all in one region of guest memory; `Unsupported` for huge pages; EHWPOISON if a page is still
    /// poisoned; or the error of mmap(2), mremap(2), fallocate(2), pwrite(2) or madvise(2).
    pub fn replace_pages_with(
        &self,
        gpa: u64,
        len: u64,
        fill: impl FnOnce(u64, &mut [u8]),
    ) -> io::Result<()> {
        if matches!(self.backing(), Backing::Hugetlbfs { .. }) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let page_size = self.backing().page_size();
        let start = gpa & !(page_size - 1);
        let end = gpa.checked_add(len).and_then(|end| end.checked_next_multiple_of(page_size));
        let range = end.and_then(|end| self.host_range(start, end - start));
        let Some(range) = range else { return Err(io::ErrorKind::InvalidInput.into()) };
        let pages = Pages { gpa: start, range };
        let mut fresh = FreshPages::map(range.len())?;
        fill(start, fresh.bytes());
        match self.file(pages) {
            // The entries of poisoned pages stay in the page table, and fault, until `unmap`.
            Some((file, at)) => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, hole, at, range.len())?;
                file.write_all_at(fresh.bytes(), at)?;
                pages::unmap(range)?;
            }
            None => fresh.move_to(range)?,
        }
        self.verify(pages)?;
        sigbus::memory_replaced(range.hva(), range.len());
        Ok(())
    }

    /// Removes the pages, of the backing's size, that contain these bytes from the page tables of this process and of a guest. Their
    /// contents stay; the next access maps them again.
    ///
    /// KVM on arm64 cleans the caches of the host's processors for a page that it maps, unless these have FEAT_S2FWB: a guest that maps
    /// the page as a device then reads what was written to it here.
    ///
    /// # Errors
    /// `InvalidInput` if the bytes are not all guest memory; `Unsupported` for anonymous memory, whose contents would be lost, and for huge
    /// pages before Linux 5.18; or the error of madvise(2).
    pub fn unmap_pages(&self, gpa: u64, len: u64) -> io::Result<()> {
        let is_huge = match self.backing() {
            Backing::Anonymous => return Err(io::ErrorKind::Unsupported.into()),
            Backing::Memfd => false,
            Backing::Hugetlbfs { .. } => true,
        };
        let end = self.end_of_memory(gpa, len)?;
        self.pages(gpa, end).into_iter().try_for_each(|pages| match pages::unmap(pages.range) {
            Err(error) if is_huge && error.raw_os_error() == Some(libc::EINVAL) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            outcome => outcome,
        })
    }

    /// Makes all of guest memory zero, as [`replace_pages`](Self::replace_pages) does, except the pages that contain the bytes
    /// `(gpa, bytes)` of `kept`. Pages of the host's base size are allocated again when they are touched.
    ///
    /// # Errors
    /// Returns the error of fallocate(2) or madvise(2). Some of the memory may be zero then.
    pub fn zero_except(&self, kept: &[(u64, u64)]) -> io::Result<()> {
        let page_size = self.backing().page_size();
        let mut kept: Vec<(u64, u64)> = kept
            .iter()
            .filter(|&&(_, len)| len > 0)
            .map(|&(gpa, len)| {
                let end = gpa.saturating_add(len).checked_next_multiple_of(page_size).unwrap_or(u64::MAX);
                (gpa & !(page_size - 1), end)
            })
            .collect();
        kept.sort_unstable();
        let mut from = 0;
        for (start, end) in kept.into_iter().chain([(u64::MAX, u64::MAX)]) {
            if from < start {
                for pages in self.pages(from, start) {
                    self.release(pages)?;
                    sigbus::memory_replaced(pages.range.hva(), pages.range.len());
                }
            }
            from = from.max(end);
        }
        Ok(())
    }

    /// Gives pages that the guest does not use back to the host: those, of the host's base size, that are completely within these
    /// bytes. Their next access gets fresh pages, which are zero, whether they were poisoned or not. `discarded` is called for each
    /// range, of GPA and bytes, that was given back.
    ///
    /// Pages of hugetlbfs are kept: the next access would be a SIGBUS if the pool were empty by then.
    ///
    /// # Errors
    /// `InvalidInput` if the bytes are not all guest memory; or the error of fallocate(2) or madvise(2).
    pub fn discard_pages(&self, gpa: u64, len: u64, mut discarded: impl FnMut(u64, u64)) -> io::Result<()> {
        let end = self.end_of_memory(gpa, len)?;
        if matches!(self.backing(), Backing::Hugetlbfs { .. }) {
            return Ok(());
        }
        let page_size = self.backing().page_size();
        // Regions begin and end at pages.
        let (Some(start), end) = (gpa.checked_next_multiple_of(page_size), end & !(page_size - 1)) else {
            return Ok(());
        };
        for pages in self.pages(start, end) {
            self.release(pages)?;
            sigbus::memory_replaced(pages.range.hva(), pages.range.len());
            discarded(pages.gpa, pages.range.len());
        }
        Ok(())
    }

    /// The end of these bytes, exclusive, if all of them are guest memory.
    fn end_of_memory(&self, gpa: u64, len: u64) -> io::Result<u64> {
        let end = gpa.checked_add(len).ok_or_else(|| not_memory(gpa, len))?;
        let memory = self.slots().map(|slot| end.min(slot.gpa + slot.len).saturating_sub(gpa.max(slot.gpa)));
        if memory.sum::<u64>() < len { Err(not_memory(gpa, len)) } else { Ok(end) }
    }

    /// The pages that contain guest memory from `from` to `to` (exclusive), one item for each region.
    fn pages(&self, from: u64, to: u64) -> Vec<Pages<'_>> {
        let page_size = self.backing().page_size();
        let pages = self.slots().filter_map(|slot| {
            let (start, end) = (from.max(slot.gpa), to.min(slot.gpa + slot.len));
            // Regions begin and end at pages, so the rounded range is still in its region.
            let (start, end) = (start & !(page_size - 1), end.next_multiple_of(page_size));
            if start >= end || from >= to {
                return None;
            }
            Some(Pages { gpa: start, range: self.host_range(start, end - start)? })
        });
        pages.collect()
    }

    /// Gives the pages back to the host, poisoned or not. Huge pages are allocated again.
    fn release(&self, pages: Pages<'_>) -> io::Result<()> {
        let len = pages.range.len();
        if let Some((file, start)) = self.file(pages) {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, hole, start, len)?;
        }
        // A hole in the file removes its pages from every mapping, but not the page table entries of poisoned ones.
        match pages::unmap(pages.range) {
            // Huge pages before Linux 5.18: the hole has removed their entries.
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL)
                    && matches!(self.backing(), Backing::Hugetlbfs { .. }) => {}
            outcome => outcome?,
        }
        if let (Backing::Hugetlbfs { page_size }, Some((file, start))) = (self.backing(), self.file(pages)) {
            // Allocated now: with an empty pool, the next access would be a SIGBUS.
            fallocate(file, FallocateFlags::empty(), start, len)
                .map_err(|error| empty_pool(error.into(), page_size))?;
        }
        Ok(())
    }

    /// Makes the pages present.
    fn verify(&self, pages: Pages<'_>) -> io::Result<()> {
        let outcome = pages::populate_write(pages.range);
        match outcome.as_ref().map_err(io::Error::raw_os_error) {
            // Before Linux 5.14.
            Err(Some(libc::EINVAL | libc::ENOSYS)) => {
                self.probe(pages.gpa, pages.range.len()).map_err(|error| match error {
                    AccessError::Poisoned(_) => io::Error::from_raw_os_error(EHWPOISON),
                    other => io::Error::other(other),
                })
            }
            _ => outcome,
        }
    }

    /// The file that backs the pages, and their offset in it. `None` for anonymous memory.
    fn file(&self, pages: Pages<'_>) -> Option<(&File, u64)> {
        let region = self.memory().iter().find(|region| {
            pages.gpa >= region.start_addr().0 && pages.gpa - region.start_addr().0 < region.len()
        })?;
        let file = region.file_offset()?;
        Some((file.file(), file.start() + (pages.gpa - region.start_addr().0)))
    }
}

fn not_memory(gpa: u64, len: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, AccessError::NotMemory { gpa, len })
}

fn empty_pool(error: io::Error, page_size: u64) -> io::Error {
    let kib = page_size >> 10;
    io::Error::new(
        error.kind(),
        format!("fallocate(2): no free page in the hugetlb pool (hugepages-{kib}kB/nr_hugepages): {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn filled(backing: Backing) -> GuestRam {
        let ram =
            GuestRam::allocate(&[(0, 16 * PAGE), (16 * PAGE, 8 * PAGE), (64 * PAGE, 8 * PAGE)], backing)
                .expect("small memory");
        for page in pages() {
            ram.write(page * PAGE, &[page as u8 + 1; PAGE as usize]).expect("memory");
        }
        ram
    }

    fn pages() -> impl Iterator<Item = u64> {
        (0..24).chain(64..72)
    }

    /// The pages that are zero. All others must hold what was written.
    fn zero(ram: &GuestRam) -> Vec<u64> {
        pages()
            .filter(|&page| {
                let mut bytes = [0xff; PAGE as usize];
                ram.read(page * PAGE, &mut bytes).expect("memory");
                let is_zero = bytes.iter().all(|&byte| byte == 0);
                assert!(is_zero || bytes.iter().all(|&byte| byte == page as u8 + 1), "page {page}");
                is_zero
            })
            .collect()
    }

    #[test]
    fn replaced_pages_are_zero_and_others_unchanged() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = filled(backing);
            ram.replace_pages(3 * PAGE + 7, 1).expect("memory");
            assert_eq!(zero(&ram), [3], "{backing:?}");
            // Across two regions, and only part of the first and last page.
            ram.replace_pages(15 * PAGE + 100, 2 * PAGE).expect("memory");
            assert_eq!(zero(&ram), [3, 15, 16, 17], "{backing:?}");
            ram.write(3 * PAGE, &[4; PAGE as usize]).expect("it can be written");
            assert_eq!(zero(&ram), [15, 16, 17], "{backing:?}");
            ram.replace_pages(5 * PAGE, 0).expect("nothing to do");
            assert_eq!(zero(&ram), [15, 16, 17], "{backing:?}");
        }
    }

    #[test]
    fn whole_pages_are_discarded_and_others_unchanged() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = filled(backing);
            let discard = |gpa, len| {
                let mut discarded = Vec::new();
                let outcome =
                    ram.discard_pages(gpa, len, |gpa, len| discarded.push((gpa / PAGE, len / PAGE)));
                (outcome.map_err(|error| error.kind()), discarded)
            };
            assert_eq!(discard(3 * PAGE, PAGE), (Ok(()), vec![(3, 1)]));
            // Parts of pages, and across two regions.
            assert_eq!(discard(5 * PAGE + 1, 2 * PAGE - 2), (Ok(()), vec![]));
            assert_eq!(discard(14 * PAGE + 1, 3 * PAGE), (Ok(()), vec![(15, 1), (16, 1)]));
            assert_eq!(discard(7 * PAGE, 0), (Ok(()), vec![]));
            // Not memory: nothing is discarded.
            let refused = (Err(io::ErrorKind::InvalidInput), vec![]);
            for (gpa, len) in
                [(23 * PAGE, 2 * PAGE), (u64::MAX - 1, 9), (u64::MAX, 1), (23 * PAGE, 42 * PAGE)]
            {
                assert_eq!(discard(gpa, len), refused, "{len} bytes at {gpa:#x}");
            }
            assert_eq!(zero(&ram), [3, 15, 16], "{backing:?}");
            ram.write(3 * PAGE, &[4; PAGE as usize]).expect("it can be written");
            assert_eq!(zero(&ram), [15, 16], "{backing:?}");
        }
    }

    #[test]
    fn addresses_outside_guest_memory_are_refused() {
        let ram = filled(Backing::Memfd);
        for (gpa, len) in
            [(24 * PAGE, 1), (23 * PAGE, PAGE + 1), (23 * PAGE, 42 * PAGE), (u64::MAX, 1), (u64::MAX - 1, 9)]
        {
            let error = ram.replace_pages(gpa, len).expect_err("not memory");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{len} bytes at {gpa:#x}");
        }
        assert!(zero(&ram).is_empty());
    }

    #[test]
    fn replaced_pages_have_the_contents_that_they_are_given() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = filled(backing);
            // Several times: the new page is replaced in its turn.
            for round in 1..4 {
                ram.replace_pages_with(3 * PAGE + 7, PAGE, |gpa, bytes| {
                    assert_eq!((gpa, bytes.len() as u64), (3 * PAGE, 2 * PAGE));
                    assert!(bytes.iter().all(|&byte| byte == 0));
                    bytes[..PAGE as usize].fill(4);
                    bytes[PAGE as usize + 1] = round;
                })
                .expect("memory");
                let mut page = [0xff; PAGE as usize];
                ram.read(4 * PAGE, &mut page).expect("memory");
                assert_eq!((page[0], page[1], page[2]), (0, round, 0), "{backing:?}");
                ram.write(4 * PAGE, &[5; PAGE as usize]).expect("it can be written");
                assert_eq!(zero(&ram), [0; 0], "{backing:?}: others are unchanged");
            }
        }
    }

    #[test]
    fn unmapped_pages_are_unchanged() {
        let ram = filled(Backing::Memfd);
        // Across two regions, and only part of the first and last page.
        ram.unmap_pages(15 * PAGE + 100, 2 * PAGE).expect("memory");
        assert_eq!(zero(&ram), [0; 0]);
        for (gpa, len) in [(24 * PAGE, 1), (23 * PAGE, PAGE + 1), (u64::MAX, 1)] {
            let error = ram.unmap_pages(gpa, len).expect_err("not memory");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{len} bytes at {gpa:#x}");
        }
        let ram = filled(Backing::Anonymous);
        let error = ram.unmap_pages(3 * PAGE, 1).expect_err("its contents would be lost");
        assert_eq!((error.kind(), zero(&ram)), (io::ErrorKind::Unsupported, vec![]));
    }

    #[test]
    fn only_pages_of_one_region_are_replaced_by_others() {
        let ram = filled(Backing::Anonymous);
        for (gpa, len) in [(15 * PAGE, 2 * PAGE), (24 * PAGE, 1), (u64::MAX - 5, 100), (71 * PAGE, 2 * PAGE)]
        {
            let error =
                ram.replace_pages_with(gpa, len, |_, _| panic!("not memory")).expect_err("not memory");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn zero_except_keeps_the_pages_that_it_is_given() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = filled(backing);
            // Unsorted, overlapping, partial pages, across two regions, outside memory, empty.
            let kept = [
                (65 * PAGE, PAGE),
                (15 * PAGE + 4095, 2),
                (15 * PAGE, 1),
                (200 * PAGE, PAGE),
                (7 * PAGE, 0),
                (u64::MAX, 1),
            ];
            ram.zero_except(&kept).expect("memory");
            let expected: Vec<u64> = pages().filter(|page| ![15, 16, 65].contains(page)).collect();
            assert_eq!(zero(&ram), expected, "{backing:?}");
            ram.zero_except(&[]).expect("memory");
            assert_eq!(zero(&ram), pages().collect::<Vec<_>>(), "{backing:?}");
        }
    }

    /// The page is zero in the file too, not only in this process.
    #[test]
    fn a_replaced_page_is_released_from_its_file() {
        use std::os::unix::fs::FileExt;

        let ram = filled(Backing::Memfd);
        ram.replace_pages(2 * PAGE, PAGE).expect("memory");
        let region = ram.memory().iter().next().expect("a region");
        let file = region.file_offset().expect("a file").file();
        let mut bytes = [0xff; 2 * PAGE as usize];
        file.read_exact_at(&mut bytes, 2 * PAGE).expect("the file");
        assert_eq!(bytes[..PAGE as usize], [0; PAGE as usize]);
        assert_eq!(bytes[PAGE as usize..], [4; PAGE as usize]);
    }

    #[test]
    fn the_error_for_an_empty_pool_names_the_pool() {
        let error = empty_pool(io::Error::from_raw_os_error(libc::ENOSPC), 1 << 30);
        assert!(error.to_string().contains("hugepages-1048576kB"), "{error}");
    }
}
