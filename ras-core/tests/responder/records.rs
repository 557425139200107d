//! Guests that are notified by records, and by exceptions without a record.

use ras_core::abilities::Vendor;
use ras_core::actions::{Action, FaultAddress, StopReason, Unacknowledged};
use ras_core::request::TableSet;
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Response, Severity, Span, StatusBlock};

use crate::machine::{Machine, READY, SECOND, SER_P, USER, arm, x86};

#[test]
fn the_vcpu_that_consumed_an_error_gets_a_record_and_an_abort() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, None, None);
    let actions = machine.consumed(0x8000_1234, 12, 1, USER);
    assert_eq!(actions, ["record 0", "abort 1 0x92000410 NotValid", "handled sea"]);
    assert_eq!(machine.guest_reads(0), [0x8000_1000]);
    assert_eq!(machine.tick(), ["acknowledged 0"]);
    let entry = machine.responder.ledger().at(0x8000_1fff).unwrap();
    assert_eq!((entry.response, entry.acknowledged_ns), (Some(Response::Sea), Some(SECOND + 2)));
}

#[test]
fn a_second_vcpu_waits_for_its_record() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    machine.consumed(0x8000_1000, 12, 0, USER);
    assert_eq!(machine.consumed(0x8000_5000, 12, 1, USER), ["queued 0", "hold 1"]);
    assert_eq!(machine.consumed(0x8000_1000, 12, 2, USER), ["coalesced 0", "hold 2"]);
    assert_eq!(machine.tick(), [""; 0]);
    assert_eq!(machine.guest_reads(0), [0x8000_1000]);
    assert_eq!(
        machine.tick(),
        ["acknowledged 0", "release 2", "record 0", "abort 1 0x92000410 NotValid", "handled sea"]
    );
    assert_eq!(machine.guest_reads(0), [0x8000_5000]);
}

#[test]
fn a_guest_that_does_not_acknowledge_gets_plain_aborts() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let context = machine.context(None);
    machine.responder.driver_up(&context);
    machine.consumed(0x8000_1000, 12, 0, USER);
    machine.consumed(0x8000_5000, 12, 1, USER);
    machine.now = machine.responder.deadline_ns().unwrap();
    assert_eq!(machine.tick(), ["overdue 0, consumed by 0", "abort 1 0x92000410 NotValid", "handled abort"]);
    assert_eq!(machine.consumed(0x8000_9000, 12, 2, USER), ["abort 2 0x92000410 NotValid", "handled abort"]);
    // A kernel that starts later, after a crash, reads the record and acknowledges: the next record is written.
    assert_eq!(machine.guest_reads(0), [0x8000_1000]);
    assert_eq!(
        machine.consumed(0x8000_9000, 12, 2, USER),
        ["acknowledged 0", "record 0", "abort 2 0x92000410 NotValid", "handled sea"]
    );
}

#[test]
fn the_rest_of_a_consumed_span_is_reported_as_detected() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let actions = machine.consumed(0x8020_5678, 21, 0, USER);
    assert_eq!(actions[..3], ["record 0", "abort 0 0x92000410 NotValid", "handled sea"]);
    assert_eq!(actions[3..6], ["record 1", "error event", "handled gsiv"]);
    let mut pages = machine.guest_reads(0);
    assert!(pages.contains(&0x8020_5000));
    loop {
        let more = machine.guest_reads(1);
        if more.is_empty() {
            break;
        }
        pages.extend(more);
        machine.tick();
    }
    pages.sort_unstable();
    assert_eq!(pages, (0..512).map(|page| 0x8020_0000 + (page << 12)).collect::<Vec<u64>>());
    let ledger = machine.responder.ledger();
    assert!(ledger.entries().iter().all(|entry| entry.acknowledged_ns.is_some()));
    assert_eq!((ledger.entries().len(), ledger.poisoned_bytes()), (32, 2 << 20));
}

/// A new kernel has seen no record: neither those that the old one left unread, nor those that it acknowledged.
#[test]
fn poisoned_pages_are_reported_again_after_a_reset() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Polled));
    assert_eq!(machine.detected(0x9000_0000, 12, None), ["record 1", "handled polled"]);
    assert_eq!(machine.detected(0x9000_4000, 12, None), ["queued 1"]);
    machine.consumed(0x9000_8000, 12, 0, USER);
    machine.guest_reads(0);
    assert_eq!(machine.tick(), ["acknowledged 0"]);
    machine.consumed(0x9000_c000, 12, 0, USER);
    machine.consumed(0x9000_d000, 12, 1, USER);
    machine.detected(0x9000_e000, 12, None);
    machine.responder.repaired(Span::around(0x9000_e000, 12), machine.now);
    machine.fill();
    assert_eq!(machine.run(|responder, sink| responder.reset(true, sink)), [""; 0]);
    assert_eq!((machine.guest_reads(0).len(), machine.guest_reads(1).len()), (0, 0));
    let unreported = machine.responder.ledger().entries().iter().filter(|entry| entry.is_poisoned());
    assert_eq!(unreported.filter(|entry| entry.response.is_none()).count(), 5);
    let mut reported = Vec::new();
    for _ in 0..6 {
        machine.tick();
        assert_eq!(machine.guest_reads(0), [0; 0]);
        reported.extend(machine.guest_reads(1));
    }
    assert_eq!(reported, [0x9000_0000, 0x9000_4000, 0x9000_8000, 0x9000_c000, 0x9000_d000]);
    let mut repairable: Vec<u64> = machine.responder.ledger().repairable().map(|span| span.gpa).collect();
    assert_eq!(repairable, reported);
    // If the new guest cannot use them, none is reported.
    machine.run(|responder, sink| responder.reset(false, sink));
    assert_eq!(machine.tick(), [""; 0]);
    repairable.clear();
    assert!(machine.responder.ledger().repairable().eq(repairable.iter().map(|gpa| Span::around(*gpa, 12))));
}

/// A crash kernel that copies memory reads every page of a span, one by one.
#[test]
fn the_rest_of_a_consumed_span_is_reported_once() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let mut reported = 0;
    for page in 0..512 {
        let done = machine.consumed(0x8020_0000 + (page << 12), 21, 0, USER);
        assert!(done.contains(&"record 0".into()), "{page} {done:?}");
        assert!(machine.guest_reads(0).contains(&(0x8020_0000 + (page << 12))));
        loop {
            let more = machine.guest_reads(1).len();
            reported += more;
            machine.tick();
            if more == 0 {
                break;
            }
        }
    }
    assert_eq!(reported, 512 - 16);
    let ledger = machine.responder.ledger();
    assert!(ledger.repairable().eq([Span::around(0x8020_0000, 21)]));
}

#[test]
fn no_two_records_are_equal() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let mut seen = std::collections::HashSet::new();
    for source in [0, 1, 0, 1] {
        if source == 0 {
            machine.consumed(0x8000_1000, 12, 0, USER);
        } else {
            machine.detected(0x8000_1000, 12, None);
        }
        let block = machine.area.as_ref().unwrap().slot(source).unwrap().block_gpa;
        assert!(seen.insert(machine.read(block, 172)));
        machine.guest_reads(source);
        machine.tick();
    }
}

#[test]
fn a_devicetree_guest_gets_an_exception_without_a_record() {
    let known = VcpuState::Aarch64(Consumption {
        level: ExceptionLevel::El1,
        access: Access::Write,
        far: Some(0xffff_0000_1234_5678),
    });
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, None, None);
    let far = FaultAddress::At(0xffff_0000_1234_5678);
    assert_eq!(
        machine.consumed(0x8000_1000, 12, 3, known),
        [format!("abort 3 0x96000050 {far:?}"), "handled abort".into()]
    );
    assert_eq!(machine.detected(0x8000_1000, 12, None), ["handled ignore"]);
    let mut machine =
        Machine::new(&arm(), TableSet::Devicetree, Some(Response::Serror), Some(Response::Stop));
    assert_eq!(machine.consumed(0x8000_1000, 12, 3, known), ["serror 3 Some(c11)", "handled serror"]);
    assert_eq!(
        machine.detected(0x8000_1000, 12, None),
        ["handled stop".into(), format!("stop {:?}", StopReason::Planned)]
    );
}

#[test]
fn an_x86_guest_without_recovery_gets_a_record_and_an_nmi() {
    let mut machine = Machine::new(&x86(0, Vendor::Amd), TableSet::Acpi, None, Some(Response::External));
    assert_eq!(
        machine.consumed(0x1234, 12, 1, VcpuState::X86_64(READY)),
        ["record 0", "nmi 1", "handled nmi"]
    );
    assert_eq!(machine.guest_reads(0), [0x1000]);
    assert_eq!(
        machine.detected(0x5000, 12, None),
        ["acknowledged 0", "record 1", "interrupt 20", "handled external"]
    );
    assert_eq!(machine.guest_reads(1), [0x5000]);
}

/// The guest acknowledged the record and killed the process; then another process accesses the page.
#[test]
fn a_page_that_is_consumed_again_is_reported_again() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    for vcpu in [0, 0, 1] {
        let actions = machine.consumed(0x8000_1000, 12, vcpu, USER);
        assert_eq!(actions[actions.len() - 3], "record 0");
        assert_eq!(actions[actions.len() - 1], "handled sea");
        assert!(machine.responder.ledger().at(0x8000_1000).unwrap().acknowledged_ns.is_none());
        assert_eq!(machine.guest_reads(0), [0x8000_1000]);
    }
    // Detected again, and consumed once more: each has its record.
    assert_eq!(machine.detected(0x8000_1000, 12, None)[1..], ["record 1", "error event", "handled gsiv"]);
    assert_eq!(machine.consumed(0x8000_1000, 12, 1, USER)[0], "record 0");
    assert_eq!((machine.guest_reads(0), machine.guest_reads(1)), (vec![0x8000_1000], vec![0x8000_1000]));
    assert_eq!(machine.tick(), ["acknowledged 0", "acknowledged 1"]);
}

/// Its abort comes with its record, and it does not run before.
#[test]
fn a_vcpu_that_is_held_is_entered_with_its_record_and_abort() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    machine.consumed(0x8000_1000, 12, 0, USER);
    let state = VcpuState::Aarch64(Consumption {
        level: ExceptionLevel::El1,
        access: Access::Write,
        far: Some(0x1234),
    });
    assert_eq!(machine.consumed(0x8000_5000, 12, 1, state), ["queued 0", "hold 1"]);
    machine.guest_reads(0);
    // With the state that it had when it was held.
    assert_eq!(machine.tick(), ["acknowledged 0", "record 0", "abort 1 0x96000050 At(4660)", "handled sea"]);
    // Its kernel panics at the abort and never reads the record; a further error of that vCPU is handled without one.
    assert_eq!(machine.consumed(0x8000_9000, 12, 1, USER), ["abort 1 0x92000410 NotValid", "handled abort"]);
    // Linux reads the record at that abort, whichever vCPU it was for; the page is reported when it is accessed again.
    assert_eq!(machine.guest_reads(0), [0x8000_5000]);
    assert_eq!(machine.consumed(0x8000_9000, 12, 1, USER)[..2], ["acknowledged 0", "record 0"]);
}

#[test]
fn memory_that_a_device_accessed_is_reported_as_detected() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let error = MemoryError {
        span: Span::around(0x8000_1000, 12),
        gpa: 0x8000_1000,
        kind: Kind::ActionRequired,
        severity: Severity::Recoverable,
        vcpu: None,
        origin: Origin::Device,
        time_ns: 5,
    };
    let context = machine.context(None);
    let done = machine.run(|responder, sink| responder.report(&error, &context, sink));
    assert_eq!(done, ["record 1", "error event", "handled gsiv"]);
}

/// The queue of a block holds 64 errors. Errors that do not fit stay in the ledger, and are reported once the queue has capacity.
#[test]
fn a_storm_of_errors_is_reported_completely_and_each_page_once() {
    const PAGES: u64 = 1000;
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let page = |index: u64| 0x8000_0000 + index * 0x10_0000;
    let overflowed = (0..PAGES).filter(|index| {
        machine.detected(page(*index), 12, None).iter().any(|what| what.starts_with("overflowed"))
    });
    assert_eq!(overflowed.count() as u64, PAGES - 65);
    let mut reported = Vec::new();
    loop {
        let pages = machine.guest_reads(1);
        if pages.is_empty() {
            break;
        }
        reported.extend(pages);
        machine.tick();
    }
    reported.sort_unstable();
    assert!(reported.into_iter().eq((0..PAGES).map(page)), "each page is reported once");
    assert!(machine.responder.ledger().entries().iter().all(|entry| entry.acknowledged_ns.is_some()));
}

/// A record that is not written is not said to be, and the vCPU gets what the plan has for a record that is not acknowledged.
#[test]
fn a_record_that_cannot_be_written_has_the_fallback_of_the_plan() {
    let is_write = |action: &Action<'_>| matches!(action, Action::Write { .. });
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    machine.fails = is_write;
    let abort = ["not reported 0", "abort 1 0x92000410 NotValid", "handled abort"];
    assert_eq!(machine.consumed(0x8000_1000, 12, 1, USER), abort);
    assert_eq!(machine.consumed(0x8000_1000, 12, 1, USER), abort);
    assert_eq!(machine.detected(0x8000_2000, 12, None), ["not reported 1"]);
    assert_eq!(machine.responder.ledger().at(0x8000_2000).unwrap().response, None);
    assert_eq!(machine.tick(), [""; 0]);
    // The block is free for the next record.
    machine.fails = |_| false;
    assert_eq!(machine.detected(0x8000_3000, 12, None), ["record 1", "error event", "handled gsiv"]);
    assert_eq!(machine.guest_reads(1), [0x8000_3000]);

    let mut machine = Machine::new(&x86(0, Vendor::Intel), TableSet::Acpi, Some(Response::Nmi), None);
    machine.fails = is_write;
    let state = VcpuState::X86_64(READY);
    let stopped = ["not reported 0", "handled stop", "stop RecordAreaPoisoned"];
    assert_eq!(machine.consumed(0x8000_1000, 12, 1, state), stopped);
}

/// A vCPU that waits for the acknowledgement of such a record is released, and accesses the page again.
#[test]
fn no_vcpu_waits_for_a_record_that_is_not_written() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    machine.consumed(0x8000_1000, 12, 0, USER);
    assert_eq!(machine.consumed(0x8000_5000, 12, 1, USER), ["queued 0", "hold 1"]);
    assert_eq!(machine.consumed(0x8000_5000, 12, 2, USER), ["coalesced 0", "hold 2"]);
    machine.guest_reads(0);
    machine.fails = |action| matches!(action, Action::Write { .. });
    assert_eq!(
        machine.tick(),
        ["acknowledged 0", "not reported 0", "abort 1 0x92000410 NotValid", "handled abort", "release 2"]
    );
}

#[test]
fn a_notification_that_cannot_be_raised_is_not_said_to_be() {
    for asynchronous in [Response::Gsiv, Response::External] {
        let host = x86(SER_P, Vendor::Intel);
        let mut machine = Machine::new(&host, TableSet::Acpi, Some(Response::Mce), Some(asynchronous));
        machine.fails = |action| matches!(action, Action::RaiseErrorEvent | Action::RaiseInterrupt { .. });
        assert_eq!(machine.detected(0x8000_1000, 12, None)[1..], ["not reported 1"]);
    }
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Some(Response::Abort), None);
    machine.fails = |action| matches!(action, Action::InjectAbort { .. });
    assert_eq!(machine.consumed(0x1000, 12, 0, USER), ["handled stop", "stop NotDeliverable"]);
}

/// The guest's driver was never seen: its kernel may hang since its vCPU consumed the error, and nothing else reports that.
#[test]
fn a_consumed_error_that_is_never_acknowledged_is_overdue() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    machine.consumed(0x8000_1000, 12, 1, USER);
    machine.detected(0x8000_5000, 12, None);
    assert_eq!(machine.responder.overdue().count(), 0);
    machine.now += 20 * SECOND;
    // A detected error waits for a driver that starts later: that is no reason to suspect a hang.
    assert_eq!(machine.tick(), ["overdue 0, consumed by 1"]);
    let overdue = Unacknowledged {
        source: Some(0),
        span: Span::around(0x8000_1000, 12),
        severity: Severity::Recoverable,
        consumed_by: Some(1),
    };
    assert!(machine.responder.overdue().eq([overdue]));
    machine.guest_reads(0);
    assert_eq!(machine.tick(), ["acknowledged 0"]);
    assert_eq!(machine.responder.overdue().count(), 0);
}

/// An error of this severity that nothing has consumed.
fn detected(gpa: u64, severity: Severity) -> MemoryError {
    let span = Span::around(gpa, 12);
    MemoryError {
        span,
        gpa,
        kind: Kind::ActionOptional,
        severity,
        vcpu: None,
        origin: Origin::Einj,
        time_ns: 1,
    }
}

/// The severity of the block of that source, and of its first entry.
fn severities(machine: &Machine, source: u16) -> [Option<Severity>; 2] {
    let slot = machine.area.as_ref().unwrap().slot(source).unwrap();
    let bytes = machine.read(slot.block_gpa, u64::from(slot.block_len));
    let block = StatusBlock::read(&bytes).unwrap();
    let entry = block.entries().next().unwrap();
    [Severity::from_number(block.header.severity.get()), entry.severity()]
}

#[test]
fn a_fatal_error_has_a_fatal_record() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let context = machine.context(None);
    let error = detected(0x8000_1000, Severity::Fatal);
    let actions = machine.run(|responder, sink| responder.report(&error, &context, sink));
    assert_eq!(actions, ["record 1", "error event", "handled gsiv"]);
    assert_eq!(severities(&machine, 1), [Some(Severity::Fatal); 2]);
    let context = machine.context(Some(USER));
    let (gpa, vcpu) = (0x8000_5000, Some(1));
    let consumed = MemoryError { kind: Kind::ActionRequired, vcpu, ..detected(gpa, Severity::Fatal) };
    let actions = machine.run(|responder, sink| responder.report(&consumed, &context, sink));
    assert_eq!(actions, ["record 0", "abort 1 0x92000410 NotValid", "handled sea"]);
    assert_eq!(severities(&machine, 0), [Some(Severity::Fatal); 2]);
}

/// A record of the same page that is less severe does not report it.
#[test]
fn a_fatal_error_is_not_a_part_of_a_recoverable_one() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let report = |machine: &mut Machine, severity| {
        let context = machine.context(None);
        let error = detected(0x8000_1000, severity);
        machine.run(|responder, sink| responder.report(&error, &context, sink))
    };
    report(&mut machine, Severity::Recoverable);
    assert_eq!(report(&mut machine, Severity::Recoverable), ["coalesced 1"]);
    assert_eq!(report(&mut machine, Severity::Fatal), ["queued 1"]);
    assert_eq!(report(&mut machine, Severity::Recoverable), ["coalesced 1"]);
    assert_eq!(machine.guest_reads(1), [0x8000_1000]);
    assert_eq!(machine.tick(), ["acknowledged 1", "record 1", "error event", "handled gsiv"]);
    assert_eq!(severities(&machine, 1), [Some(Severity::Fatal); 2]);
}

/// What did not fit into the queue waits in the ledger, with its severity; and a reset does not make it recoverable either.
#[test]
fn a_fatal_error_that_waits_in_the_ledger_stays_fatal() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Some(Response::Sea), Some(Response::Gsiv));
    let report = |machine: &mut Machine, gpa, severity| {
        let context = machine.context(None);
        let error = detected(gpa, severity);
        machine.run(|responder, sink| responder.report(&error, &context, sink))
    };
    // Far apart: no two of them have one record.
    let mut gpas = (0..).map(|index| 0x8000_0000 + index * 0x10_0000);
    while !report(&mut machine, gpas.next().unwrap(), Severity::Recoverable)
        .iter()
        .any(|action| action.starts_with("overflowed"))
    {}
    let fatal = gpas.next().unwrap();
    report(&mut machine, fatal, Severity::Fatal);
    report(&mut machine, fatal, Severity::Recoverable);
    for reset in [false, true] {
        if reset {
            machine.fill();
            machine.run(|responder, sink| responder.reset(true, sink));
            machine.tick();
        }
        let mut of_fatal = Vec::new();
        loop {
            let slot = machine.area.as_ref().unwrap().slot(1).unwrap();
            if machine.word(slot.block_gpa) == 0 {
                break;
            }
            let severities = severities(&machine, 1);
            let pages = machine.guest_reads(1);
            assert_eq!(
                severities,
                [Some(if pages == [fatal] { Severity::Fatal } else { Severity::Recoverable }); 2]
            );
            of_fatal.extend(pages.contains(&fatal).then_some(severities[0]));
            machine.tick();
        }
        assert_eq!(of_fatal, [Some(Severity::Fatal)], "reset: {reset}");
    }
}
