//! Which pages of guest memory hold anything: a dump of a large guest that uses little must not make the host allocate all of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::AccessError;
use crate::backing::Backing;
use crate::ram::{GuestRam, SharedRegion};

/// Tells which pages of guest memory the host has allocated. Reads no page.
#[derive(Debug)]
pub struct Population<'r> {
    ram: &'r GuestRam,
    source: Source<'r>,
}

#[derive(Debug)]
enum Source<'r> {
    /// Of private memory: /proc/self/pagemap, and its entries (Linux, `Documentation/admin-guide/mm/pagemap.rst`).
    Pagemap { file: File, entries: Vec<u8> },
    /// Of shared memory: lseek(2). A page can be in the file without being mapped here.
    Files(Vec<SharedRegion<'r>>),
    /// Pages of hugetlbfs are allocated from the beginning.
    All,
}

/// Bytes of an entry of pagemap.
const ENTRY: usize = 8;
/// The page is present.
const IS_PRESENT: u64 = 1 << 63;
/// The page is swapped, or poisoned.
const IS_SWAPPED: u64 = 1 << 62;

impl GuestRam {
    /// What tells which pages the host has allocated.
    ///
    /// # Errors
    /// Returns the error of opening /proc/self/pagemap.
    pub fn population(&self) -> io::Result<Population<'_>> {
        let source = match (self.backing(), self.shared_regions()) {
            (Backing::Hugetlbfs { .. }, _) => Source::All,
            (_, Some(files)) => Source::Files(files),
            (_, None) => Source::Pagemap { file: File::open("/proc/self/pagemap")?, entries: Vec::new() },
        };
        Ok(Population { ram: self, source })
    }
}

impl Population<'_> {
    /// Sets for each page of the host's base size, from the one at `gpa` on, whether it is allocated. The others read as zero. A poisoned
    /// page is allocated.
    ///
    /// # Errors
    /// `InvalidInput` if the pages are not all in one region of guest memory; or the error of pread(2) or lseek(2).
    pub fn read(&mut self, gpa: u64, pages: &mut [bool]) -> io::Result<()> {
        let page = rustix::param::page_size() as u64;
        let len = pages.len() as u64 * page;
        let range = self.ram.host_range(gpa, len).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, AccessError::NotMemory { gpa, len })
        })?;
        match &mut self.source {
            Source::All => pages.fill(true),
            Source::Pagemap { file, entries } => {
                entries.resize(ENTRY * pages.len(), 0);
                file.read_exact_at(entries, range.hva() / page * ENTRY as u64)?;
                for (is_allocated, entry) in pages.iter_mut().zip(entries.as_chunks::<ENTRY>().0) {
                    *is_allocated = u64::from_ne_bytes(*entry) & (IS_PRESENT | IS_SWAPPED) != 0;
                }
            }
            Source::Files(regions) => {
                pages.fill(false);
                let contains = |region: &&SharedRegion<'_>| {
                    gpa.checked_sub(region.slot.gpa).is_some_and(|offset| offset < region.slot.len)
                };
                let Some(region) = regions.iter().find(contains) else { return Ok(()) };
                let start = region.offset + (gpa - region.slot.gpa);
                let mut at = 0;
                while let Some(data) =
                    offset_of(region.file, SeekFrom::Data(start + at))?.filter(|it| it - start < len)
                {
                    let hole = offset_of(region.file, SeekFrom::Hole(data))?.unwrap_or(start + len);
                    let end = (hole - start).min(len);
                    let allocated = ((data - start) / page) as usize..end.div_ceil(page) as usize;
                    pages.get_mut(allocated).unwrap_or_default().fill(true);
                    at = end;
                }
            }
        }
        Ok(())
    }
}

/// Where data, or a hole, begins. `None` behind the last.
fn offset_of(file: &File, position: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, position) {
        Ok(offset) => Ok(Some(offset)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_never_written_are_not_allocated() {
        let page = rustix::param::page_size() as u64;
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 16 * page), (64 * page, 16 * page)], backing).expect("memory");
            for written in [1, 2, 15, 64, 70, 79] {
                ram.write(written * page + 5, &[1]).expect("memory");
            }
            let mut population = ram.population().expect("a page table");
            let mut allocated = |first: u64, pages: usize| {
                let mut buffer = vec![true; pages];
                population.read(first * page, &mut buffer).map(|()| {
                    let pages = buffer.iter().zip(first..).filter(|(is_allocated, _)| **is_allocated);
                    pages.map(|(_, index)| index).collect::<Vec<_>>()
                })
            };
            assert_eq!(allocated(0, 16).expect("memory"), [1, 2, 15], "{backing:?}");
            assert_eq!(allocated(64, 16).expect("memory"), [64, 70, 79], "{backing:?}");
            assert_eq!(allocated(2, 3).expect("memory"), [2], "{backing:?}");
            assert_eq!(allocated(3, 12).expect("memory"), [0_u64; 0], "{backing:?}");
            allocated(15, 2).expect_err("two regions");
        }
    }
}
