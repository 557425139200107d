//! The virtual timer of the processor that runs the code (Arm ARM, D11.2).

use core::sync::atomic::{AtomicBool, Ordering};

use super::counter::{count, frequency, ticks, wait_until};
use super::cpu::{self, read_register, write_register};
use super::gic;
use super::intids::{self, Purpose};
use crate::dsdt::Interrupt;
use crate::failure::Failure;

/// CNTV_CTL_EL0.
const ENABLE: u64 = 1 << 0;

/// Whether a timer interrupt was taken.
static FIRED: AtomicBool = AtomicBool::new(false);

/// Starts the timer and waits for its interrupt.
pub(crate) fn check(interrupt: Interrupt) -> Result<(), Failure> {
    let frequency = read_register!("cntfrq_el0");
    if frequency == 0 {
        return Err(Failure::new("CNTFRQ_EL0 is 0"));
    }
    let before = count();
    gic::enable(interrupt)?;
    intids::assign(Purpose::Timer, interrupt.gsi);
    // SAFETY: an interrupt that has a handler, in a millisecond.
    unsafe {
        write_register!("cntv_tval_el0", frequency / 1000);
        write_register!("cntv_ctl_el0", ENABLE);
    }
    if wait_until(|| FIRED.load(Ordering::Relaxed)) {
        return Ok(());
    }
    Err(Failure::new(if count() == before { "the counter does not count" } else { "no timer interrupt" }))
}

/// Handles the timer's interrupt. Disabling the timer deasserts it.
pub(crate) fn interrupt() {
    // SAFETY: disables an interrupt.
    unsafe { write_register!("cntv_ctl_el0", 0) };
    FIRED.store(true, Ordering::Relaxed);
}

/// Waits for a condition for up to `milliseconds`, halted: checks it at each interrupt and every 50 ms. Only on the processor
/// that called [`check`]. Returns whether the condition was met.
pub(crate) fn wait_halted(milliseconds: u32, mut condition: impl FnMut() -> bool) -> bool {
    let (start, ticks) = (count(), ticks(milliseconds));
    let period = frequency() / 20;
    loop {
        if condition() {
            return true;
        }
        let left = ticks.saturating_sub(count().wrapping_sub(start));
        if left == 0 {
            return false;
        }
        cpu::disable_interrupts();
        // SAFETY: an interrupt that has a handler.
        unsafe {
            write_register!("cntv_tval_el0", left.min(period));
            write_register!("cntv_ctl_el0", ENABLE);
        }
        cpu::wait_and_enable_interrupts();
    }
}
