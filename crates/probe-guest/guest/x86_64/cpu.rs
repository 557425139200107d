//! Instructions that Rust has no functions for.

use core::arch::asm;

/// Reads an I/O port. Some reads change the device behind it; none touches memory.
pub(crate) fn port_in(port: u16) -> u8 {
    let value;
    // SAFETY: a port read does not touch memory, and this guest owns all devices.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes an I/O port. No device of this machine reaches memory on its own.
pub(crate) fn port_out(port: u16, value: u8) {
    // SAFETY: a port write does not touch memory, and this guest owns all devices.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a device's register.
///
/// # Safety
/// `register` is mapped and aligned, and not part of a Rust object.
pub(crate) unsafe fn load(register: *const u32) -> u32 {
    // SAFETY: by the contract of this function.
    unsafe { register.read_volatile() }
}

/// Writes a device's register.
///
/// # Safety
/// As for [`load`].
pub(crate) unsafe fn store(register: *mut u32, value: u32) {
    // SAFETY: by the contract of this function.
    unsafe { register.write_volatile(value) }
}

pub(crate) fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register; one that does not exist raises an exception, which is reported.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
/// The value does not change how this processor executes code or accesses memory in a way that Rust relies on.
pub(crate) unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: by the contract of this function.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    };
}

pub(crate) fn enable_interrupts() {
    // SAFETY: handlers for all vectors are installed before this is called.
    unsafe { asm!("sti", options(nostack)) };
}

pub(crate) fn disable_interrupts() {
    // SAFETY: code that waits for interrupts enables them itself.
    unsafe { asm!("cli", options(nostack)) };
}

/// Disables maskable interrupts. Returns the state for [`unmask_interrupts`].
pub(crate) fn mask_interrupts() -> u64 {
    let flags: u64;
    // SAFETY: disables interrupts and leaves the stack balanced.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    flags
}

/// Restores the state of [`mask_interrupts`].
pub(crate) fn unmask_interrupts(flags: u64) {
    const INTERRUPTS_ON: u64 = 1 << 9;
    if flags & INTERRUPTS_ON != 0 {
        enable_interrupts();
    }
}

/// Enables interrupts and waits for one. STI delays interrupts until after HLT, so none is missed.
pub(crate) fn enable_interrupts_and_wait() {
    // SAFETY: as for `enable_interrupts`.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Halts forever.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: stops this processor until a reset (after an NMI or SMI it halts again).
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The page-fault address.
pub(crate) fn read_cr2() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets bits of CR4.
///
/// # Safety
/// They do not change how this processor executes code or accesses memory.
pub(crate) unsafe fn set_cr4(bits: u64) {
    // SAFETY: by the contract of this function.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) bits, options(nostack))
    };
}

/// The physical address of the page tables.
pub(crate) fn read_cr3() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// # Safety
/// `tables` is the physical address of page tables that keep the mapping of all memory in use.
pub(crate) unsafe fn write_cr3(tables: u64) {
    // SAFETY: by the contract of this function.
    unsafe { asm!("mov cr3, {}", in(reg) tables, options(nostack, preserves_flags)) };
}

/// # Safety
/// `limit + 1` bytes of interrupt descriptors are at `base`, with a static lifetime.
pub(crate) unsafe fn load_idt(base: u64, limit: u16) {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer { limit, base };
    // SAFETY: by the contract of this function; the processor reads the pointer only now.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}

/// Shuts the processor down by an exception without a descriptor.
pub(crate) fn triple_fault() -> ! {
    // SAFETY: does not return.
    unsafe {
        load_idt(0, 0);
        asm!("ud2", options(noreturn))
    }
}
