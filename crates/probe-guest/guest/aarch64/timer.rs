//! The virtual timer of the processor that runs the code (Arm ARM, D11.2).

use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu::{self, read_register, write_register};
use super::gic;
use super::interrupts::{self, Purpose};
use crate::dsdt::Interrupt;
use crate::failure::Failure;

/// CNTV_CTL_EL0.
const ENABLE: u64 = 1 << 0;
/// How long to wait for what ought to happen at once.
const SECONDS: u64 = 10;

static CAME: AtomicBool = AtomicBool::new(false);

/// Takes a timer interrupt.
pub(crate) fn check(interrupt: Interrupt) -> Result<(), Failure> {
    let frequency = read_register!("cntfrq_el0");
    if frequency == 0 {
        return Err(Failure::new("the counter has no frequency"));
    }
    let before = count();
    gic::enable(interrupt)?;
    interrupts::expect(Purpose::Timer, interrupt.gsi);
    // SAFETY: an interrupt that has a handler, in a millisecond.
    unsafe {
        write_register!("cntv_tval_el0", frequency / 1000);
        write_register!("cntv_ctl_el0", ENABLE);
    }
    if wait_until(|| CAME.load(Ordering::Relaxed)) {
        return Ok(());
    }
    Err(Failure::new(if count() == before {
        "the counter does not count"
    } else {
        "the timer interrupt did not come"
    }))
}

/// Takes the timer's interrupt: off, it lets go of the line.
pub(crate) fn interrupt() {
    // SAFETY: one interrupt less.
    unsafe { write_register!("cntv_ctl_el0", 0) };
    CAME.store(true, Ordering::Relaxed);
}

/// Waits until something happens: false where it did not within ten seconds.
pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) -> bool {
    wait(SECONDS * frequency(), &mut happened)
}

/// Waits until something happens, busily: false where it did not within so many milliseconds.
pub(crate) fn wait_for(milliseconds: u32, mut happened: impl FnMut() -> bool) -> bool {
    wait(ticks(milliseconds), &mut happened)
}

/// As [`wait_for`], halted: looks whether it happened at each interrupt, and every 50 ms. On the processor that has
/// checked its timer.
pub(crate) fn wait_halted(milliseconds: u32, mut happened: impl FnMut() -> bool) -> bool {
    let (start, ticks) = (count(), ticks(milliseconds));
    let period = frequency() / 20;
    loop {
        if happened() {
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

/// Waits for at most so many ticks of the counter.
fn wait(ticks: u64, happened: &mut dyn FnMut() -> bool) -> bool {
    /// Polls after which even a counter that stands still ends the wait.
    const MANY_POLLS: u64 = 1 << 32;
    let start = count();
    for _ in 0..MANY_POLLS {
        if happened() {
            return true;
        }
        if count().wrapping_sub(start) >= ticks {
            break;
        }
        cpu::pause();
    }
    happened()
}

fn ticks(milliseconds: u32) -> u64 {
    (frequency() / 1000).saturating_mul(u64::from(milliseconds))
}

/// Ticks of the counter in a second, as nobody has it slower.
fn frequency() -> u64 {
    read_register!("cntfrq_el0").max(1_000_000)
}

fn count() -> u64 {
    read_register!("cntvct_el0")
}
