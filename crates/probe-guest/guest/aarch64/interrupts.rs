//! Exceptions and interrupts.

use core::sync::atomic::{AtomicU32, Ordering};

use super::cpu::read_register;
use super::{aborts, gic, serial, timer};
use crate::failure::Failure;
use crate::format::{Hex, Show, Sink};
use crate::report::fail;
use crate::{errors, event_device};

/// Vectors of what is taken at EL1 with its own stack pointer (Arm ARM, table D1-5).
const SYNCHRONOUS: u64 = 4;
const INTERRUPT: u64 = 5;
const SERROR: u64 = 7;

/// What the guest asks interrupts for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Timer,
    Serial,
    EventDevice,
}

/// The INTIDs for the purposes; 0 is none.
static TIMER: AtomicU32 = AtomicU32::new(0);
static SERIAL: AtomicU32 = AtomicU32::new(0);
static EVENT_DEVICE: AtomicU32 = AtomicU32::new(0);

/// Has interrupt `intid` taken for `purpose` from now on.
pub(crate) fn expect(purpose: Purpose, intid: u32) {
    let slot = match purpose {
        Purpose::Timer => &TIMER,
        Purpose::Serial => &SERIAL,
        Purpose::EventDevice => &EVENT_DEVICE,
    };
    slot.store(intid, Ordering::Relaxed);
}

/// Called from `entry.s` with the number of the vector.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64) {
    match vector {
        INTERRUPT => interrupt(),
        SYNCHRONOUS if aborts::is_external() => aborts::synchronous(),
        SERROR if errors::is_armed() => aborts::serror(),
        _ => fail(&Exception),
    }
}

fn interrupt() {
    let Some(acknowledged) = gic::acknowledge() else {
        return;
    };
    let intid = acknowledged.intid();
    let is = |slot: &AtomicU32| slot.load(Ordering::Relaxed) == intid;
    if is(&TIMER) {
        timer::interrupt();
    } else if is(&SERIAL) {
        serial::interrupt();
    } else if is(&EVENT_DEVICE) {
        event_device::interrupt();
    } else if errors::records::external().any(|(_, gsi)| gsi == intid) {
        errors::external(intid);
    } else {
        fail(&Failure::with("interrupt that nobody asked for, INTID", u64::from(intid)));
    }
    acknowledged.end();
    aborts::leave(false);
}

/// What the processor says of the exception that it takes.
struct Exception;

impl Show for Exception {
    fn show(&self, out: &mut dyn Sink) {
        "exception ESR ".show(out);
        Hex(read_register!("esr_el1")).show(out);
        " ELR ".show(out);
        Hex(read_register!("elr_el1")).show(out);
        " FAR ".show(out);
        Hex(read_register!("far_el1")).show(out);
    }
}
