//! The access routines for aarch64.

#![expect(unsafe_code, reason = "the lint applies to global assembly")]

/// Entries in the table.
pub(super) const ENTRIES: usize = 5;

// The registers of a copy advance only after both accesses of a step, so that a fault leaves them as they were before the step.
// After a fault in the loop of words the copy continues byte by byte, so that it stops at the exact byte.
core::arch::global_asm!(
    ".pushsection .text.ghest_recoverable, \"ax\", @progbits",
    ".balign 16",
    ".globl ghest_recoverable_copy",
    ".hidden ghest_recoverable_copy",
    ".type ghest_recoverable_copy, @function",
    "ghest_recoverable_copy:",
    ".Lghest_copy_words:",
    "cmp x2, #8",
    "b.lo .Lghest_copy_bytes",
    "ldr x3, [x1]",
    "str x3, [x0]",
    "add x1, x1, #8",
    "add x0, x0, #8",
    "sub x2, x2, #8",
    "b .Lghest_copy_words",
    ".Lghest_copy_bytes:",
    "cbz x2, .Lghest_copy_end",
    "ldrb w3, [x1]",
    "strb w3, [x0]",
    "add x1, x1, #1",
    "add x0, x0, #1",
    "sub x2, x2, #1",
    "b .Lghest_copy_bytes",
    ".Lghest_copy_end:",
    "mov x0, x2",
    "ret",
    ".size ghest_recoverable_copy, . - ghest_recoverable_copy",
    ".balign 16",
    ".globl ghest_recoverable_load_u64",
    ".hidden ghest_recoverable_load_u64",
    ".type ghest_recoverable_load_u64, @function",
    "ghest_recoverable_load_u64:",
    ".Lghest_load_u64:",
    "ldar x2, [x0]",
    ".Lghest_load_u64_end:",
    "str x2, [x1]",
    "mov x0, #0",
    "ret",
    ".size ghest_recoverable_load_u64, . - ghest_recoverable_load_u64",
    ".balign 16",
    ".globl ghest_recoverable_store_u64",
    ".hidden ghest_recoverable_store_u64",
    ".type ghest_recoverable_store_u64, @function",
    "ghest_recoverable_store_u64:",
    "stlr x1, [x0]",
    ".Lghest_store_u64_end:",
    "mov x0, #0",
    "ret",
    ".size ghest_recoverable_store_u64, . - ghest_recoverable_store_u64",
    ".balign 16",
    ".globl ghest_recoverable_store_u32",
    ".hidden ghest_recoverable_store_u32",
    ".type ghest_recoverable_store_u32, @function",
    "ghest_recoverable_store_u32:",
    "stlr w1, [x0]",
    ".Lghest_store_u32_end:",
    "mov x0, #0",
    "ret",
    ".size ghest_recoverable_store_u32, . - ghest_recoverable_store_u32",
    ".Lghest_failed:",
    "mov x0, #1",
    "ret",
    ".balign 16",
    ".globl ghest_recoverable_table",
    ".hidden ghest_recoverable_table",
    ".type ghest_recoverable_table, @object",
    "ghest_recoverable_table:",
    ".long .Lghest_copy_words - ghest_recoverable_table",
    ".long .Lghest_copy_bytes - ghest_recoverable_table",
    ".long .Lghest_copy_bytes - ghest_recoverable_table",
    ".long .Lghest_copy_bytes - ghest_recoverable_table",
    ".long .Lghest_copy_end - ghest_recoverable_table",
    ".long .Lghest_copy_end - ghest_recoverable_table",
    ".long .Lghest_load_u64 - ghest_recoverable_table",
    ".long .Lghest_load_u64_end - ghest_recoverable_table",
    ".long .Lghest_failed - ghest_recoverable_table",
    ".long ghest_recoverable_store_u64 - ghest_recoverable_table",
    ".long .Lghest_store_u64_end - ghest_recoverable_table",
    ".long .Lghest_failed - ghest_recoverable_table",
    ".long ghest_recoverable_store_u32 - ghest_recoverable_table",
    ".long .Lghest_store_u32_end - ghest_recoverable_table",
    ".long .Lghest_failed - ghest_recoverable_table",
    ".size ghest_recoverable_table, . - ghest_recoverable_table",
    ".popsection",
);

/// The instruction at which the thread was interrupted.
pub(super) fn program_counter(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.pc
}

/// Sets the instruction at which it resumes.
pub(super) fn set_program_counter(context: &mut libc::ucontext_t, to: u64) {
    context.uc_mcontext.pc = to;
}
