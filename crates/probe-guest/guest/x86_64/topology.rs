//! Processors and interrupt controllers, as the tables list them.

use crate::failure::Failure;

/// Maximum number of processors.
pub(crate) const MAX_PROCESSORS: usize = 1024;
const MAX_IO_APICS: usize = 4;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IoApic {
    pub(crate) base: u32,
    pub(crate) gsi_base: u32,
}

pub(crate) struct Topology {
    apic_ids: [u32; MAX_PROCESSORS],
    processors: usize,
    io_apics: [IoApic; MAX_IO_APICS],
    io_apic_count: usize,
    pub(crate) local_apic: u64,
}

impl Topology {
    /// An empty topology with local APIC registers at `local_apic`.
    pub(crate) const fn new(local_apic: u64) -> Self {
        Topology {
            apic_ids: [0; MAX_PROCESSORS],
            processors: 0,
            io_apics: [IoApic { base: 0, gsi_base: 0 }; MAX_IO_APICS],
            io_apic_count: 0,
            local_apic,
        }
    }

    pub(crate) fn add_processor(&mut self, apic_id: u32) -> Result<(), Failure> {
        let slot = self
            .apic_ids
            .get_mut(self.processors)
            .ok_or(Failure::new("the tables list over 1024 processors"))?;
        *slot = apic_id;
        self.processors += 1;
        Ok(())
    }

    pub(crate) fn add_io_apic(&mut self, io_apic: IoApic) -> Result<(), Failure> {
        let slot = self
            .io_apics
            .get_mut(self.io_apic_count)
            .ok_or(Failure::new("the tables list over four I/O APICs"))?;
        *slot = io_apic;
        self.io_apic_count += 1;
        Ok(())
    }

    /// APIC ids in table order.
    pub(crate) fn apic_ids(&self) -> &[u32] {
        self.apic_ids.get(..self.processors).unwrap_or_default()
    }

    pub(crate) fn io_apics(&self) -> impl Iterator<Item = &IoApic> {
        self.io_apics.iter().take(self.io_apic_count)
    }

    /// Whether an id does not fit the eight bits of an xAPIC (255 is the broadcast id).
    pub(crate) fn needs_x2apic(&self) -> bool {
        self.apic_ids().iter().any(|id| *id > 254)
    }
}
