//! Which of the listed processors this code runs on.

use core::sync::atomic::{AtomicU32, Ordering};

use super::local_apic;
use super::topology::MAX_PROCESSORS;

/// APIC ids in table order.
static APIC_IDS: [AtomicU32; MAX_PROCESSORS] = [const { AtomicU32::new(0) }; MAX_PROCESSORS];
static LISTED: AtomicU32 = AtomicU32::new(0);

/// Registers the APIC ids of all processors, in table order.
pub(crate) fn set(ids: &[u32]) {
    for (slot, id) in APIC_IDS.iter().zip(ids) {
        slot.store(*id, Ordering::Relaxed);
    }
    LISTED.store(ids.len() as u32, Ordering::Release);
}

/// Index of the processor that runs this, in table order; 0 before [`set`].
pub(crate) fn own_index() -> u32 {
    if LISTED.load(Ordering::Acquire) == 0 { 0 } else { index_of(local_apic::id()).unwrap_or(0) }
}

/// Index of the processor with an APIC id. `None` if it is not listed.
pub(crate) fn index_of(id: u32) -> Option<u32> {
    let listed = LISTED.load(Ordering::Acquire) as usize;
    let index = APIC_IDS.iter().take(listed).position(|slot| slot.load(Ordering::Relaxed) == id)?;
    Some(index as u32)
}

/// APIC id of the processor at an index. `None` if there is none.
pub(crate) fn apic_id(index: u32) -> Option<u32> {
    let is_listed = index < LISTED.load(Ordering::Acquire);
    APIC_IDS.get(index as usize).filter(|_| is_listed).map(|id| id.load(Ordering::Relaxed))
}
