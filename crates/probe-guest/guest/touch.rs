//! Checks that memory is where the memory map says.

use core::ops::Range;
use core::ptr;

use crate::failure::Failure;
use crate::frames::FRAME;
use crate::memory_map::MemoryMap;

/// End of base memory and of the firmware's areas, which may contain data of others.
const EXTENDED_MEMORY: u64 = 1 << 20;

/// Writes and reads back the first and the last 4 KiB of every usable region above 1 MiB, without what is in use.
pub(crate) fn touch(memory: &MemoryMap, in_use: &Range<u64>) -> Result<(), Failure> {
    for region in memory.usable() {
        let start = region.start.max(EXTENDED_MEMORY);
        // The range in use (the image and what follows it) is at the start of a region or splits it in two.
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
        // Different for each word, so that an alias is detected.
        let pattern = address ^ 0xa5a5_5a5a_c3c3_3c3c;
        // SAFETY: usable memory, mapped, not in use by this guest, and restored.
        let read_back = unsafe {
            let before = ptr::read_volatile(word);
            ptr::write_volatile(word, pattern);
            let read_back = ptr::read_volatile(word);
            ptr::write_volatile(word, before);
            read_back
        };
        if read_back != pattern {
            return Err(Failure::with("memory does not keep what is written at", address));
        }
    }
    Ok(())
}
