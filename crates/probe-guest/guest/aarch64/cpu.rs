//! Instructions that Rust has no words for.

use core::arch::asm;

/// Reads a system register, by its name.
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reads a register; one that does not exist raises an exception, which is reported.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags))
        };
        value
    }};
}
pub(crate) use read_register;

/// Writes a system register, by its name, and waits until that has its effect.
///
/// Unsafe: the value does not change how this processor runs code or reaches memory in a way that Rust relies on.
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(
            concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack, preserves_flags)
        )
    }};
}
pub(crate) use write_register;

/// Reads a device's register. A hypervisor learns from such a load what is meant, as it does not from one that also
/// changes its base register, which a compiler may choose.
///
/// # Safety
/// `register` is mapped and aligned, and no object of Rust's.
pub(crate) unsafe fn load(register: *const u32) -> u32 {
    let value;
    // SAFETY: by the contract of this function.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) value, in(reg) register, options(nostack, preserves_flags)) };
    value
}

/// Writes a device's register, as [`load`] reads one.
///
/// # Safety
/// As for [`load`].
pub(crate) unsafe fn store(register: *mut u32, value: u32) {
    // SAFETY: by the contract of this function.
    unsafe { asm!("str {:w}, [{}]", in(reg) value, in(reg) register, options(nostack, preserves_flags)) };
}

/// The affinity of the processor that runs this, all four levels.
pub(crate) fn affinity() -> u64 {
    const AFFINITY: u64 = 0xff_00ff_ffff;
    read_register!("mpidr_el1") & AFFINITY
}

/// The exception level of the processor that runs this.
pub(crate) fn exception_level() -> u64 {
    read_register!("CurrentEL") >> 2 & 3
}

/// Turns on interrupts and errors that come on their own (SError).
pub(crate) fn enable_interrupts() {
    // SAFETY: handlers for all vectors are in place since before the first line of Rust.
    unsafe { asm!("msr daifclr, #6", options(nostack)) };
}

pub(crate) fn disable_interrupts() {
    // SAFETY: what waits for interrupts turns them on itself.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Turns off all that comes on its own: what [`unmask_interrupts`] puts back.
pub(crate) fn mask_interrupts() -> u64 {
    let masks = read_register!("daif");
    // SAFETY: fewer interrupts.
    unsafe { asm!("msr daifset, #0xf", options(nostack)) };
    masks
}

/// Turns on what was on.
pub(crate) fn unmask_interrupts(masks: u64) {
    // SAFETY: as it was before.
    unsafe { asm!("msr daif, {}", in(reg) masks, options(nostack)) };
}

/// Waits until somebody [`signal`]s.
pub(crate) fn wait_for_signal() {
    // SAFETY: a wait, with errors that come on their own (SError) let through: their handler was in place before Rust.
    unsafe { asm!("msr daifclr, #4", "wfe", options(nostack)) };
}

/// Ends the wait of all processors in [`wait_for_signal`], which see what was written before.
pub(crate) fn signal() {
    // SAFETY: a barrier, and an event.
    unsafe { asm!("dsb ish", "sev", options(nostack, preserves_flags)) };
}

/// Halts, with interrupts off, and takes only errors that come on their own (SError).
pub(crate) fn take_errors() -> ! {
    loop {
        // SAFETY: the handler was in place before the first line of Rust.
        unsafe { asm!("msr daifclr, #4", "wfi", options(nostack)) };
    }
}

/// Waits for an interrupt, with interrupts off, and takes it. One that came before the wait ends it at once.
pub(crate) fn wait_and_enable_interrupts() {
    // SAFETY: as for `enable_interrupts`.
    unsafe { asm!("dsb sy", "wfi", "msr daifclr, #6", options(nostack)) };
}

pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Makes what was written visible to everybody, page table walks and processors that start included.
pub(crate) fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// Halts for good.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: stops this processor (what wakes it only takes it through the loop).
        unsafe { asm!("msr daifset, #0xf", "wfi", options(nomem, nostack)) };
    }
}
