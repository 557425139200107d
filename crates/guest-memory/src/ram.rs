//! Guest memory as one object.

use std::fs::File;
use std::sync::Arc;

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

use crate::backing::{AllocateError, Backing};
use crate::file::MemoryFile;
use crate::pages::HostRange;
use crate::ranges::{Range, Registration};
use crate::sigbus;

/// A contiguous region of guest memory, as a hypervisor needs it for a memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memslot {
    /// Index of the region, from 0.
    pub index: u32,
    /// First GPA, a multiple of the backing's page size.
    pub gpa: u64,
    /// Bytes, a multiple of the backing's page size.
    pub len: u64,
    /// HVA of the first byte. It is mapped as long as the [`GuestRam`] that returned it, or a clone of it, exists.
    pub hva: u64,
}

/// A region of guest memory in a file that another process can map (mmap(2), MAP_SHARED).
///
/// A page that is replaced is replaced for that process too. If a page is poisoned, so is that process's.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SharedRegion<'r> {
    /// Where the region is in the guest and in this process.
    pub slot: Memslot,
    /// The file.
    pub file: &'r File,
    /// Offset of the region's first byte in the file.
    pub offset: u64,
}

/// Guest memory. A clone refers to the same memory.
///
/// When the last clone is dropped, its addresses no longer count as guest memory in the SIGBUS handler, even if a clone of
/// [`memory`](Self::memory) keeps them mapped.
#[derive(Clone, Debug)]
pub struct GuestRam {
    /// Dropped before the memory, so that an address of a later mapping is not taken for guest memory.
    _registration: Arc<Registration>,
    memory: GuestMemoryMmap,
    backing: Backing,
}

impl GuestRam {
    /// Maps memory for each region `(gpa, bytes)`. The regions must be in ascending order, must not overlap, and must be multiples
    /// of the backing's page size.
    ///
    /// # Errors
    /// Returns an error if the host cannot provide the memory, or the regions do not fit the backing.
    pub fn allocate(regions: &[(u64, u64)], backing: Backing) -> Result<Self, AllocateError> {
        Self::allocate_and_report(regions, backing, &mut |_| {})
    }

    /// As [`allocate`](Self::allocate). Calls `progress` now and then with the number of bytes that the host has allocated: huge pages
    /// are allocated, and zeroed, here; others when they are accessed.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_and_report(
        regions: &[(u64, u64)],
        backing: Backing,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, AllocateError> {
        Self::map(regions, backing, None, progress)
    }

    /// As [`allocate_and_report`](Self::allocate_and_report), with the pages of a file: the regions are in it one after the other. Pages that
    /// it has keep their contents.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn map_file(
        regions: &[(u64, u64)],
        backing: Backing,
        file: &MemoryFile,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, AllocateError> {
        Self::map(regions, backing, Some(file), progress)
    }

    fn map(
        regions: &[(u64, u64)],
        backing: Backing,
        file: Option<&MemoryFile>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, AllocateError> {
        let page_size = backing.page_size();
        for &(gpa, len) in regions {
            if !gpa.is_multiple_of(page_size) || !len.is_multiple_of(page_size) || len == 0 {
                return Err(AllocateError::Unaligned { gpa, len, page_size });
            }
        }
        let len = regions.iter().fold(0_u64, |sum, &(_, len)| sum.saturating_add(len));
        backing.check_pool(len.saturating_sub(file.map_or(0, MemoryFile::allocated)))?;
        let mut mapped = Vec::with_capacity(regions.len());
        let mut before = 0;
        for &(gpa, len) in regions {
            let kept = file.map(|file| (file.file(), before));
            let region = backing.map(gpa, len, kept, &mut |allocated| progress(before + allocated))?;
            mapped.push(GuestRegionMmap::new(region, GuestAddress(gpa)).ok_or(AllocateError::Layout)?);
            before += len;
        }
        let memory = GuestMemoryMmap::from_regions(mapped).map_err(|_| AllocateError::Layout)?;
        let log2_page = page_size.trailing_zeros() as u8;
        let ranges = slots(&memory).map(|Memslot { gpa, len, hva, .. }| Range { hva, len, gpa, log2_page });
        let registration = Registration::new(ranges, sigbus::memory_replaced)?;
        Ok(GuestRam { _registration: Arc::new(registration), memory, backing })
    }

    /// The memory for loaders. An access to a poisoned page through it ends the process: use [`read`](Self::read) and
    /// [`write`](Self::write) where a page may be poisoned.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Where the pages come from.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The regions of guest memory, ascending by GPA.
    pub fn slots(&self) -> impl Iterator<Item = Memslot> + '_ {
        slots(&self.memory)
    }

    /// The regions of guest memory as another process maps them, ascending by GPA. `None` if the memory is private to this process
    /// ([`Backing::Anonymous`]).
    #[must_use]
    pub fn shared_regions(&self) -> Option<Vec<SharedRegion<'_>>> {
        let shared = self.slots().zip(self.memory.iter()).map(|(slot, region)| {
            let file = region.file_offset()?;
            Some(SharedRegion { slot, file: file.file(), offset: file.start() })
        });
        shared.collect()
    }

    /// The HVA of a GPA. `None` if the GPA is not guest memory.
    #[must_use]
    pub fn host_address(&self, gpa: u64) -> Option<u64> {
        self.memory.get_host_address(GuestAddress(gpa)).ok().map(|pointer| pointer as u64)
    }

    /// The GPA of an HVA. `None` if the HVA is not this guest's memory.
    #[must_use]
    pub fn guest_address(&self, hva: u64) -> Option<u64> {
        self.slots()
            .find(|slot| hva >= slot.hva && hva - slot.hva < slot.len)
            .map(|slot| slot.gpa + (hva - slot.hva))
    }

    /// The host addresses of bytes that are all in one region. `None` if they are not.
    #[expect(unsafe_code, reason = "a range of host addresses is promised to be mapped")]
    pub(crate) fn host_range(&self, gpa: u64, len: u64) -> Option<HostRange<'_>> {
        let slot = self.slots().find(|slot| gpa >= slot.gpa && gpa - slot.gpa < slot.len)?;
        let offset = gpa - slot.gpa;
        // SAFETY: the bytes are in a region that stays mapped while `self` is borrowed.
        (len <= slot.len - offset).then(|| unsafe { HostRange::new(slot.hva + offset, len) })
    }
}

fn slots(memory: &GuestMemoryMmap) -> impl Iterator<Item = Memslot> + '_ {
    memory.iter().zip(0..).filter_map(|(region, index)| {
        let hva = region.get_host_address(MemoryRegionAddress(0)).ok()? as u64;
        Some(Memslot { index, gpa: region.start_addr().0, len: region.len(), hva })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::Bytes;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn translations_agree_at_the_edges() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, 3 * MIB), (16 * MIB, MIB)], backing).expect("small memory");
            for gpa in [0, 3 * MIB - 1, 16 * MIB, 17 * MIB - 1] {
                let hva = ram.host_address(gpa).expect("RAM");
                assert_eq!(ram.guest_address(hva), Some(gpa));
            }
            assert_eq!(ram.host_address(3 * MIB), None);
            assert_eq!(ram.host_address(17 * MIB), None);
            let ours = std::ptr::from_ref(&ram) as u64;
            assert_eq!(ram.guest_address(ours), None, "the VMM's own memory is not the guest's");
        }
    }

    #[test]
    fn shared_memory_is_what_another_process_can_map() {
        let layout = [(0, MIB), (16 * MIB, 2 * MIB)];
        let private = GuestRam::allocate(&layout, Backing::Anonymous).expect("small memory");
        assert!(private.shared_regions().is_none());
        let ram = GuestRam::allocate(&layout, Backing::Memfd).expect("small memory");
        ram.memory().write_obj(0x1122_3344_u32, GuestAddress(17 * MIB)).expect("inside");
        let regions = ram.shared_regions().expect("shared");
        assert_eq!(
            regions.iter().map(|region| region.slot).collect::<Vec<_>>(),
            ram.slots().collect::<Vec<_>>()
        );
        let mut bytes = [0; 4];
        regions[1].file.read_exact_at(&mut bytes, regions[1].offset + MIB).expect("in the file");
        assert_eq!(u32::from_le_bytes(bytes), 0x1122_3344);
    }

    #[test]
    fn a_host_range_is_within_one_region() {
        let ram = GuestRam::allocate(&[(0, MIB), (MIB, MIB)], Backing::Anonymous).expect("small memory");
        let range = ram.host_range(MIB - 4096, 4096).expect("guest memory");
        assert_eq!(Some(range.hva()), ram.host_address(MIB - 4096));
        assert!(range.contains(range.hva() + 4095) && !range.contains(range.hva() + 4096));
        assert!(ram.host_range(MIB - 4096, 8192).is_none(), "two regions");
        assert!(ram.host_range(2 * MIB, 4096).is_none(), "no memory");
        assert!(ram.host_range(2 * MIB - 4096, u64::MAX).is_none(), "too long");
    }

    #[test]
    fn memory_reads_back() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, MIB)], backing).expect("small memory");
            ram.memory().write_obj(0x1122_3344_u32, GuestAddress(0x1000)).expect("inside");
            assert_eq!(ram.memory().read_obj::<u32>(GuestAddress(0x1000)).expect("inside"), 0x1122_3344);
        }
    }

    #[test]
    fn unaligned_and_overlapping_regions_are_refused() {
        let refused =
            |regions: &[(u64, u64)], backing| GuestRam::allocate(regions, backing).expect_err("refused");
        assert!(matches!(refused(&[(0, 4097)], Backing::Anonymous), AllocateError::Unaligned { .. }));
        assert!(matches!(refused(&[(0, MIB), (0, MIB)], Backing::Anonymous), AllocateError::Layout));
        let huge = Backing::Hugetlbfs { page_size: 2 * MIB };
        assert!(matches!(refused(&[(0, MIB)], huge), AllocateError::Unaligned { page_size: 0x20_0000, .. }));
    }

    #[test]
    fn a_pool_that_is_too_small_is_an_error_with_numbers() {
        let page_size = 2 * MIB;
        let error = GuestRam::allocate(&[(0, 1 << 50)], Backing::Hugetlbfs { page_size }).expect_err("a PiB");
        match error {
            AllocateError::ShortPool { needed, free, .. } => assert!(needed == 1 << 29 && free < needed),
            // A host without huge pages at all.
            AllocateError::NoPool { pools, .. } => assert!(!pools.contains(&"2048 KiB".to_owned())),
            other => panic!("{other}"),
        }
    }
}
