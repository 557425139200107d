//! Dispatch of exceptions and interrupts.

use super::cpu::read_register;
use super::intids::{self, Purpose};
use super::{aborts, gic, serial, timer};
use crate::failure::Failure;
use crate::format::{Hex, Show, Sink};
use crate::report::fail;
use crate::{errors, event_device};

/// Vectors of exceptions from EL1 with SP_EL1 (Arm ARM, table D1-5).
const SYNCHRONOUS: u64 = 4;
const INTERRUPT: u64 = 5;
const SERROR: u64 = 7;

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
    match intids::purpose_of(intid) {
        Some(Purpose::Timer) => timer::interrupt(),
        Some(Purpose::Serial) => serial::interrupt(),
        Some(Purpose::EventDevice) => event_device::interrupt(),
        None if errors::records::external().any(|(_, gsi)| gsi == intid) => errors::external(intid),
        None => fail(&Failure::with("unexpected interrupt, INTID", u64::from(intid))),
    }
    acknowledged.end();
    aborts::abandon_access(false);
}

/// The registers that describe the current exception.
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
