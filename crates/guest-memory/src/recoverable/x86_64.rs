//! The access routines for x86_64.

#![expect(unsafe_code, reason = "the lint applies to global assembly")]

/// Entries in the table.
pub(super) const ENTRIES: usize = 4;

// `rep movsb` decrements RCX with each byte it has copied, so after a fault RCX is the count of bytes not copied. The direction
// flag is clear by the ABI.
core::arch::global_asm!(
    ".pushsection .text.ghest_recoverable, \"ax\", @progbits",
    ".balign 16",
    ".globl ghest_recoverable_copy",
    ".hidden ghest_recoverable_copy",
    ".type ghest_recoverable_copy, @function",
    "ghest_recoverable_copy:",
    "mov rcx, rdx",
    ".Lghest_copy:",
    "rep movsb",
    ".Lghest_copy_end:",
    "mov rax, rcx",
    "ret",
    ".size ghest_recoverable_copy, . - ghest_recoverable_copy",
    ".balign 16",
    ".globl ghest_recoverable_load_u64",
    ".hidden ghest_recoverable_load_u64",
    ".type ghest_recoverable_load_u64, @function",
    "ghest_recoverable_load_u64:",
    ".Lghest_load_u64:",
    "mov rax, qword ptr [rdi]",
    ".Lghest_load_u64_end:",
    "mov qword ptr [rsi], rax",
    "xor eax, eax",
    "ret",
    ".size ghest_recoverable_load_u64, . - ghest_recoverable_load_u64",
    ".balign 16",
    ".globl ghest_recoverable_store_u64",
    ".hidden ghest_recoverable_store_u64",
    ".type ghest_recoverable_store_u64, @function",
    "ghest_recoverable_store_u64:",
    "mov qword ptr [rdi], rsi",
    ".Lghest_store_u64_end:",
    "xor eax, eax",
    "ret",
    ".size ghest_recoverable_store_u64, . - ghest_recoverable_store_u64",
    ".balign 16",
    ".globl ghest_recoverable_store_u32",
    ".hidden ghest_recoverable_store_u32",
    ".type ghest_recoverable_store_u32, @function",
    "ghest_recoverable_store_u32:",
    "mov dword ptr [rdi], esi",
    ".Lghest_store_u32_end:",
    "xor eax, eax",
    "ret",
    ".size ghest_recoverable_store_u32, . - ghest_recoverable_store_u32",
    ".Lghest_failed:",
    "mov eax, 1",
    "ret",
    ".balign 16",
    ".globl ghest_recoverable_table",
    ".hidden ghest_recoverable_table",
    ".type ghest_recoverable_table, @object",
    "ghest_recoverable_table:",
    ".long .Lghest_copy - ghest_recoverable_table",
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
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64
}

/// Sets the instruction at which it resumes.
pub(super) fn set_program_counter(context: &mut libc::ucontext_t, to: u64) {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] = to as i64;
}
