//! The Generic Event Device and its interrupt, raised by its loopback register.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arch::{self, DEVICES_END};
use crate::dsdt::EventDevice;
use crate::errors;
use crate::failure::Failure;
use crate::format::Hex;
use crate::physical::Register;
use crate::report::say;

/// Offset of the loopback register from the selector. Events written to it are raised.
const LOOPBACK: u64 = 4;
/// The power button's bit in the selector.
const POWER_BUTTON: u32 = 1 << 1;

/// Hardware error bit: a record is available.
const HARDWARE_ERROR: u32 = 1 << 5;
/// The bit of this guest's own test, which no device has: an event that the VMM raises meanwhile, or has raised before, is not taken for
/// it, and is kept.
const SELF_TEST: u32 = 1 << 31;

/// Address of the selector; 0 until `check`.
static SELECTOR: AtomicU64 = AtomicU64::new(0);
/// Events that the interrupt handler read from the selector.
static EVENTS: AtomicU32 = AtomicU32::new(0);

/// Raises an event and waits for its interrupt, which must be routed.
pub(crate) fn check(device: &EventDevice) -> Result<(), Failure> {
    let last = device.selector.saturating_add(2 * LOOPBACK);
    if !device.selector.is_multiple_of(4) || last > DEVICES_END {
        return Err(Failure::with("the event device's register cannot be reached at", device.selector));
    }
    SELECTOR.store(device.selector, Ordering::Relaxed);
    // SAFETY: a register of the event device, aligned and where devices are mapped.
    unsafe { Register::at(device.selector + LOOPBACK) }.write(SELF_TEST);
    if !arch::wait_until(|| EVENTS.load(Ordering::Relaxed) & SELF_TEST != 0) {
        return Err(Failure::new("no interrupt from the event device"));
    }
    let events = EVENTS.fetch_and(!SELF_TEST, Ordering::Relaxed);
    say!("ged ok gsi ", device.interrupt.gsi, " events ", Hex(u64::from(events)));
    Ok(())
}

/// Waits, halted, until the power button is pressed; without an event device, for ever.
pub(crate) fn wait_for_power_button() {
    loop {
        arch::disable_interrupts();
        if EVENTS.load(Ordering::Relaxed) & POWER_BUTTON != 0 {
            return;
        }
        arch::wait_for_interrupt();
    }
}

/// Handles the device's interrupt. Reading the selector clears it and deasserts the interrupt.
pub(crate) fn interrupt() {
    let selector = SELECTOR.load(Ordering::Relaxed);
    if selector == 0 {
        return;
    }
    // SAFETY: `check` validated the address.
    let events = unsafe { Register::at(selector) }.read();
    EVENTS.fetch_or(events & !HARDWARE_ERROR, Ordering::Relaxed);
    // Before errors are handled, records stay pending: `arm` processes them.
    if events & HARDWARE_ERROR != 0 && errors::is_armed() {
        errors::event();
    }
}
