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
mod tests;
