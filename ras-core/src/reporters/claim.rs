//! Who owns a status block.

use alloc::vec::Vec;

use crate::record_area::{RecordArea, Slot};

/// The status blocks of a record area that nobody owns yet. Each can be claimed once: a block has one writer.
#[derive(Debug, Default)]
pub struct Claims {
    slots: Vec<Slot>,
}

/// A status block, and the right to write it. It only comes from a record area that was laid out.
#[derive(Debug)]
pub struct Claim {
    slot: Slot,
}

impl Claims {
    /// All blocks of the area; make it once for each area. Without an area there is nothing to claim.
    #[must_use]
    pub fn of(area: Option<&RecordArea>) -> Self {
        Claims { slots: area.map_or(Vec::new(), |area| area.slots().collect()) }
    }

    /// Claims the block of that source; none where there is no such source, or its block is taken.
    pub fn claim(&mut self, source: u16) -> Option<Claim> {
        let index = self.slots.iter().position(|slot| slot.source.id == source)?;
        Some(Claim { slot: self.slots.swap_remove(index) })
    }
}

impl Claim {
    /// Where it is.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }
}
