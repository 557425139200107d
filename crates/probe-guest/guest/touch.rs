//! Whether memory is where the map says.

use core::ops::Range;
use core::ptr;

use crate::failure::Failure;
use crate::frames::FRAME;
use crate::memory_map::MemoryMap;

/// Where base memory and the firmware's areas end: below, others' data may lie.
const EXTENDED_MEMORY: u64 = 1 << 20;

/// Writes and reads back the first and the last 4 KiB of every usable region above 1 MiB, without what is in use.
pub(crate) fn touch(memory: &MemoryMap, in_use: &Range<u64>) -> Result<(), Failure> {
    for region in memory.usable() {
        let start = region.start.max(EXTENDED_MEMORY);
        // What is in use lies at the start of a region (the image and what follows it), or splits it in two.
        touch_ends(start, region.end.min(in_use.start.max(start)))?;
        touch_ends(start.max(in_use.end.min(region.end)), region.end)?;
    }
    Ok(())
}

fn touch_ends(start: u64, end: u64) -> Result<(), Failure> {
    let first = start.next_multiple_of(FRAME);
    let Some(last) = (end & !(FRAME - 1)).checked_sub(FRAME).filter(|last| *last >= first) else {
        return Ok(());
    };
    touch_frame(first)?;
    if last != first {
        touch_frame(last)?;
    }
    Ok(())
}

fn touch_frame(frame: u64) -> Result<(), Failure> {
    for address in (frame..frame + FRAME).step_by(size_of::<u64>()) {
        let word = address as *mut u64;
        // Differs from word to word and from frame to frame, so that an alias shows.
        let pattern = address ^ 0xa5a5_5a5a_c3c3_3c3c;
        // SAFETY: usable memory, mapped, outside of what this guest uses, and put back as it was.
        let found = unsafe {
            let before = ptr::read_volatile(word);
            ptr::write_volatile(word, pattern);
            let found = ptr::read_volatile(word);
            ptr::write_volatile(word, before);
            found
        };
        if found != pattern {
            return Err(Failure::with("memory does not keep what is written at", address));
        }
    }
    Ok(())
}
