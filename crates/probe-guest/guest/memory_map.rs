//! The memory map of the boot protocol.

use crate::failure::Failure;

/// Maximum number of regions in a Linux boot protocol (E820_MAX_ENTRIES_ZEROPAGE).
const MAX_REGIONS: usize = 128;

/// Use of memory: the types of e820 (ACPI 6.5, 15, table 15.2), which PVH shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Usable,
    Reserved,
    AcpiReclaim,
    AcpiNvs,
    /// Errors were detected in it.
    Unusable,
}

impl Kind {
    /// Unknown types are reserved.
    pub(crate) fn from_e820(code: u32) -> Self {
        match code {
            1 => Kind::Usable,
            3 => Kind::AcpiReclaim,
            4 => Kind::AcpiNvs,
            5 => Kind::Unusable,
            _ => Kind::Reserved,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Usable => "usable",
            Kind::Reserved => "reserved",
            Kind::AcpiReclaim => "acpi",
            Kind::AcpiNvs => "nvs",
            Kind::Unusable => "unusable",
        }
    }
}

/// From `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: Kind,
}

impl Region {
    pub(crate) fn holds(&self, start: u64, end: u64) -> bool {
        self.start <= start && start <= end && end <= self.end
    }
}

/// The regions in the order of the boot protocol.
pub(crate) struct MemoryMap {
    regions: [Region; MAX_REGIONS],
    count: usize,
}

impl MemoryMap {
    pub(crate) const fn new() -> Self {
        MemoryMap { regions: [Region { start: 0, end: 0, kind: Kind::Reserved }; MAX_REGIONS], count: 0 }
    }

    /// Adds a region of `len` bytes; an empty one is skipped.
    pub(crate) fn push(&mut self, start: u64, len: u64, kind: Kind) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        let end = start.checked_add(len).ok_or(Failure::with("memory region wraps around at", start))?;
        let slot = self.regions.get_mut(self.count).ok_or(Failure::new("memory map has over 128 regions"))?;
        *slot = Region { start, end, kind };
        self.count += 1;
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().take(self.count)
    }

    pub(crate) fn usable(&self) -> impl Iterator<Item = &Region> {
        self.iter().filter(|region| region.kind == Kind::Usable)
    }

    /// Bytes of usable memory.
    pub(crate) fn total_usable(&self) -> u64 {
        self.usable().map(|region| region.end - region.start).fold(0, u64::saturating_add)
    }

    /// Whether one region, of any kind, contains all of the bytes.
    pub(crate) fn knows(&self, start: u64, end: u64) -> bool {
        self.iter().any(|region| region.holds(start, end))
    }
}
