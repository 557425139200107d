//! The INTIDs that the guest uses.

use core::sync::atomic::{AtomicU32, Ordering};

/// Use of an interrupt.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Timer,
    Serial,
    EventDevice,
}

const PURPOSES: [Purpose; 3] = [Purpose::Timer, Purpose::Serial, Purpose::EventDevice];

/// The INTID of each purpose; 0 if not assigned.
static INTIDS: [AtomicU32; PURPOSES.len()] = [const { AtomicU32::new(0) }; PURPOSES.len()];

/// Assigns an INTID to a purpose.
pub(crate) fn assign(purpose: Purpose, intid: u32) {
    if let Some(slot) = INTIDS.get(purpose as usize) {
        slot.store(intid, Ordering::Relaxed);
    }
}

/// The purpose of an INTID. `None` if it has none.
pub(crate) fn purpose_of(intid: u32) -> Option<Purpose> {
    let is_it = |slot: &AtomicU32| slot.load(Ordering::Relaxed) == intid;
    PURPOSES.into_iter().zip(&INTIDS).find_map(|(purpose, slot)| is_it(slot).then_some(purpose))
}
