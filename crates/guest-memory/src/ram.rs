//! The guest's RAM as one object.

use std::sync::Arc;

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

use crate::backing::{AllocateError, Backing};
use crate::ranges::{Range, Registration};

/// A run of guest memory, as a hypervisor is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Position, from 0.
    pub index: u32,
    /// First GPA.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// First HVA. Mapped for as long as the [`GuestRam`], or a clone of it, lives.
    pub hva: u64,
}

/// The guest's RAM. A clone shares the same memory. When the last one goes, its addresses are the guest's no more, also where
/// a clone of [`memory`](Self::memory) keeps it mapped.
#[derive(Clone, Debug)]
pub struct GuestRam {
    /// Goes before the memory does, so that no address of another mapping is taken for the guest's.
    _registration: Arc<Registration>,
    memory: GuestMemoryMmap,
    backing: Backing,
}

impl GuestRam {
    /// Maps memory for each run `(gpa, bytes)`: ascending, apart from one another, multiples of the page size.
    ///
    /// # Errors
    /// Where the host has no such memory, or the runs do not suit the backing.
    pub fn allocate(runs: &[(u64, u64)], backing: Backing) -> Result<Self, AllocateError> {
        let page_size = backing.page_size();
        for &(gpa, len) in runs {
            if !gpa.is_multiple_of(page_size) || !len.is_multiple_of(page_size) || len == 0 {
                return Err(AllocateError::Unaligned { gpa, len, page_size });
            }
        }
        backing.check_pool(runs.iter().map(|&(_, len)| len).sum())?;
        let mut regions = Vec::with_capacity(runs.len());
        for &(gpa, len) in runs {
            let region = GuestRegionMmap::new(backing.map(len)?, GuestAddress(gpa));
            regions.push(region.ok_or(AllocateError::Layout)?);
        }
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|_| AllocateError::Layout)?;
        let log2_page = page_size.trailing_zeros() as u8;
        let ranges = slots(&memory).map(|Slot { gpa, len, hva, .. }| Range { hva, len, gpa, log2_page });
        let registration = Registration::new(ranges).map_err(AllocateError::Register)?;
        Ok(GuestRam { _registration: Arc::new(registration), memory, backing })
    }

    /// The memory for loaders. An access to a page that the host has lost ends the process: who may meet one uses
    /// [`read`](Self::read) and [`write`](Self::write).
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// What the pages come from.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The runs of memory, ascending.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        slots(&self.memory)
    }

    /// The HVA behind a GPA; none where the guest has no RAM.
    #[must_use]
    pub fn host_address(&self, gpa: u64) -> Option<u64> {
        self.memory.get_host_address(GuestAddress(gpa)).ok().map(|pointer| pointer as u64)
    }

    /// The GPA behind an HVA; none where the address is not the guest's.
    #[must_use]
    pub fn guest_address(&self, hva: u64) -> Option<u64> {
        self.slots()
            .find(|slot| hva >= slot.hva && hva - slot.hva < slot.len)
            .map(|slot| slot.gpa + (hva - slot.hva))
    }
}

fn slots(memory: &GuestMemoryMmap) -> impl Iterator<Item = Slot> + '_ {
    memory.iter().zip(0..).filter_map(|(region, index)| {
        let hva = region.get_host_address(MemoryRegionAddress(0)).ok()? as u64;
        Some(Slot { index, gpa: region.start_addr().0, len: region.len(), hva })
    })
}

#[cfg(test)]
mod tests {
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
    fn memory_reads_back() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = GuestRam::allocate(&[(0, MIB)], backing).expect("small memory");
            ram.memory().write_obj(0x1122_3344_u32, GuestAddress(0x1000)).expect("inside");
            assert_eq!(ram.memory().read_obj::<u32>(GuestAddress(0x1000)).expect("inside"), 0x1122_3344);
        }
    }

    #[test]
    fn runs_that_do_not_suit_are_refused() {
        let refused = |runs: &[(u64, u64)], backing| GuestRam::allocate(runs, backing).expect_err("refused");
        assert!(matches!(refused(&[(0, 4097)], Backing::Anonymous), AllocateError::Unaligned { .. }));
        assert!(matches!(refused(&[(0, MIB), (0, MIB)], Backing::Anonymous), AllocateError::Layout));
        let huge = Backing::Hugetlbfs { page_size: 2 * MIB };
        assert!(matches!(refused(&[(0, MIB)], huge), AllocateError::Unaligned { page_size: 0x20_0000, .. }));
    }

    #[test]
    fn a_short_pool_is_told_with_numbers() {
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
