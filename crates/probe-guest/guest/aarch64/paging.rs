//! Page tables: an identity map of memory and devices (Arm ARM, D8.3, 4 KiB granule).
//!
//! The tables of `entry.s` map everything below 512 GiB. These tables map only existing memory and devices. The two use different
//! ASIDs, so that switching between them cannot create conflicting TLB entries.

use core::sync::atomic::{AtomicU64, Ordering};

use super::DEVICES_END;
use super::cpu::{self, write_register};
use crate::failure::Failure;
use crate::frames::{FRAME, Frames};
use crate::memory_map::{Kind, MemoryMap, Region};

const LARGE: u64 = 2 << 20;
const GIANT: u64 = 1 << 30;
/// Bytes mapped by an entry of the highest level.
const TOP_SPAN: u64 = 512 << 30;
/// Maximum end of an identity map with four levels.
const MAX_END: u64 = 256 << 40;
/// The range that the tables of `entry.s` map as memory.
pub(crate) const BOOT_MEMORY: core::ops::Range<u64> = DEVICES_END..TOP_SPAN;

/// Valid, a table.
const TABLE: u64 = 0x3;
/// Valid, a block; accessed, inner shareable, not global.
const BLOCK: u64 = 1 << 11 | 1 << 10 | 3 << 8 | 0x1;
/// Attributes 1 of MAIR_EL1: normal memory, write-back.
const NORMAL: u64 = BLOCK | 1 << 2;
/// Attributes 0 of MAIR_EL1: Device-nGnRE; never executed.
const DEVICE: u64 = BLOCK | 1 << 54 | 1 << 53;
/// The ASID field of TTBR0_EL1.
const ADDRESS_SPACE: u64 = 1 << 48;

/// The value for TTBR0_EL1.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// End of the mapped range: of all memory that is not reserved.
pub(crate) fn mapped_end(memory: &MemoryMap) -> u64 {
    memory_of(memory).map(|region| region.end).fold(DEVICES_END, u64::max)
}

fn memory_of(memory: &MemoryMap) -> impl Iterator<Item = &Region> {
    memory.iter().filter(|region| region.kind != Kind::Reserved)
}

/// Builds the tables and switches to them.
pub(crate) fn map_all(memory: &MemoryMap, frames: &mut Frames) -> Result<(), Failure> {
    let end = mapped_end(memory);
    if end > MAX_END {
        return Err(Failure::with("memory beyond 256 TiB ends at", end));
    }
    if let Some(region) = memory_of(memory).find(|region| region.start < DEVICES_END) {
        return Err(Failure::with("memory in the range of devices at", region.start));
    }
    let top = Table(frames.allocate(1)?);
    for top_base in (0..end).step_by(TOP_SPAN as usize) {
        let giants = Table(frames.allocate(1)?);
        top.set(top_base / TOP_SPAN, giants.0 | TABLE);
        for base in (top_base..end.min(top_base + TOP_SPAN)).step_by(GIANT as usize) {
            let touches = |region: &&Region| region.start < base + GIANT && base < region.end;
            let entry = if base < DEVICES_END {
                base | DEVICE
            } else if memory_of(memory).any(|region| region.holds(base, base + GIANT)) {
                base | NORMAL
            } else if memory_of(memory).any(|region| touches(&region)) {
                directory(base, memory, frames)? | TABLE
            } else {
                0
            };
            giants.set(base / GIANT, entry);
        }
    }
    ROOT.store(top.0 | ADDRESS_SPACE, Ordering::Release);
    cpu::publish();
    switch();
    Ok(())
}

/// Switches the processor that runs this to the tables of `map_all`.
pub(crate) fn switch() {
    // SAFETY: all memory in use keeps its mapping and attributes.
    unsafe { write_register!("ttbr0_el1", ROOT.load(Ordering::Acquire)) };
}

/// The table of blocks for the GiB at `base`. Blocks without memory are not mapped.
fn directory(base: u64, memory: &MemoryMap, frames: &mut Frames) -> Result<u64, Failure> {
    let directory = Table(frames.allocate(1)?);
    for block in (base..base + GIANT).step_by(LARGE as usize) {
        if memory_of(memory).any(|region| region.start < block + LARGE && block < region.end) {
            directory.set(block / LARGE, block | NORMAL);
        }
    }
    Ok(directory.0)
}

/// A page table at a physical address.
struct Table(u64);

impl Table {
    /// Sets an entry. `number` is counted across tables, modulo the entries of a table.
    fn set(&self, number: u64, entry: u64) {
        let index = number % (FRAME / size_of::<u64>() as u64);
        let slot = (self.0 as *mut u64).wrapping_add(index as usize);
        // SAFETY: within a frame that was allocated for this table and is mapped.
        unsafe { slot.write_volatile(entry) };
    }
}
