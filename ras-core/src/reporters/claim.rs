//! Ownership of status blocks: each has one writer.

use alloc::vec::Vec;

use crate::record_area::{RecordArea, RecordSlot};

/// The status blocks of a record area that have no writer yet. Each can be claimed once.
#[derive(Debug, Default)]
pub struct Claims {
    slots: Vec<RecordSlot>,
}

/// The right to write one status block. It is only made from a record area that was laid out.
#[derive(Debug)]
pub struct Claim {
    slot: RecordSlot,
}

impl Claims {
    /// All blocks of the area. Create it once for each area. Without an area it is empty.
    #[must_use]
    pub fn of(area: Option<&RecordArea>) -> Self {
        Claims { slots: area.map_or(Vec::new(), |area| area.slots().collect()) }
    }

    /// Claims the block of that source. `None` if there is no such source, or its block is claimed already.
    pub fn claim(&mut self, source: u16) -> Option<Claim> {
        let index = self.slots.iter().position(|slot| slot.source.id == source)?;
        Some(Claim { slot: self.slots.swap_remove(index) })
    }
}

impl Claim {
    /// The addresses of the block, and of its cell and register.
    #[must_use]
    pub const fn slot(&self) -> &RecordSlot {
        &self.slot
    }
}
