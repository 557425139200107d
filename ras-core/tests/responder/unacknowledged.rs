//! What a guest has not acknowledged when it dies.

use ras_core::abilities::Vendor;
use ras_core::actions::Unacknowledged;
use ras_core::request::TableSet;
use ras_core::vcpu_state::{MachineCheckState, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Response, Severity, Span};

use crate::machine::{Machine, READY, SER_P, USER, arm, x86};

fn unacknowledged(machine: &mut Machine) -> Option<Unacknowledged> {
    let context = machine.context(None);
    machine.responder.unacknowledged(&context)
}

fn error(source: Option<u16>, gpa: u64, consumed_by: Option<u32>) -> Option<Unacknowledged> {
    let severity = Severity::Recoverable;
    Some(Unacknowledged { source, span: Span::around(gpa, 12), severity, consumed_by })
}

#[test]
fn a_record_is_not_acknowledged_until_its_register_is_set() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    assert_eq!(unacknowledged(&mut machine), None);
    machine.detected(0x3000, 12, None);
    assert_eq!(unacknowledged(&mut machine), error(Some(1), 0x3000, None));
    // One that a vCPU consumed comes first.
    machine.consumed(0x1008, 12, 1, USER);
    machine.consumed(0x2000, 12, 0, USER);
    assert_eq!(unacknowledged(&mut machine), error(Some(0), 0x1000, Some(1)));
    // The second record is not written yet, and its error is not acknowledged either.
    assert_eq!(machine.guest_reads(0).len(), 1);
    assert_eq!(unacknowledged(&mut machine), error(Some(0), 0x2000, Some(0)));
    machine.tick();
    assert_eq!(machine.guest_reads(0).len(), 1);
    assert_eq!(unacknowledged(&mut machine), error(Some(1), 0x3000, None));
    assert_eq!(machine.guest_reads(1), [0x3000]);
    assert_eq!(unacknowledged(&mut machine), None);
    // Whatever the new guest finds, it is not the error of the old one.
    machine.consumed(0x1008, 12, 1, USER);
    machine.run(|responder, sink| responder.reset(false, sink));
    assert_eq!(unacknowledged(&mut machine), None);
}

#[test]
fn an_exception_without_a_record_is_not_acknowledged_until_a_reset() {
    for response in [Response::Abort, Response::Serror] {
        let mut machine = Machine::new(&arm(), TableSet::Devicetree, Some(response), Some(Response::Ignore));
        // The guest is not notified of it: it cannot die of it.
        machine.detected(0x3000, 12, None);
        assert_eq!(unacknowledged(&mut machine), None);
        machine.consumed(0x1008, 12, 1, USER);
        machine.consumed(0x20_2008, 21, 0, USER);
        assert_eq!(unacknowledged(&mut machine), error(None, 0x20_2000, Some(0)));
        machine.run(|responder, sink| responder.reset(false, sink));
        assert_eq!(unacknowledged(&mut machine), None);
    }
}

#[test]
fn a_machine_check_is_not_acknowledged_until_its_handler_has_ended() {
    let ready = VcpuState::X86_64(READY);
    let observe = |machine: &mut Machine, vcpu, state| {
        let context = machine.context(Some(VcpuState::X86_64(state)));
        machine.run(|responder, sink| responder.observe(vcpu, &context, sink))
    };
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let host = x86(SER_P, vendor);
        let mut machine = Machine::new(&host, TableSet::MpTable, Some(Response::Mce), Some(Response::Mce));
        machine.detected(0x3000, 12, Some(ready));
        machine.consumed(0x1008, 12, 1, ready);
        assert_eq!(unacknowledged(&mut machine), error(None, 0x1000, Some(1)));
        // Another vCPU says nothing about it.
        observe(&mut machine, 2, READY);
        assert_eq!(unacknowledged(&mut machine), error(None, 0x1000, Some(1)));
        observe(&mut machine, 1, MachineCheckState { in_progress: true, ..READY });
        assert_eq!(unacknowledged(&mut machine), error(None, 0x1000, Some(1)));
        observe(&mut machine, 1, READY);
        // The detected one is in the bank of vCPU 0.
        observe(&mut machine, 0, MachineCheckState { detected_unread: true, ..READY });
        assert_eq!(unacknowledged(&mut machine), error(None, 0x3000, None));
        observe(&mut machine, 0, READY);
        assert_eq!(unacknowledged(&mut machine), None);
    }
}

/// A guest that reads a fatal record acknowledges it, and panics.
#[test]
fn a_fatal_record_counts_although_it_is_acknowledged() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let span = Span::around(0x3000, 12);
    let error = MemoryError {
        span,
        gpa: 0x3000,
        kind: Kind::ActionOptional,
        severity: Severity::Fatal,
        vcpu: None,
        origin: Origin::Einj,
        time_ns: machine.now,
    };
    let context = machine.context(None);
    machine.run(|responder, sink| responder.report(&error, &context, sink));
    let fatal = Some(Unacknowledged { source: Some(1), span, severity: Severity::Fatal, consumed_by: None });
    assert_eq!(unacknowledged(&mut machine), fatal);
    assert_eq!(machine.guest_reads(1), [0x3000]);
    // Whether the VMM has seen that or not.
    assert_eq!(unacknowledged(&mut machine), fatal);
    machine.tick();
    assert_eq!(unacknowledged(&mut machine), fatal);
    machine.run(|responder, sink| responder.reset(false, sink));
    assert_eq!(unacknowledged(&mut machine), None);
}
