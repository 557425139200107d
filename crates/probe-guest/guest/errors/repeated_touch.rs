//! `probe.touch`, `probe.store`, `probe.fetch`: accesses a word of memory repeatedly, until its page is reported as poisoned or the
//! timeout expires.

use core::ops::Range;

use super::accessor::Target;
use super::{poisoned, records};
use crate::arch;
use crate::cmdline::Touch;
use crate::failure::Failure;
use crate::format::Hex;
use crate::hest::Notification;
use crate::memory_map::{Kind, MemoryMap};
use crate::report::say;

/// Rejects a word that is not memory, or that the guest needs itself.
pub(super) fn check(touch: &Touch, memory: &MemoryMap, in_use: &Range<u64>) -> Result<(), Failure> {
    let gpa = touch.gpa;
    let rejected = Failure::with("not memory to be touched:", gpa);
    let end = gpa.checked_add(size_of::<u64>() as u64).ok_or(rejected)?;
    let is_memory = memory.iter().any(|region| region.kind != Kind::Reserved && region.holds(gpa, end));
    if !is_memory || !gpa.is_multiple_of(8) || (gpa < in_use.end && in_use.start < end) {
        return Err(rejected);
    }
    Ok(())
}

/// Touches a word that was checked.
pub(super) fn run(touch: &Touch, timeout_ms: u32) {
    let gpa = Hex(touch.gpa);
    say!("touching ", gpa);
    // SAFETY: `check` validated the address: memory, mapped as all that is not reserved, and not the guest's own.
    let target = unsafe { Target::new(touch.access, touch.gpa) };
    let mut is_poisoned = poisoned::contains(touch.gpa) || !target.prepare();
    if !is_poisoned {
        arch::wait_for(timeout_ms, || {
            records::process(|notification| notification == Notification::Polled);
            // Checked last before the access, which must not be made if one of these records reports the page.
            is_poisoned = poisoned::contains(touch.gpa) || !target.touch() || poisoned::contains(touch.gpa);
            is_poisoned
        });
    }
    drop(target);
    if is_poisoned {
        say!("error offlined ", gpa);
    } else {
        say!("touched ", gpa, " fine");
    }
}
