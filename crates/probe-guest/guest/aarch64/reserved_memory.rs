//! Reserved memory of a devicetree, and the error sources that refer to it: `arm,ras-cper` (Linux,
//! bindings/reserved-memory and bindings/firmware/arm,ras-cper.yaml).

use super::fdt::Cell;
use super::topology::Window;
use crate::dsdt::Interrupt;
use crate::failure::Failure;
use crate::memory_map::{Kind, MemoryMap};
use crate::wire::{Field, read_at};

const MAX_REGIONS: usize = 96;
const MAX_SOURCES: usize = 8;

/// Reserved memory and error sources.
pub(crate) struct ReservedMemory {
    regions: [Region; MAX_REGIONS],
    regions_count: usize,
    sources: [Listed; MAX_SOURCES],
    sources_count: usize,
}

#[derive(Clone, Copy)]
struct Region {
    /// 0 if nothing refers to it.
    phandle: u32,
    window: Window,
    kind: Kind,
}

#[derive(Clone, Copy)]
struct Listed {
    /// Phandles of regions.
    block: u32,
    register: u32,
    interrupt: Interrupt,
}

/// An error source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorSource {
    /// Address range of its records.
    pub(crate) block: Window,
    /// The acknowledge register: four or eight bytes.
    pub(crate) register: Window,
    pub(crate) interrupt: Interrupt,
}

impl ReservedMemory {
    pub(crate) const fn new() -> Self {
        const NOWHERE: Region =
            Region { phandle: 0, window: Window { start: 0, end: 0 }, kind: Kind::AcpiNvs };
        const NONE: Interrupt = Interrupt { gsi: 0, level: false, active_low: false };
        ReservedMemory {
            regions: [NOWHERE; MAX_REGIONS],
            regions_count: 0,
            sources: [Listed { block: 0, register: 0, interrupt: NONE }; MAX_SOURCES],
            sources_count: 0,
        }
    }

    /// Adds a region: firmware data, or memory with errors.
    pub(crate) fn add_region(&mut self, phandle: u32, window: Window, kind: Kind) -> Result<(), Failure> {
        let too_many = Failure::with("devicetree: more reserved memory regions than", MAX_REGIONS as u64);
        *self.regions.get_mut(self.regions_count).ok_or(too_many)? = Region { phandle, window, kind };
        self.regions_count += 1;
        Ok(())
    }

    /// Adds a source by its `memory-region` and its interrupt.
    pub(crate) fn add_source(&mut self, regions: &[u8], interrupt: Option<Interrupt>) -> Result<(), Failure> {
        let phandle = |index: usize| read_at::<Cell>(regions, index * Cell::SIZE).map(|cell| cell.0);
        let broken = Failure::new("devicetree: arm,ras-cper without two regions and an interrupt");
        let (Some(block), Some(register), Some(interrupt)) = (phandle(0), phandle(1), interrupt) else {
            return Err(broken);
        };
        let too_many = Failure::with("devicetree: more error sources than", MAX_SOURCES as u64);
        let slot = self.sources.get_mut(self.sources_count).ok_or(too_many)?;
        *slot = Listed { block, register, interrupt };
        self.sources_count += 1;
        Ok(())
    }

    /// The sources, in devicetree order.
    pub(crate) fn error_sources(&self) -> impl Iterator<Item = Result<ErrorSource, Failure>> {
        self.sources.iter().take(self.sources_count).map(|listed| {
            let Listed { block, register, interrupt } = *listed;
            let register = self.region(register)?;
            let len = register.end - register.start;
            if !matches!(len, 4 | 8) || !register.start.is_multiple_of(len) {
                return Err(Failure::with("devicetree: invalid acknowledge register at", register.start));
            }
            Ok(ErrorSource { block: self.region(block)?, register, interrupt })
        })
    }

    fn region(&self, phandle: u32) -> Result<Window, Failure> {
        let mut regions = self.regions.iter().take(self.regions_count);
        regions
            .find(|region| phandle != 0 && region.phandle == phandle)
            .map(|region| region.window)
            .ok_or(Failure::with("devicetree: no reserved memory with the phandle", u64::from(phandle)))
    }

    /// The memory map with the regions marked. Adjacent regions of one kind are merged.
    pub(crate) fn reserve_in(&self, memory: MemoryMap) -> Result<MemoryMap, Failure> {
        let mut regions = self.regions.iter().take(self.regions_count).peekable();
        let mut memory = memory;
        while let Some(Region { mut window, kind, .. }) = regions.next().copied() {
            while let Some(next) =
                regions.next_if(|next| next.window.start == window.end && next.kind == kind)
            {
                window.end = next.window.end;
            }
            memory = cut(&memory, window, kind)?;
        }
        Ok(memory)
    }
}

fn cut(memory: &MemoryMap, window: Window, kind: Kind) -> Result<MemoryMap, Failure> {
    let mut map = MemoryMap::new();
    for region in memory.iter() {
        let (start, end) = (region.start.max(window.start), region.end.min(window.end));
        if region.kind == Kind::Usable && start < end {
            map.push(region.start, start - region.start, Kind::Usable)?;
            map.push(start, end - start, kind)?;
            map.push(end, region.end - end, Kind::Usable)?;
        } else {
            map.push(region.start, region.end - region.start, region.kind)?;
        }
    }
    Ok(map)
}
