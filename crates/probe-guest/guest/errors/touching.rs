//! `probe.touch`, `probe.store`, `probe.fetch`: uses a word of memory, as a program would, until it is told better.

use core::ops::Range;

use super::accessor::Target;
use super::{lost, records};
use crate::arch;
use crate::cmdline::Touch;
use crate::failure::Failure;
use crate::format::Hex;
use crate::hest::Notification;
use crate::memory_map::{Kind, MemoryMap};
use crate::report::say;

/// Refuses a word that is not memory, or that the guest needs itself.
pub(super) fn check(touch: &Touch, memory: &MemoryMap, in_use: &Range<u64>) -> Result<(), Failure> {
    let gpa = touch.gpa;
    let refused = Failure::with("not memory to be touched:", gpa);
    let end = gpa.checked_add(size_of::<u64>() as u64).ok_or(refused)?;
    let is_memory = memory.iter().any(|region| region.kind != Kind::Reserved && region.holds(gpa, end));
    if !is_memory || !gpa.is_multiple_of(8) || (gpa < in_use.end && in_use.start < end) {
        return Err(refused);
    }
    Ok(())
}

/// Touches a word that was checked.
pub(super) fn run(touch: &Touch, patience: u32) {
    let gpa = Hex(touch.gpa);
    say!("touching ", gpa);
    // SAFETY: `check` looked at the address: memory, mapped as all that is not reserved, and not the guest's own.
    let target = unsafe { Target::new(touch.access, touch.gpa) };
    let mut is_told = lost::has(touch.gpa) || !target.prepare();
    if !is_told {
        arch::wait_for(patience, || {
            records::look(|notification| notification == Notification::Polled);
            // The last look before the access: what it told must not be touched.
            is_told = lost::has(touch.gpa) || !target.touch() || lost::has(touch.gpa);
            is_told
        });
    }
    drop(target);
    if is_told {
        say!("error offlined ", gpa);
    } else {
        say!("touched ", gpa, " fine");
    }
}
