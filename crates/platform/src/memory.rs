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
}

impl MemoryMap {
    /// Bytes of RAM.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(|range| range.len).sum()
    }

    /// Whether all of `range` is RAM.
    #[must_use]
    pub fn is_ram(&self, range: Range) -> bool {
        self.ram.iter().any(|ram| ram.start <= range.start && range.end() <= ram.end())
    }
}
