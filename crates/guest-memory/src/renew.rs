//! Fresh memory in the place of poisoned pages.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::backing::Backing;
use crate::pages::{self, EHWPOISON};
use crate::ram::{GuestRam, Slot};
use crate::{AccessError, sigbus};

/// Pages of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages {
    gpa: u64,
    len: u64,
    slot: Slot,
}

impl Pages {
    fn offset(&self) -> u64 {
        self.gpa - self.slot.gpa
    }

    fn hva(&self) -> u64 {
        self.slot.hva + self.offset()
    }
}

impl GuestRam {
    /// Puts fresh zeroed memory in the place of the pages, of the backing's size, that these bytes are in. When it returns
    /// the pages are there. Whoever accesses them meanwhile sees what was or zeros.
    ///
    /// # Errors
    /// `InvalidInput` where they are not all memory, `EHWPOISON` where a page is still lost, or what the host says: on a
    /// pool of huge pages, that it is empty.
    pub fn renew(&self, gpa: u64, len: u64) -> io::Result<()> {
        let end = gpa.checked_add(len).ok_or_else(|| not_memory(gpa, len))?;
        let memory = self.slots().map(|slot| end.min(slot.gpa + slot.len).saturating_sub(gpa.max(slot.gpa)));
        if memory.sum::<u64>() < len {
            return Err(not_memory(gpa, len));
        }
        // Before a page is given up for one that is not there.
        let needed = self.pages(gpa, end).iter().map(|pages| pages.len).sum();
        self.backing().check_pool(needed).map_err(io::Error::other)?;
        for pages in self.pages(gpa, end) {
            self.replace(pages)?;
            self.verify(pages)?;
            sigbus::forget(pages.hva(), pages.len);
        }
        Ok(())
    }

    /// Makes all of memory zero, as [`renew`](Self::renew) does, except those pages `(gpa, bytes)`, which stay as they are.
    /// Pages of the host's base size are taken again when they are touched.
    ///
    /// # Errors
    /// What the host says. Some of the memory may be zero then.
    pub fn renew_all_but(&self, kept: &[(u64, u64)]) -> io::Result<()> {
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
                    self.replace(pages)?;
                    sigbus::forget(pages.hva(), pages.len);
                }
            }
            from = from.max(end);
        }
        Ok(())
    }

    /// The pages that hold memory from a GPA on, up to another.
    fn pages(&self, from: u64, to: u64) -> Vec<Pages> {
        let page_size = self.backing().page_size();
        let pages = self.slots().filter_map(|slot| {
            let (start, end) = (from.max(slot.gpa), to.min(slot.gpa + slot.len));
            // Slots begin and end at pages, so neither leaves its slot.
            let (start, end) = (start & !(page_size - 1), end.next_multiple_of(page_size));
            (start < end && from < to).then(|| Pages { gpa: start, len: end - start, slot })
        });
        pages.collect()
    }

    fn replace(&self, pages: Pages) -> io::Result<()> {
        if let Some((file, start)) = self.file(pages) {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, hole, start, pages.len)?;
        }
        // A file's hole takes its pages away from all who map them, but leaves the entries of those that were lost.
        match pages::drop_mapped(pages.hva(), pages.len) {
            // Before Linux 5.18 not for huge pages, whose entries the hole has taken.
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL)
                    && matches!(self.backing(), Backing::Hugetlbfs { .. }) => {}
            outcome => outcome?,
        }
        if let (Backing::Hugetlbfs { page_size }, Some((file, start))) = (self.backing(), self.file(pages)) {
            // Now: later, an empty pool would be a SIGBUS.
            fallocate(file, FallocateFlags::empty(), start, pages.len)
                .map_err(|error| empty_pool(error.into(), page_size))?;
        }
        Ok(())
    }

    /// Has the pages be there.
    fn verify(&self, pages: Pages) -> io::Result<()> {
        let outcome = pages::populate(pages.hva(), pages.len, pages::For::Writing);
        match outcome.as_ref().map_err(io::Error::raw_os_error) {
            // Before Linux 5.14.
            Err(Some(libc::EINVAL | libc::ENOSYS)) => {
                self.probe(pages.gpa, pages.len).map_err(|error| match error {
                    AccessError::Poisoned(_) => io::Error::from_raw_os_error(EHWPOISON),
                    other => io::Error::other(other),
                })
            }
            _ => outcome,
        }
    }

    /// The file behind pages, and where in it they are.
    fn file(&self, pages: Pages) -> Option<(&File, u64)> {
        let region = self.memory().iter().find(|region| region.start_addr().0 == pages.slot.gpa)?;
        let file = region.file_offset()?;
        Some((file.file(), file.start() + pages.offset()))
    }
}

fn not_memory(gpa: u64, len: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, AccessError::NotMemory { gpa, len })
}

fn empty_pool(error: io::Error, page_size: u64) -> io::Error {
    let kib = page_size >> 10;
    io::Error::new(
        error.kind(),
        format!("the host's pool of {kib} KiB pages has none left (hugepages-{kib}kB/nr_hugepages): {error}"),
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

    /// The pages that are zero, of which all others must be as they were.
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
    fn renewed_pages_are_zero_and_others_as_they_were() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = filled(backing);
            ram.renew(3 * PAGE + 7, 1).expect("memory");
            assert_eq!(zero(&ram), [3], "{backing:?}");
            // Across a border of regions, and in part of its first and last page.
            ram.renew(15 * PAGE + 100, 2 * PAGE).expect("memory");
            assert_eq!(zero(&ram), [3, 15, 16, 17], "{backing:?}");
            ram.write(3 * PAGE, &[4; PAGE as usize]).expect("it can be written");
            assert_eq!(zero(&ram), [15, 16, 17], "{backing:?}");
            ram.renew(5 * PAGE, 0).expect("nothing to do");
            assert_eq!(zero(&ram), [15, 16, 17], "{backing:?}");
        }
    }

    #[test]
    fn what_is_not_memory_is_not_renewed() {
        let ram = filled(Backing::Memfd);
        for (gpa, len) in
            [(24 * PAGE, 1), (23 * PAGE, PAGE + 1), (23 * PAGE, 42 * PAGE), (u64::MAX, 1), (u64::MAX - 1, 9)]
        {
            let error = ram.renew(gpa, len).expect_err("not memory");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{len} bytes at {gpa:#x}");
        }
        assert!(zero(&ram).is_empty());
    }

    #[test]
    fn a_reset_keeps_what_it_is_told_to() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = filled(backing);
            // In disorder, twice, in part of pages, across a border, beyond memory, of nothing.
            let kept = [
                (65 * PAGE, PAGE),
                (15 * PAGE + 4095, 2),
                (15 * PAGE, 1),
                (200 * PAGE, PAGE),
                (7 * PAGE, 0),
                (u64::MAX, 1),
            ];
            ram.renew_all_but(&kept).expect("memory");
            let expected: Vec<u64> = pages().filter(|page| ![15, 16, 65].contains(page)).collect();
            assert_eq!(zero(&ram), expected, "{backing:?}");
            ram.renew_all_but(&[]).expect("memory");
            assert_eq!(zero(&ram), pages().collect::<Vec<_>>(), "{backing:?}");
        }
    }

    /// The page is not only zero for this process: the file has no other any more.
    #[test]
    fn a_file_loses_its_page() {
        use std::os::unix::fs::FileExt;

        let ram = filled(Backing::Memfd);
        ram.renew(2 * PAGE, PAGE).expect("memory");
        let region = ram.memory().iter().next().expect("a region");
        let file = region.file_offset().expect("a file").file();
        let mut bytes = [0xff; 2 * PAGE as usize];
        file.read_exact_at(&mut bytes, 2 * PAGE).expect("the file");
        assert_eq!(bytes[..PAGE as usize], [0; PAGE as usize]);
        assert_eq!(bytes[PAGE as usize..], [4; PAGE as usize]);
    }

    #[test]
    fn huge_pages_are_taken_from_the_pool_at_once() {
        let page_size = 2 << 20;
        let ram = match GuestRam::allocate(&[(0, 2 * page_size)], Backing::Hugetlbfs { page_size }) {
            Ok(ram) => ram,
            Err(error) => {
                eprintln!("SKIPPED, this machine lacks huge pages: {error}");
                return;
            }
        };
        ram.write(0, &vec![1; 2 * page_size as usize]).expect("memory");
        ram.renew(page_size + 5, 1).expect("memory");
        let mut bytes = vec![0xff; 2 * page_size as usize];
        ram.read(0, &mut bytes).expect("memory");
        let (first, second) = bytes.split_at(page_size as usize);
        assert!(first.iter().all(|&byte| byte == 1));
        assert!(second.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn an_empty_pool_is_named() {
        let error = empty_pool(io::Error::from_raw_os_error(libc::ENOSPC), 1 << 30);
        assert!(error.to_string().contains("hugepages-1048576kB"), "{error}");
    }
}
