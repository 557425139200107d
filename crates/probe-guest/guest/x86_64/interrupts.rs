//! Dispatch of exceptions and interrupts.

use super::frame::Frame;
use super::{cpu, identity, local_apic, machine_check, serial, vectors};
use crate::errors::{self, records};
use crate::event_device;
use crate::failure::Failure;
use crate::format::{Hex, Show, Sink};
use crate::hest::Notification;
use crate::report::{fail, say};

const EXCEPTIONS: u64 = 32;
const NMI: u64 = 2;
const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;

/// Called from `interrupt_common` in `entry.s`.
#[unsafe(no_mangle)]
extern "C" fn interrupt(frame: &mut Frame) {
    match frame.vector {
        NMI if errors::is_armed() => return nmi(frame),
        MACHINE_CHECK if machine_check::is_set_up() => return machine_check::exception(frame),
        ..EXCEPTIONS => fail(&Exception(frame)),
        vector if vector == u64::from(vectors::SPURIOUS) => return,
        vector if vector == u64::from(vectors::TIMER) => local_apic::timer_interrupt(),
        vector if vector == u64::from(vectors::SERIAL) => serial::interrupt(),
        vector if vector == u64::from(vectors::EVENT_DEVICE) => event_device::interrupt(),
        vector if vector == u64::from(vectors::WAKE) => {}
        vector => match error_gsi(vector) {
            Some(gsi) => errors::external(gsi),
            None => fail(&Failure::with("unexpected interrupt, vector", vector)),
        },
    }
    local_apic::end_of_interrupt();
    frame.abandon_access(false);
}

fn nmi(frame: &mut Frame) {
    say!("error nmi vcpu ", identity::own_index());
    records::process(|notification| notification == Notification::Nmi);
    frame.abandon_access(false);
}

/// GSI of the error source that a vector belongs to.
fn error_gsi(vector: u64) -> Option<u32> {
    let index = vector.checked_sub(u64::from(vectors::FIRST_ERROR))?;
    records::external().find_map(|(source, gsi)| (source as u64 == index).then_some(gsi))
}

struct Exception<'a>(&'a Frame);

impl Show for Exception<'_> {
    fn show(&self, out: &mut dyn Sink) {
        let Exception(frame) = self;
        "exception ".show(out);
        frame.vector.show(out);
        " at RIP ".show(out);
        Hex(frame.rip).show(out);
        " error ".show(out);
        Hex(frame.error).show(out);
        if frame.vector == PAGE_FAULT {
            " address ".show(out);
            Hex(cpu::read_cr2()).show(out);
        }
    }
}
