//! Guests are told by records and by exceptions alone.

use ras_core::abilities::Vendor;
use ras_core::actions::{FaultAddress, StopReason};
use ras_core::request::{Asynchronous, Synchronous, TableSet};
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, VcpuState};
use ras_core::{Kind, MemoryError, Origin, Response, Span};

use crate::machine::{Machine, READY, SECOND, USER, arm, x86};

#[test]
fn a_record_and_an_abort_for_the_vcpu_that_consumed_it() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Auto, Asynchronous::Auto);
    let told = machine.consumed(0x8000_1234, 12, 1, USER);
    assert_eq!(told, ["record 0", "abort 1 0x92000410 NotValid", "answered sea"]);
    assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    assert_eq!(machine.tick(), ["acknowledged 0"]);
    let entry = machine.responder.ledger().at(0x8000_1fff).unwrap();
    assert_eq!((entry.answered, entry.acknowledged_ns), (Some(Response::Sea), Some(SECOND + 2)));
}

#[test]
fn a_second_vcpu_waits_for_its_record() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    machine.consumed(0x8000_1000, 12, 0, USER);
    assert_eq!(machine.consumed(0x8000_5000, 12, 1, USER), ["queued 0", "hold 1"]);
    assert_eq!(machine.consumed(0x8000_1000, 12, 2, USER), ["coalesced 0", "hold 2"]);
    assert_eq!(machine.tick(), [""; 0]);
    assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    assert_eq!(
        machine.tick(),
        ["acknowledged 0", "release 2", "record 0", "abort 1 0x92000410 NotValid", "answered sea"]
    );
    assert_eq!(machine.guest_takes(0), [0x8000_5000]);
}

#[test]
fn a_guest_that_does_not_acknowledge_gets_plain_aborts() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let context = machine.context(None);
    machine.responder.driver_up(&context);
    machine.consumed(0x8000_1000, 12, 0, USER);
    machine.consumed(0x8000_5000, 12, 1, USER);
    machine.now = machine.responder.deadline_ns().unwrap();
    assert_eq!(machine.tick(), ["overdue 0", "abort 1 0x92000410 NotValid", "answered abort"]);
    assert_eq!(machine.consumed(0x8000_9000, 12, 2, USER), ["abort 2 0x92000410 NotValid", "answered abort"]);
    // A kernel that starts later, after a crash, finds the record and answers: records flow again.
    assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    assert_eq!(
        machine.consumed(0x8000_9000, 12, 2, USER),
        ["acknowledged 0", "record 0", "abort 2 0x92000410 NotValid", "answered sea"]
    );
}

#[test]
fn what_was_lost_with_it_is_told_as_found() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let told = machine.consumed(0x8020_5678, 21, 0, USER);
    assert_eq!(told[..3], ["record 0", "abort 0 0x92000410 NotValid", "answered sea"]);
    assert_eq!(told[3..6], ["record 1", "error event", "answered gsiv"]);
    let mut pages = machine.guest_takes(0);
    assert!(pages.contains(&0x8020_5000));
    loop {
        let more = machine.guest_takes(1);
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

/// A new kernel knows nothing: neither of what the old one left unread, nor of what that acknowledged, nor of what it died of.
#[test]
fn what_is_lost_is_told_again_after_a_reset() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Polled);
    assert_eq!(machine.found(0x9000_0000, 12, None), ["record 1", "answered polled"]);
    assert_eq!(machine.found(0x9000_4000, 12, None), ["queued 1"]);
    machine.consumed(0x9000_8000, 12, 0, USER);
    machine.guest_takes(0);
    assert_eq!(machine.tick(), ["acknowledged 0"]);
    machine.consumed(0x9000_c000, 12, 0, USER);
    machine.consumed(0x9000_d000, 12, 1, USER);
    machine.found(0x9000_e000, 12, None);
    machine.responder.repaired(Span::around(0x9000_e000, 12), machine.now);
    machine.fill();
    let context = machine.context(None);
    assert_eq!(machine.run(|responder, sink| responder.reset(true, &context, sink)), [""; 0]);
    assert_eq!((machine.guest_takes(0).len(), machine.guest_takes(1).len()), (0, 0));
    let unreported = machine.responder.ledger().entries().iter().filter(|entry| entry.is_poisoned());
    assert_eq!(unreported.filter(|entry| entry.answered.is_none()).count(), 5);
    let mut told = Vec::new();
    for _ in 0..6 {
        machine.tick();
        assert_eq!(machine.guest_takes(0), [0; 0]);
        told.extend(machine.guest_takes(1));
    }
    assert_eq!(told, [0x9000_0000, 0x9000_4000, 0x9000_8000, 0x9000_c000, 0x9000_d000]);
    let mut repairable: Vec<u64> = machine.responder.ledger().repairable().map(|span| span.gpa).collect();
    assert_eq!(repairable, told);
    // Where the new guest cannot use them, it is told of none.
    let context = machine.context(None);
    machine.run(|responder, sink| responder.reset(false, &context, sink));
    assert_eq!(machine.tick(), [""; 0]);
    repairable.clear();
    assert!(machine.responder.ledger().repairable().eq(repairable.iter().map(|gpa| Span::around(*gpa, 12))));
}

/// A kernel that copies itself out of a crash touches every page of a loss, one by one.
#[test]
fn what_was_lost_with_it_is_told_once() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let mut told = 0;
    for page in 0..512 {
        let done = machine.consumed(0x8020_0000 + (page << 12), 21, 0, USER);
        assert!(done.contains(&"record 0".into()), "{page} {done:?}");
        assert!(machine.guest_takes(0).contains(&(0x8020_0000 + (page << 12))));
        loop {
            let more = machine.guest_takes(1).len();
            told += more;
            machine.tick();
            if more == 0 {
                break;
            }
        }
    }
    assert_eq!(told, 512 - 16);
    let ledger = machine.responder.ledger();
    assert!(ledger.repairable().eq([Span::around(0x8020_0000, 21)]));
}

#[test]
fn no_two_records_are_alike() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let mut seen = std::collections::HashSet::new();
    for source in [0, 1, 0, 1] {
        if source == 0 {
            machine.consumed(0x8000_1000, 12, 0, USER);
        } else {
            machine.found(0x8000_1000, 12, None);
        }
        let block = machine.area.as_ref().unwrap().slot(source).unwrap().block_gpa;
        assert!(seen.insert(machine.read(block, 172)));
        machine.guest_takes(source);
        machine.tick();
    }
}

#[test]
fn a_devicetree_guest_gets_the_exception_alone() {
    let known = VcpuState::Aarch64(Consumption {
        level: ExceptionLevel::El1,
        access: Access::Write,
        far: Some(0xffff_0000_1234_5678),
    });
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Auto, Asynchronous::Auto);
    let far = FaultAddress::At(0xffff_0000_1234_5678);
    assert_eq!(
        machine.consumed(0x8000_1000, 12, 3, known),
        [format!("abort 3 0x96000050 {far:?}"), "answered abort".into()]
    );
    assert_eq!(machine.found(0x8000_1000, 12, None), ["answered ignore"]);
    let mut machine = Machine::new(&arm(), TableSet::Devicetree, Synchronous::Serror, Asynchronous::Stop);
    assert_eq!(machine.consumed(0x8000_1000, 12, 3, known), ["serror 3 Some(c11)", "answered serror"]);
    assert_eq!(
        machine.found(0x8000_1000, 12, None),
        ["answered stop".into(), format!("stop 10 {:?}", StopReason::Planned)]
    );
}

#[test]
fn an_x86_guest_without_recovery_gets_a_record_and_an_nmi() {
    let mut machine =
        Machine::new(&x86(0, Vendor::Amd), TableSet::Acpi, Synchronous::Auto, Asynchronous::External);
    assert_eq!(
        machine.consumed(0x1234, 12, 1, VcpuState::X86_64(READY)),
        ["record 0", "nmi 1", "answered nmi"]
    );
    assert_eq!(machine.guest_takes(0), [0x1000]);
    assert_eq!(
        machine.found(0x5000, 12, None),
        ["acknowledged 0", "record 1", "interrupt 20", "answered external"]
    );
    assert_eq!(machine.guest_takes(1), [0x5000]);
}

/// The guest acknowledged the record and killed who touched the page; then another touches it.
#[test]
fn whoever_touches_a_page_later_is_told_again() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    for vcpu in [0, 0, 1] {
        let told = machine.consumed(0x8000_1000, 12, vcpu, USER);
        assert_eq!(told[told.len() - 3], "record 0");
        assert_eq!(told[told.len() - 1], "answered sea");
        assert!(machine.responder.ledger().at(0x8000_1000).unwrap().acknowledged_ns.is_none());
        assert_eq!(machine.guest_takes(0), [0x8000_1000]);
    }
    // Found again, and consumed once more: each has its record.
    assert_eq!(machine.found(0x8000_1000, 12, None)[1..], ["record 1", "error event", "answered gsiv"]);
    assert_eq!(machine.consumed(0x8000_1000, 12, 1, USER)[0], "record 0");
    assert_eq!((machine.guest_takes(0), machine.guest_takes(1)), (vec![0x8000_1000], vec![0x8000_1000]));
    assert_eq!(machine.tick(), ["acknowledged 0", "acknowledged 1"]);
}

/// Its abort and its record come together, and nothing lets it run before.
#[test]
fn a_vcpu_that_is_held_is_entered_with_its_record_and_abort() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    machine.consumed(0x8000_1000, 12, 0, USER);
    let state = VcpuState::Aarch64(Consumption {
        level: ExceptionLevel::El1,
        access: Access::Write,
        far: Some(0x1234),
    });
    assert_eq!(machine.consumed(0x8000_5000, 12, 1, state), ["queued 0", "hold 1"]);
    machine.guest_takes(0);
    // As it stood when it was held.
    assert_eq!(machine.tick(), ["acknowledged 0", "record 0", "abort 1 0x96000050 At(4660)", "answered sea"]);
    // Its kernel dies of the abort and never reads the record; another program of that vCPU goes on without one.
    assert_eq!(machine.consumed(0x8000_9000, 12, 1, USER), ["abort 1 0x92000410 NotValid", "answered abort"]);
    // That abort has Linux drain the record, whoever it was for; the page is told when it is touched again.
    assert_eq!(machine.guest_takes(0), [0x8000_5000]);
    assert_eq!(machine.consumed(0x8000_9000, 12, 1, USER)[..2], ["acknowledged 0", "record 0"]);
}

#[test]
fn what_a_device_touched_is_told_as_found() {
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let error = MemoryError {
        span: Span::around(0x8000_1000, 12),
        gpa: 0x8000_1000,
        kind: Kind::ActionRequired,
        vcpu: None,
        origin: Origin::Device,
        time_ns: 5,
    };
    let context = machine.context(None);
    let done = machine.run(|responder, sink| responder.report(&error, &context, sink));
    assert_eq!(done, ["record 1", "error event", "answered gsiv"]);
}

/// The queue of a block has room for 64 losses. What finds none waits in the ledger, however much it is, and is told when there is room.
#[test]
fn a_storm_is_told_whole_and_page_by_page_once() {
    const PAGES: u64 = 1000;
    let mut machine = Machine::new(&arm(), TableSet::Acpi, Synchronous::Sea, Asynchronous::Gsiv);
    let page = |index: u64| 0x8000_0000 + index * 0x10_0000;
    let overflowed = (0..PAGES).filter(|index| {
        machine.found(page(*index), 12, None).iter().any(|what| what.starts_with("overflowed"))
    });
    assert_eq!(overflowed.count() as u64, PAGES - 65);
    let mut told = Vec::new();
    loop {
        let pages = machine.guest_takes(1);
        if pages.is_empty() {
            break;
        }
        told.extend(pages);
        machine.tick();
    }
    told.sort_unstable();
    assert!(told.into_iter().eq((0..PAGES).map(page)), "each page is told, and once");
    assert!(machine.responder.ledger().entries().iter().all(|entry| entry.acknowledged_ns.is_some()));
}
