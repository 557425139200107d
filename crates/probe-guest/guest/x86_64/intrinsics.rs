//! The memory functions that the compiler requires. They use string instructions: a loop could be compiled into a call of itself.

use core::arch::asm;

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: by the contract of the C function; copies words as far as possible, as `memset` does.
    unsafe {
        asm!("rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) len % 8, inout("rcx") len / 8 => _,
             inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the ranges do not overlap, or the destination is below the source.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: by the contract of the C function; copies backwards and clears the direction flag afterwards.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _,
             inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
             inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // Writes words as far as possible: each step is expensive if instructions are interpreted.
    let word = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: by the contract of the C function.
    unsafe {
        asm!("rep stosq", "mov rcx, {rest}", "rep stosb", rest = in(reg) len % 8, inout("rcx") len / 8 => _,
             inout("rdi") to => _, in("rax") word, options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    let (after_left, after_right): (*const u8, *const u8);
    let differ: u8;
    if len == 0 {
        return 0;
    }
    // SAFETY: by the contract of the C function.
    unsafe {
        asm!("repe cmpsb", "setne {differ}", differ = out(reg_byte) differ, inout("rcx") len => _,
             inout("rsi") left => after_left, inout("rdi") right => after_right, options(nostack, readonly));
    }
    if differ == 0 {
        return 0;
    }
    // SAFETY: both pointers were advanced by at least one byte.
    unsafe { i32::from(*after_left.wrapping_sub(1)) - i32::from(*after_right.wrapping_sub(1)) }
}

/// LLVM calls this one if only equality matters.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: by the contract of the C function, which is the same.
    unsafe { memcmp(left, right, len) }
}
