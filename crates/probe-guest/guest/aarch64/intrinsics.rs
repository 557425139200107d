//! The memory functions that the compiler requires, in assembly: a loop could be compiled into a call of itself.

use core::arch::asm;

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: by the contract of the C function. Words first; unaligned accesses are allowed.
    unsafe {
        asm!(
            "2: cmp {len}, #8", "b.lo 3f", "ldr {word}, [{from}], #8", "str {word}, [{to}], #8",
            "sub {len}, {len}, #8", "b 2b",
            "3: cbz {len}, 4f", "ldrb {word:w}, [{from}], #1", "strb {word:w}, [{to}], #1",
            "sub {len}, {len}, #1", "b 3b",
            "4:",
            len = inout(reg) len => _, from = inout(reg) from => _, to = inout(reg) to => _, word = out(reg) _,
            options(nostack),
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the ranges do not overlap, or the destination is below the source.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: by the contract of the C function; copies backwards.
    unsafe {
        asm!(
            "2: cbz {len}, 3f", "sub {len}, {len}, #1", "ldrb {byte:w}, [{from}, {len}]",
            "strb {byte:w}, [{to}, {len}]", "b 2b",
            "3:",
            len = inout(reg) len => _, from = in(reg) from, to = in(reg) to, byte = out(reg) _, options(nostack),
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let word = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: by the contract of the C function.
    unsafe {
        asm!(
            "2: cmp {len}, #8", "b.lo 3f", "str {word}, [{to}], #8", "sub {len}, {len}, #8", "b 2b",
            "3: cbz {len}, 4f", "strb {word:w}, [{to}], #1", "sub {len}, {len}, #1", "b 3b",
            "4:",
            len = inout(reg) len => _, to = inout(reg) to => _, word = in(reg) word, options(nostack),
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    let difference: i32;
    // SAFETY: by the contract of the C function.
    unsafe {
        asm!(
            "mov {difference:w}, #0",
            "2: cbz {len}, 3f", "ldrb {difference:w}, [{left}], #1", "ldrb {byte:w}, [{right}], #1",
            "sub {len}, {len}, #1", "subs {difference:w}, {difference:w}, {byte:w}", "b.eq 2b",
            "3:",
            len = inout(reg) len => _, left = inout(reg) left => _, right = inout(reg) right => _,
            byte = out(reg) _, difference = out(reg) difference, options(nostack, readonly),
        );
    }
    difference
}

/// LLVM calls this one if only equality matters.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: by the contract of the C function, which is the same.
    unsafe { memcmp(left, right, len) }
}
