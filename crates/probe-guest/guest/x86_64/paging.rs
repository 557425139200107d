//! Page tables: an identity map of all memory and of the devices below 4 GiB.

use super::cpu;
use crate::failure::Failure;
use crate::frames::{FRAME, Frames};
use crate::memory_map::{Kind, MemoryMap, Region};

const LARGE: u64 = 2 << 20;
const GIANT: u64 = 1 << 30;
const DEVICES_END: u64 = 4 << 30;
/// Bytes mapped by an entry of the highest level.
const TOP_SPAN: u64 = 512 << 30;
/// Maximum end of an identity map with four levels.
const MAX_END: u64 = 128 << 40;

/// Present, writable (Intel SDM 3A, 4.5.4).
const TABLE: u64 = 0x3;
/// A page, not a table.
const PAGE: u64 = 1 << 7 | TABLE;
/// Write-through and cache disable, which select "uncached" after a reset.
const UNCACHED: u64 = 1 << 4 | 1 << 3;

/// End of the mapped range: of all memory that is not reserved, and at least 4 GiB.
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
        return Err(Failure::with("memory beyond 128 TiB ends at", end));
    }
    let has_giant_pages = has_giant_pages();
    let devices_start =
        memory_of(memory).map(|region| region.end).filter(|end| *end <= DEVICES_END).fold(LARGE, u64::max);
    let top = Table(frames.allocate(1)?);
    for top_base in (0..end).step_by(TOP_SPAN as usize) {
        let pointers = Table(frames.allocate(1)?);
        top.set(top_base / TOP_SPAN, pointers.0 | TABLE);
        for base in (top_base..end.min(top_base + TOP_SPAN)).step_by(GIANT as usize) {
            // The lowest 4 GiB contain both devices and memory.
            let entry = if has_giant_pages && base >= DEVICES_END {
                base | PAGE
            } else {
                directory(base, devices_start, frames)? | TABLE
            };
            pointers.set(base / GIANT, entry);
        }
    }
    // SAFETY: all memory is identity-mapped, as before.
    unsafe { cpu::write_cr3(top.0) };
    Ok(())
}

/// The table of large pages for the GiB at `base`; there is no memory from `devices_start` to 4 GiB.
fn directory(base: u64, devices_start: u64, frames: &mut Frames) -> Result<u64, Failure> {
    let directory = Table(frames.allocate(1)?);
    for page in (base..base + GIANT).step_by(LARGE as usize) {
        let is_devices = (devices_start..DEVICES_END).contains(&page);
        directory.set(page / LARGE, page | PAGE | if is_devices { UNCACHED } else { 0 });
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

/// Page1GB (Intel SDM 2A, CPUID, leaf 0x8000_0001, EDX bit 26).
fn has_giant_pages() -> bool {
    use core::arch::x86_64::__cpuid;
    const EXTENDED: u32 = 0x8000_0000;
    __cpuid(EXTENDED).eax > EXTENDED && __cpuid(EXTENDED + 1).edx & 1 << 26 != 0
}
