//! The interrupt descriptor table.

use core::sync::atomic::{AtomicU64, Ordering};

use super::cpu;

/// Two words per descriptor.
static TABLE: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

unsafe extern "C" {
    /// Entry code, 16 bytes for each vector.
    static interrupt_entries: u8;
}

/// Fills the table, once. Each processor then loads it.
pub(crate) fn fill() {
    let first = (&raw const interrupt_entries) as u64;
    for (vector, descriptor) in TABLE.chunks_exact(2).enumerate() {
        let [low, high] = descriptor else { continue };
        let entry = first + 16 * vector as u64;
        low.store(interrupt_gate(entry), Ordering::Relaxed);
        high.store(entry >> 32, Ordering::Relaxed);
    }
}

/// Loads the table on the processor that runs this, after [`fill`].
pub(crate) fn load() {
    // SAFETY: the table is static and filled.
    unsafe { cpu::load_idt((&raw const TABLE) as u64, (size_of_val(&TABLE) - 1) as u16) };
}

/// The low word of a 64-bit interrupt gate to code segment 0x10 (Intel SDM 3A, 7.14.1, figure 7-8).
fn interrupt_gate(entry: u64) -> u64 {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e00;
    const CODE: u64 = 0x10;
    entry & 0xffff | CODE << 16 | PRESENT_INTERRUPT_GATE << 32 | (entry & 0xffff_0000) << 32
}
