//! Instructions that Rust has no functions for.

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

/// Writes a system register, by its name, followed by ISB.
///
/// Unsafe: the value must not change how this processor executes code or accesses memory in a way that Rust relies on.
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(
            concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack, preserves_flags)
        )
    }};
}
pub(crate) use write_register;

/// Reads a device's register. A hypervisor gets a valid syndrome (ISV) for this load. It gets none for a load with write-back,
/// which a compiler may choose.
///
/// # Safety
/// `register` is mapped and aligned, and not part of a Rust object.
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

/// Unmasks interrupts and SErrors.
pub(crate) fn enable_interrupts() {
    // SAFETY: handlers for all vectors are installed before Rust code runs.
    unsafe { asm!("msr daifclr, #6", options(nostack)) };
}

pub(crate) fn disable_interrupts() {
    // SAFETY: code that waits for interrupts enables them itself.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Masks all asynchronous exceptions. Returns the state for [`unmask_interrupts`].
pub(crate) fn mask_interrupts() -> u64 {
    let masks = read_register!("daif");
    // SAFETY: masks interrupts.
    unsafe { asm!("msr daifset, #0xf", options(nostack)) };
    masks
}

/// Restores the state of [`mask_interrupts`].
pub(crate) fn unmask_interrupts(masks: u64) {
    // SAFETY: restores a previous state.
    unsafe { asm!("msr daif, {}", in(reg) masks, options(nostack)) };
}

/// Waits for [`signal`].
pub(crate) fn wait_for_signal() {
    // SAFETY: waits with SErrors unmasked; their handler is installed.
    unsafe { asm!("msr daifclr, #4", "wfe", options(nostack)) };
}

/// Wakes all processors in [`wait_for_signal`]. They see all prior writes.
pub(crate) fn signal() {
    // SAFETY: a barrier, and an event.
    unsafe { asm!("dsb ish", "sev", options(nostack, preserves_flags)) };
}

/// Halts with interrupts masked and SErrors unmasked.
pub(crate) fn halt_with_serrors() -> ! {
    loop {
        // SAFETY: the handler is installed before Rust code runs.
        unsafe { asm!("msr daifclr, #4", "wfi", options(nostack)) };
    }
}

/// Waits for an interrupt with interrupts masked, then unmasks and takes it. A pending interrupt ends the wait immediately.
pub(crate) fn wait_and_enable_interrupts() {
    // SAFETY: as for `enable_interrupts`.
    unsafe { asm!("dsb sy", "wfi", "msr daifclr, #6", options(nostack)) };
}

pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Makes prior writes visible to all observers, including page table walks and processors that start.
pub(crate) fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// Halts forever.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: stops this processor (after a wake-up it halts again).
        unsafe { asm!("msr daifset, #0xf", "wfi", options(nomem, nostack)) };
    }
}
