//! The guest physical address space.

/// A non-empty range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First GPA.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Range {
    /// From `start` up to, not including, `end`.
    ///
    /// # Panics
    /// Panics if `end` is not above `start`. Ranges come from constants and from a validated machine, never from a guest.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        assert!(end > start);
        Range { start, len: end - start }
    }

    /// The first GPA after the range. Does not overflow: guest physical addresses have at most 52 bits.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len
    }

    /// Whether the range contains `gpa`.
    #[must_use]
    pub const fn contains(self, gpa: u64) -> bool {
        gpa >= self.start && gpa - self.start < self.len
    }

    /// Whether the ranges overlap.
    #[must_use]
    pub const fn overlaps(self, other: Range) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// What an operating system may use a memory region for.
///
/// Not `#[non_exhaustive]`: every boot protocol has to map all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegionKind {
    /// Free to use (e820 type 1, EFI type 7).
    Usable,
    /// Must not be used (e820 type 2, EFI type 0).
    Reserved,
    /// Holds tables; free to use after the guest has read them (e820 type 3, EFI type 9).
    AcpiReclaim,
    /// Preserved and mapped, but not used as memory (e820 type 4, EFI type 10).
    AcpiNvs,
    /// Memory with uncorrected errors: must not be accessed (e820 type 5, EFI type 8).
    Unusable,
}

/// A part of the address space with its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its addresses.
    pub range: Range,
    /// Its use.
    pub kind: RegionKind,
}

/// RAM, the memory map that the guest gets, and the areas reserved for firmware tables and error records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    /// The ranges that are backed by memory: ascending, with gaps between them.
    pub ram: Vec<Range>,
    /// The memory map that the guest gets (e820, EFI memory map): ascending, not overlapping. May contain addresses
    /// without RAM.
    pub regions: Vec<Region>,
    /// The area for tables: inside RAM, outside every usable region.
    pub tables: Range,
    /// The area for a flattened devicetree, which boot protocols of aarch64 require. A blob is limited to its length,
    /// to the end of RAM and to the start of `records`. `None` if no devicetree is used (x86_64).
    pub devicetree: Option<Range>,
    /// The area for error records: inside RAM, a region of its own. `None` if the machine has no error sources.
    pub records: Option<Range>,
    /// The boot error region, in which a boot finds the record of the error that ended the one before: inside RAM, a region of its own.
    /// `None` if the machine has none.
    pub boot_record: Option<Range>,
    /// The error log address range of a store for error records, through which the guest passes records: inside RAM, a region of its own.
    /// `None` if the machine has none.
    pub error_log: Option<Range>,
}

/// The unit of what is reserved: a kernel with 64 KiB pages maps nothing else with it.
pub(crate) const BLOCK: u64 = 64 << 10;
/// The smallest page.
pub(crate) const PAGE: u64 = 4 << 10;
/// The most ranges of memory that are marked as unusable. Each takes two entries of a memory map, and the Linux boot protocol of x86 has 128.
const MAX_UNUSABLE: usize = 48;
/// Bytes of [`MemoryMap::boot_record`] and of [`MemoryMap::error_log`]: more than a record has.
pub const RECORD_REGION_LEN: u64 = BLOCK;

impl MemoryMap {
    /// Size of RAM in bytes.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(|range| range.len).sum()
    }

    /// The end of the largest usable region in the first range of RAM: the upper limit for what a loader places high.
    #[must_use]
    pub fn usable_end(&self) -> u64 {
        let Some(low) = self.ram.first() else { return 0 };
        let usable = self.regions.iter().filter(|region| region.kind == RegionKind::Usable);
        let ranges = usable.map(|region| region.range).filter(|range| range.overlaps(*low));
        ranges.max_by_key(|range| range.len).map_or(0, Range::end)
    }

    /// Reserves `bytes`, a multiple of [`BLOCK`], for error records.
    #[must_use]
    pub(crate) fn with_records(mut self, bytes: u64) -> Self {
        self.records = self.reserve(bytes, RegionKind::AcpiNvs);
        self
    }

    /// Reserves [`RECORD_REGION_LEN`] bytes for the boot error region. Not as ACPI NVS: Linux on x86 requests the region as a resource, and
    /// takes that kind of memory for its own.
    #[must_use]
    pub(crate) fn with_boot_record(mut self) -> Self {
        self.boot_record = self.reserve(RECORD_REGION_LEN, RegionKind::Reserved);
        self
    }

    /// Reserves [`RECORD_REGION_LEN`] bytes for the error log address range, as the boot error region.
    #[must_use]
    pub(crate) fn with_error_log(mut self) -> Self {
        self.error_log = self.reserve(RECORD_REGION_LEN, RegionKind::Reserved);
        self
    }

    /// Reserves `bytes`, a multiple of [`BLOCK`]: at the end of the usable memory in the first range of RAM. Memory above it that the
    /// alignment leaves stays usable. Reserves nothing if less than half of the region would be left.
    pub(crate) fn reserve(&mut self, bytes: u64, kind: RegionKind) -> Option<Range> {
        let end = self.usable_end();
        let index = self.regions.iter().position(|region| region.range.end() == end)?;
        let whole = self.regions[index].range;
        let start = end.saturating_sub(bytes) / BLOCK * BLOCK;
        if bytes == 0 || start < whole.start + whole.len / 2 {
            return None;
        }
        let reserved = Range { start, len: bytes };
        let usable = |start, end| {
            (start < end).then(|| Region { range: Range::between(start, end), kind: RegionKind::Usable })
        };
        let parts =
            [usable(whole.start, start), Some(Region { range: reserved, kind }), usable(reserved.end(), end)];
        self.regions.splice(index..=index, parts.into_iter().flatten());
        Some(reserved)
    }

    /// The map with these ranges, extended to whole blocks of `granule` bytes, as unusable where they were usable. If there are very many,
    /// the nearest ones are joined. Areas are reserved before, not after it: what is reserved stays where it is.
    #[must_use]
    pub(crate) fn with_unusable(mut self, ranges: &[Range], granule: u64) -> Self {
        let unusable = joined(ranges, granule);
        let mut regions = Vec::with_capacity(self.regions.len() + 2 * unusable.len());
        for region in self.regions {
            if region.kind != RegionKind::Usable {
                regions.push(region);
                continue;
            }
            let Range { mut start, .. } = region.range;
            let end = region.range.end();
            let mut push = |start, end, kind| {
                if start < end {
                    regions.push(Region { range: Range::between(start, end), kind });
                }
            };
            for range in unusable.iter().filter(|range| range.overlaps(region.range)) {
                push(start, range.start, RegionKind::Usable);
                start = range.end().min(end);
                push(range.start.max(region.range.start), start, RegionKind::Unusable);
            }
            push(start, end, RegionKind::Usable);
        }
        self.regions = regions;
        self
    }

    /// The memory that is marked as unusable.
    pub fn unusable(&self) -> impl Iterator<Item = Range> {
        let unusable = self.regions.iter().filter(|region| region.kind == RegionKind::Unusable);
        unusable.map(|region| region.range)
    }

    /// Whether all of `range` is RAM.
    #[must_use]
    pub fn is_ram(&self, range: Range) -> bool {
        self.ram.iter().any(|ram| ram.start <= range.start && range.end() <= ram.end())
    }
}

/// Ranges of whole blocks, ascending with gaps between them, [`MAX_UNUSABLE`] at most: the smallest gaps are closed.
fn joined(ranges: &[Range], granule: u64) -> Vec<Range> {
    let blocks = ranges
        .iter()
        .filter(|range| range.len > 0)
        .map(|range| Range::between(range.start / granule * granule, range.end().next_multiple_of(granule)));
    let mut blocks: Vec<Range> = blocks.collect();
    blocks.sort_unstable();
    let mut apart: Vec<Range> = Vec::with_capacity(blocks.len());
    for block in blocks {
        match apart.last_mut().filter(|last| block.start <= last.end()) {
            Some(last) => *last = Range::between(last.start, last.end().max(block.end())),
            None => apart.push(block),
        }
    }
    let mut gaps: Vec<u64> = apart.windows(2).map(|pair| pair[1].start - pair[0].end()).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let Some(largest_closed) = gaps.get(MAX_UNUSABLE - 1).copied() else { return apart };
    let mut joined: Vec<Range> = Vec::with_capacity(MAX_UNUSABLE);
    for range in apart {
        match joined.last_mut().filter(|last| range.start - last.end() <= largest_closed) {
            Some(last) => *last = Range::between(last.start, range.end()),
            None => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable_bytes(map: &MemoryMap) -> u64 {
        let usable = map.regions.iter().filter(|region| region.kind == RegionKind::Usable);
        usable.map(|region| region.range.len).sum()
    }

    #[test]
    fn unusable_memory_is_taken_from_usable_memory_only() {
        let map =
            crate::x86_64::memory_map(&crate::x86_64::Layout::REFERENCE, 6 << 30).with_records(0x3_0000);
        let records = map.records.expect("a record area");
        // The first page of a region; two that are adjacent; one in the tables, in the hole, and in the records; one whose end is the end of
        // memory; one above 4 GiB.
        let poisoned = [
            Range { start: 0x10_0000, len: PAGE },
            Range { start: 0x200_1000, len: PAGE },
            Range { start: 0x200_0000, len: PAGE },
            Range { start: 0xe_0000, len: PAGE },
            Range { start: 0xd000_0000, len: PAGE },
            Range { start: records.start, len: PAGE },
            Range { start: (7 << 30) - PAGE, len: PAGE },
            Range { start: 5 << 30, len: 2 << 20 },
        ];
        let marked = map.clone().with_unusable(&poisoned, PAGE);
        let unusable: Vec<_> = marked.unusable().map(|range| (range.start, range.len)).collect();
        assert_eq!(
            unusable,
            [(0x10_0000, PAGE), (0x200_0000, 2 * PAGE), (5 << 30, 2 << 20), ((7 << 30) - PAGE, PAGE)]
        );
        let lost: u64 = unusable.iter().map(|(_, len)| len).sum();
        assert_eq!(usable_bytes(&marked), usable_bytes(&map) - lost);
        assert!(marked.regions.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start));
        assert_eq!((marked.records, &marked.ram), (map.records, &map.ram));
        assert_eq!(map.clone().with_unusable(&[], PAGE), map);
    }

    #[test]
    fn unusable_memory_is_whole_blocks() {
        let map = crate::aarch64::memory_map(&crate::aarch64::Layout::REFERENCE, 1 << 30);
        let poisoned = [Range { start: 0x5000_f000, len: PAGE }, Range { start: 0x5003_0000, len: 1 }];
        let marked = map.with_unusable(&poisoned, BLOCK);
        let blocks = [0x5000_0000, 0x5003_0000].map(|start| Range { start, len: BLOCK });
        assert!(marked.unusable().eq(blocks));
    }

    #[test]
    fn the_nearest_of_very_many_ranges_are_joined() {
        let map = crate::x86_64::memory_map(&crate::x86_64::Layout::REFERENCE, 3 << 30);
        // Pairs of pages, with a page between the two.
        let poisoned: Vec<_> = (1..2000_u64)
            .flat_map(|pair| [pair << 20, (pair << 20) + 2 * PAGE].map(|start| Range { start, len: PAGE }))
            .collect();
        let marked = map.clone().with_unusable(&poisoned, PAGE);
        assert!(marked.regions.len() <= 128, "{} regions", marked.regions.len());
        for range in &poisoned {
            assert!(marked.unusable().any(|it| it.contains(range.start)), "{range:x?}");
        }
        let few: Vec<_> = poisoned.iter().take(2 * MAX_UNUSABLE).copied().collect();
        let marked = map.with_unusable(&few, PAGE);
        assert_eq!(marked.unusable().count(), MAX_UNUSABLE);
        assert!(marked.unusable().all(|range| range.len == 3 * PAGE));
    }

    #[test]
    fn records_are_at_the_end_of_the_first_range_of_ram() {
        for size in [64 << 20, (64 << 20) + 0x3000, 6 << 30] {
            for map in [
                crate::x86_64::memory_map(&crate::x86_64::Layout::REFERENCE, size),
                crate::aarch64::memory_map(&crate::aarch64::Layout::REFERENCE, size),
            ] {
                let (before, bytes) = (map.usable_end(), 0x2_0000);
                let map = map.with_records(bytes);
                let records = map.records.expect("a record area");
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
    fn the_boot_error_region_is_beside_the_records() {
        let map = crate::x86_64::memory_map(&crate::x86_64::Layout::REFERENCE, 64 << 20);
        let map = map.with_records(0x3_0000).with_boot_record();
        let (records, boot_record) = (map.records.expect("records"), map.boot_record.expect("a region"));
        assert_eq!((boot_record.end(), map.usable_end()), (records.start, boot_record.start));
        let kinds = map.regions.iter().filter(|region| region.range.overlaps(boot_record));
        assert_eq!(kinds.map(|region| region.kind).collect::<Vec<_>>(), [RegionKind::Reserved]);
    }

    #[test]
    fn areas_are_reserved_one_below_the_other() {
        let map = crate::aarch64::memory_map(&crate::aarch64::Layout::REFERENCE, 1 << 30);
        let mut map = map.with_records(2 * BLOCK);
        let first = map.reserve(BLOCK, RegionKind::Reserved);
        let (records, first) = (map.records.expect("a record area"), first.expect("an area"));
        assert_eq!((first.end(), first.len, map.usable_end()), (records.start, BLOCK, first.start));
        assert!(map.regions.contains(&Region { range: first, kind: RegionKind::Reserved }));
    }

    #[test]
    fn a_machine_with_too_little_memory_has_no_record_area() {
        let map = crate::x86_64::memory_map(&crate::x86_64::Layout::REFERENCE, 2 << 20);
        assert_eq!(map.with_records(1 << 20).records, None);
    }
}
