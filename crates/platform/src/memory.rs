//! The guest physical address space.

/// A run of guest physical addresses, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First GPA.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl Range {
    /// From `start` up to, not including, `end`.
    ///
    /// # Panics
    /// Where `end` is not above `start`: ranges come from constants and from a validated machine, never from a guest.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        assert!(end > start);
        Range { start, len: end - start }
    }

    /// The GPA after the last. Never wraps: guest physical addresses have 52 bits at most.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// Whether `gpa` lies in the range.
    #[must_use]
    pub const fn contains(self, gpa: u64) -> bool {
        gpa >= self.start && gpa - self.start < self.len
    }

    /// Whether both ranges share an address.
    #[must_use]
    pub const fn overlaps(self, other: Range) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// What an operating system may do with a part of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionKind {
    /// Free to use.
    Usable,
    /// Never to be used, for ever.
    Reserved,
    /// Holds tables; free once they were read (e820 type 3, EFI type 9).
    AcpiReclaim,
    /// To be kept and mapped, never used as memory (e820 type 4, EFI type 10).
    AcpiNvs,
}

/// A part of the address space and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where.
    pub range: Range,
    /// What for.
    pub kind: RegionKind,
}

/// Where RAM is, and what of it the guest is told to leave alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    /// The runs of GPA that are backed by memory, ascending and apart from one another.
    pub ram: Vec<Range>,
    /// What the guest is told (e820, EFI memory map): ascending, not overlapping; may also name addresses without RAM.
    pub regions: Vec<Region>,
    /// Where tables go: inside RAM, in no usable region.
    pub tables: Range,
    /// Where error records go: inside RAM, a region of its own; none where the machine has no error sources.
    pub records: Option<Range>,
}

impl MemoryMap {
    /// Bytes of RAM.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(|range| range.len).sum()
    }

    /// The end of the largest usable region in the first run of RAM: what a loader puts as high as it can go ends there.
    #[must_use]
    pub fn usable_end(&self) -> u64 {
        let Some(low) = self.ram.first() else { return 0 };
        let usable = self.regions.iter().filter(|region| region.kind == RegionKind::Usable);
        let ranges = usable.map(|region| region.range).filter(|range| range.overlaps(*low));
        ranges.max_by_key(|range| range.len).map_or(0, Range::end)
    }

    /// Sets `bytes`, a multiple of 64 KiB, apart for error records: at the end of the first run of RAM, aligned to
    /// 64 KiB, so that a kernel with pages of that size maps nothing else with them. What alignment leaves behind it
    /// stays usable. Nothing is set apart where less than half of the region would be left.
    #[must_use]
    pub(crate) fn with_records(mut self, bytes: u64) -> Self {
        let end = self.usable_end();
        let Some(index) = self.regions.iter().position(|region| region.range.end() == end) else {
            return self;
        };
        let whole = self.regions[index].range;
        let start = end.saturating_sub(bytes) & !0xffff;
        if bytes == 0 || start < whole.start + whole.len / 2 {
            return self;
        }
        let records = Range { start, len: bytes };
        let usable = |start, end| {
            (start < end).then(|| Region { range: Range::between(start, end), kind: RegionKind::Usable })
        };
        let parts = [
            usable(whole.start, start),
            Some(Region { range: records, kind: RegionKind::AcpiNvs }),
            usable(records.end(), end),
        ];
        self.regions.splice(index..=index, parts.into_iter().flatten());
        self.records = Some(records);
        self
    }

    /// Whether all of `range` is RAM.
    #[must_use]
    pub fn is_ram(&self, range: Range) -> bool {
        self.ram.iter().any(|ram| ram.start <= range.start && range.end() <= ram.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_take_the_end_of_the_first_run() {
        for size in [64 << 20, (64 << 20) + 0x3000, 6 << 30] {
            for map in [crate::x86_64::memory_map(size), crate::aarch64::memory_map(size)] {
                let (before, bytes) = (map.usable_end(), 0x2_0000);
                let map = map.with_records(bytes);
                let records = map.records.expect("room");
                assert_eq!((records.start % 0x1_0000, records.len), (0, bytes));
                assert!(map.is_ram(records) && before - records.end() < 0x1_0000);
                assert_eq!(map.usable_end(), records.start);
                assert!(map.regions.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start));
                let kinds = map.regions.iter().filter(|region| region.range.overlaps(records));
                assert_eq!(kinds.map(|region| region.kind).collect::<Vec<_>>(), [RegionKind::AcpiNvs]);
            }
        }
    }

    #[test]
    fn a_machine_too_small_for_records_has_none() {
        assert_eq!(crate::x86_64::memory_map(2 << 20).with_records(1 << 20).records, None);
    }
}
