//! Processors and interrupt controllers, as the tables list them.

use crate::failure::Failure;

/// Maximum number of processors.
pub(crate) const MAX_PROCESSORS: usize = 1024;
const MAX_REDISTRIBUTOR_REGIONS: usize = 8;

/// A range of addresses; the end is exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The CPU interface of the GIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    /// Unknown so far.
    Missing,
    /// GICv2: registers in memory, at the same address for each processor.
    Memory(u64),
    /// GICv3: system registers, and a redistributor in one of the regions.
    SystemRegisters,
}

#[derive(Clone)]
pub(crate) struct Topology {
    mpidrs: [u64; MAX_PROCESSORS],
    processors: usize,
    redistributors: [Window; MAX_REDISTRIBUTOR_REGIONS],
    redistributor_count: usize,
    /// The GIC's distributor; 0 if unknown.
    pub(crate) distributor: u64,
    pub(crate) interface: Interface,
}

impl Topology {
    pub(crate) const fn new() -> Self {
        Topology {
            mpidrs: [0; MAX_PROCESSORS],
            processors: 0,
            redistributors: [Window { start: 0, end: 0 }; MAX_REDISTRIBUTOR_REGIONS],
            redistributor_count: 0,
            distributor: 0,
            interface: Interface::Missing,
        }
    }

    pub(crate) fn add_processor(&mut self, mpidr: u64) -> Result<(), Failure> {
        let slot = self
            .mpidrs
            .get_mut(self.processors)
            .ok_or(Failure::new("the tables list over 1024 processors"))?;
        *slot = mpidr;
        self.processors += 1;
        Ok(())
    }

    /// Adds a region of contiguous redistributors. It is merged with the last region if it is adjacent to it.
    pub(crate) fn add_redistributors(&mut self, window: Window) -> Result<(), Failure> {
        self.interface = Interface::SystemRegisters;
        let last = self.redistributor_count.checked_sub(1).and_then(|last| self.redistributors.get_mut(last));
        if let Some(last) = last.filter(|last| last.end == window.start) {
            last.end = window.end;
            return Ok(());
        }
        let slot = self
            .redistributors
            .get_mut(self.redistributor_count)
            .ok_or(Failure::new("the tables list over eight regions of redistributors"))?;
        *slot = window;
        self.redistributor_count += 1;
        Ok(())
    }

    /// MPIDR affinities in table order.
    pub(crate) fn mpidrs(&self) -> &[u64] {
        self.mpidrs.get(..self.processors).unwrap_or_default()
    }

    pub(crate) fn redistributors(&self) -> impl Iterator<Item = &Window> {
        self.redistributors.iter().take(self.redistributor_count)
    }
}
