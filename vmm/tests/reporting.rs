//! Errors that the guest need not know of: in memory of the VMM's own making, and in pages that were replaced meanwhile.

mod parts;

use std::time::{Duration, Instant};

use guest_memory::Backing;
use guest_memory::sigbus::Action;
use parts::{Parts, TABLE, TABLE_BYTE, parts};
use ras_core::actions::Unacknowledged;
use ras_core::request::Arch;
use ras_core::vcpu_state::{Access, Consumption, ExceptionLevel, MachineCheckState, VcpuState};
use ras_core::{Origin, Response, Severity, Span};
use serde_json::json;
use vcpu::PoisonAccess;
use vmm::metrics::{Sample, Subject};
use vmm::ras::inject::from_guest::{Admission, MAX_POISONED, admit};
use vmm::ras::{DetectedError, Hole};

const PAGE: u64 = 0x1000;
const USER: VcpuState =
    VcpuState::Aarch64(Consumption { level: ExceptionLevel::El0, access: Access::Read, far: None });

fn arm(backing: Backing) -> Parts {
    parts(Arch::Aarch64, [Some(Response::Sea), Some(Response::Gsiv)], 2, backing).expect("a plan")
}

fn count(parts: &Parts, event: &str) -> u64 {
    parts.journal.counts().get(event).copied().unwrap_or_default()
}

fn consumed(parts: &Parts, vcpu: u32, gpa: u64) {
    parts.reporting.consumed(vcpu, parts.access(gpa), &mut || Some(USER));
}

fn word(parts: &Parts, gpa: u64) -> u64 {
    parts.ram.load_u64(gpa).expect("memory")
}

/// Fills the holes, as the main thread does while no vCPU runs.
fn fill_holes(parts: &Parts) {
    for hole in parts.reporting.take_restored_holes() {
        parts.reporting.filled(hole, Ok(()));
    }
}

/// Every kind of page that the VMM has made, consumed by a vCPU and detected: its contents are as before, and the guest gets nothing.
#[test]
fn reserved_pages_are_restored_and_the_guest_is_not_notified() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let parts = arm(backing);
        let slots: Vec<_> = parts.area.as_ref().expect("records").slots().collect();
        let pages = [TABLE, slots[0].cell_gpa, slots[0].ack_gpa, slots[0].block_gpa, slots[1].block_gpa];
        let mut before = vec![0; parts::MEMORY as usize];
        parts.ram.read(0, &mut before).expect("memory");
        for (gpa, times) in pages.into_iter().zip(1..) {
            for is_consumed in [true, false] {
                // Poison destroys what the page held.
                parts.ram.write(gpa, &[0xee; PAGE as usize]).expect("memory");
                if is_consumed {
                    consumed(&parts, 1, gpa + 8);
                } else {
                    parts.reporting.memslot_holes().insert(Span::around(gpa, 12));
                    let fault = parts.fault(gpa, Action::Optional);
                    parts.reporting.detected(DetectedError::Signalled(fault));
                }
                let mut after = vec![0; parts::MEMORY as usize];
                parts.ram.read(0, &mut after).expect("memory");
                assert!(before == after, "{gpa:#x}, {backing:?}");
                // Only simulated poison holds its vCPU, until the memslots are whole again.
                assert_eq!(parts.control.has_pending(), is_consumed);
                fill_holes(&parts);
                assert!(!parts.control.has_pending() && !parts.reporting.memslot_holes().contains(gpa));
            }
            assert_eq!(count(&parts, "memory-error"), 2 * times);
            assert_eq!(count(&parts, "repaired"), 2 * times);
        }
        for event in ["record-written", "notified", "answered", "not-repaired", "not-reported"] {
            assert_eq!(count(&parts, event), 0, "{event}");
        }
        assert_eq!(parts.reporting.ledger().bytes_lost, 0);

        // The next error of a process is reported as always.
        consumed(&parts, 0, 0x5000);
        assert_eq!((count(&parts, "record-written"), count(&parts, "notified")), (1, 1));
        assert!(parts.control.has_exception(0));
        assert_eq!(word(&parts, slots[0].ack_gpa), 0);
    }
}

/// KVM_EXIT_ARM_SEA, and the host cannot isolate the page (no CAP_SYS_ADMIN, or no memory failure handling): it can be read, and is
/// replaced all the same. The vCPU, entered again, would consume the same error for ever.
#[test]
fn a_reserved_page_after_an_abort_is_replaced_although_it_can_be_read() {
    let parts = arm(Backing::Anonymous);
    for times in 1..3 {
        parts.ram.write(TABLE, &[0xee; PAGE as usize]).expect("memory");
        let access = PoisonAccess::ArmSea { gpa: Some(TABLE + 8) };
        parts.reporting.consumed(0, access, &mut || Some(USER));
        let mut table = [0; PAGE as usize];
        parts.ram.read(TABLE, &mut table).expect("memory");
        assert_eq!(table, [TABLE_BYTE; PAGE as usize]);
        assert_eq!((count(&parts, "memory-error"), count(&parts, "repaired")), (times, times));
    }
    assert!(!parts.control.has_pending());
    assert_eq!((count(&parts, "record-written"), count(&parts, "not-repaired")), (0, 0));
}

/// What guest and VMM have made of a record is in the page that replaces that of its register, or that of its block.
#[test]
fn a_record_survives_the_poison_of_its_pages() {
    let parts = arm(Backing::Anonymous);
    let slot = parts.area.as_ref().expect("records").slot(0).expect("a source");
    consumed(&parts, 0, 0x5000);
    let mut block = [0; 256];
    parts.ram.read(slot.block_gpa, &mut block).expect("memory");
    assert_ne!(block[..4], [0; 4]);
    for gpa in [slot.ack_gpa, slot.block_gpa] {
        parts.ram.write(gpa, &[0xee; PAGE as usize]).expect("memory");
        consumed(&parts, 1, gpa);
        fill_holes(&parts);
        let mut after = [0; 256];
        parts.ram.read(slot.block_gpa, &mut after).expect("memory");
        assert_eq!((word(&parts, slot.ack_gpa), after), (0, block), "{gpa:#x}");
    }
    // The guest has handled it, and its acknowledgement is lost with the page: the block tells that there was one.
    parts.ram.store_u32(slot.block_gpa, 0).expect("memory");
    parts.ram.write(slot.ack_gpa, &[0xee; PAGE as usize]).expect("memory");
    consumed(&parts, 1, slot.ack_gpa);
    fill_holes(&parts);
    assert_eq!(word(&parts, slot.ack_gpa), 1);
    parts.reporting.tick();
    assert_eq!(count(&parts, "acknowledged"), 1);
}

/// A balloon gives pages back to the host: what was poisoned in them is repaired.
#[test]
fn poisoned_pages_that_a_device_gives_back_are_repaired() {
    let parts = arm(Backing::Anonymous);
    assert!(!parts.reporting.has_poisoned_pages());
    // A page of the host, not a memslot hole as in the other tests.
    consumed(&parts, 0, 0x5000);
    parts.reporting.memslot_holes().remove(Span::around(0x5000, 12));
    parts.reporting.memslot_holes().insert(Span::around(0x6000, 12));
    let fault = parts.fault(0x6000, Action::Optional);
    parts.reporting.detected(DetectedError::Signalled(fault));
    let poisoned = || parts.reporting.ledger().bytes_lost;
    assert_eq!(poisoned(), 2 * PAGE);
    // Others, and a part of the page.
    for (gpa, len) in [(0x4000, PAGE), (0x7000, 4 * PAGE), (0x5001, PAGE), (0x5000, PAGE - 1), (0, 0)] {
        parts.reporting.discarded(gpa, len);
    }
    assert_eq!((poisoned(), count(&parts, "repaired")), (2 * PAGE, 0));
    parts.reporting.discarded(0x4000, 8 * PAGE);
    assert_eq!((poisoned(), count(&parts, "repaired")), (PAGE, 1));
    assert!(parts.reporting.has_poisoned_pages());
    // The main thread fills the memslot hole.
    assert_eq!(parts.reporting.repairable(), [Span::around(0x6000, 12)]);
    assert_eq!(parts.reporting.repairable(), []);
    parts.reporting.repaired(Span::around(0x6000, 12));
    assert_eq!((poisoned(), count(&parts, "repaired")), (0, 2));
    assert!(!parts.reporting.has_poisoned_pages());
    parts.reporting.discarded(0x4000, 8 * PAGE);
    assert_eq!(count(&parts, "repaired"), 2, "once");
}

/// The error arrives after the last one of the old machine was taken, and before its memory is renewed.
#[test]
fn an_error_of_the_time_before_a_reset_is_not_reported_to_the_new_guest() {
    let mut parts = arm(Backing::Anonymous);
    let fault = parts.fault(0x5000, Action::Optional);
    parts.reporting.memslot_holes().insert(Span::around(0x5000, 12));
    // The reset: fresh pages.
    parts.ram.zero_except(&[]).expect("memory");
    parts.reporting.renewed(&[]);
    parts.boot();
    parts.reporting.detected(DetectedError::Signalled(fault));
    assert_eq!((count(&parts, "memory-error"), count(&parts, "record-written")), (1, 0));
    let ledger = parts.reporting.ledger();
    assert_eq!((ledger.bytes_lost, &ledger.entries[0]["answered"]), (0, &"ignore".into()));
    // Poisoned again, it is an error of the new guest.
    parts.reporting.memslot_holes().insert(Span::around(0x5000, 12));
    parts.reporting.detected(DetectedError::Signalled(fault));
    assert_eq!((count(&parts, "memory-error"), count(&parts, "record-written")), (2, 1));
}

/// An empty pool of huge pages, for example: what is still poisoned is so in the ledger too, and its memslot hole stays.
#[test]
fn pages_that_a_reset_could_not_replace_stay_poisoned() {
    let parts = arm(Backing::Anonymous);
    for gpa in [0x5000, 0x8000] {
        consumed(&parts, 0, gpa);
    }
    // Nobody has consumed these.
    for gpa in [0xb000, 0xc000] {
        parts.reporting.memslot_holes().insert(Span::around(gpa, 12));
    }
    let ranges = |parts: &Parts| {
        let mut ranges = parts.reporting.poisoned_ranges();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    };
    assert_eq!(ranges(&parts), [(0x5000, PAGE), (0x8000, PAGE), (0xb000, PAGE), (0xc000, PAGE)]);
    let failed = [0x8000, 0xc000].map(|gpa| (Span::around(gpa, 12), std::io::ErrorKind::OutOfMemory.into()));
    parts.reporting.renewed(&failed);
    assert_eq!(ranges(&parts), [(0x8000, PAGE), (0xc000, PAGE)]);
    assert_eq!((count(&parts, "repaired"), count(&parts, "not-repaired")), (1, 2));
    // The next reset tries it again.
    parts.reporting.renewed(&[]);
    assert_eq!(ranges(&parts), []);
    assert!(!parts.reporting.has_poisoned_pages());
}

/// With `mce`, an error waits for vCPU 0. A worse one of the same page meanwhile is the one that is reported.
#[test]
fn a_fatal_error_of_a_page_whose_recoverable_one_waits_is_reported_as_fatal() {
    let responses = [Some(Response::Mce), Some(Response::Mce)];
    let parts = parts(Arch::X86_64, responses, 1, Backing::Anonymous).expect("a plan");
    parts.reporting.memslot_holes().insert(Span::around(0x5000, 12));
    let fault = parts.fault(0x5000, Action::Optional);
    for severity in [Severity::Recoverable, Severity::Fatal, Severity::Recoverable] {
        parts.reporting.memslot_holes().set_severity(0x5000, severity);
        parts.reporting.detected(DetectedError::Signalled(fault));
    }
    let ready = MachineCheckState { in_progress: false, enabled: true, local: false, detected_unread: false };
    parts.reporting.pre_entry(0, &mut || Some(VcpuState::X86_64(ready)));
    let reported = parts.reporting.unacknowledged().expect("a machine check");
    assert_eq!((reported.span.gpa, reported.severity), (0x5000, Severity::Fatal));
}

/// A page that cannot be replaced, here because some of it is the guest's own, has the response of the plan.
#[test]
fn memory_that_is_not_all_reserved_is_reported() {
    let parts = arm(Backing::Anonymous);
    parts.reporting.memslot_holes().insert(Span::around(TABLE, 16));
    let fault = guest_memory::sigbus::Fault { log2_len: 16, ..parts.fault(TABLE, Action::Optional) };
    parts.reporting.detected(DetectedError::Signalled(fault));
    assert_eq!((count(&parts, "record-written"), count(&parts, "repaired")), (1, 0));
    let mut byte = [0];
    parts.ram.read(TABLE, &mut byte).expect("memory");
    assert_eq!(byte, [TABLE_BYTE]);
}

fn metrics(parts: &Parts) -> serde_json::Value {
    Sample::take(Subject::default(), &parts.reporting).json()
}

/// A guest that never acknowledges what its vCPU consumed may hang: status and metrics say so.
#[test]
fn an_overdue_acknowledgement_is_in_status_and_metrics() {
    let parts = arm(Backing::Anonymous);
    consumed(&parts, 1, 0x5008);
    assert_eq!(metrics(&parts)["overdue"], json!([]));
    tick_until(&parts, || !parts.reporting.overdue().is_empty());
    let expected = json!([{ "source": 0, "gpa": 0x5000, "span": 4096, "consumed_by": 1 }]);
    assert_eq!(metrics(&parts)["overdue"], expected);
    assert_eq!(count(&parts, "overdue"), 1);
}

/// A machine check has no record: what shows that its handler has not ended is a register of the vCPU, which has to exit for that.
#[test]
fn an_overdue_machine_check_is_in_status_and_metrics() {
    let responses = [Some(Response::Mce), Some(Response::Ignore)];
    let mut parts = parts(Arch::X86_64, responses, 2, Backing::Anonymous).expect("a plan");
    let state = |in_progress| {
        let state = MachineCheckState { in_progress, enabled: true, detected_unread: false, local: false };
        Some(VcpuState::X86_64(state))
    };
    parts.reporting.consumed(1, parts.access(0x5008), &mut || state(false));
    assert!(!parts.reporting.needs_vcpu_state());
    tick_until(&parts, || parts.reporting.needs_vcpu_state());
    // Only that vCPU is asked.
    parts.reporting.pre_entry(0, &mut || unreachable!("its state is not awaited"));
    // It has not taken its machine check yet, for example because it was paused.
    assert!(parts.control.has_exception(1));
    parts.reporting.pre_entry(1, &mut || state(false));
    assert!(!parts.reporting.needs_vcpu_state());
    assert_eq!(metrics(&parts)["overdue"], json!([]));
    parts.reporting.tick();
    assert!(parts.reporting.needs_vcpu_state());
    parts.reporting.pre_entry(1, &mut || state(true));
    let expected = json!([{ "source": null, "gpa": 0x5000, "span": 4096, "consumed_by": 1 }]);
    assert_eq!(metrics(&parts)["overdue"], expected);
    assert_eq!(count(&parts, "overdue"), 1);
    // It is not asked again and again.
    parts.reporting.tick();
    assert!(!parts.reporting.needs_vcpu_state());
    parts.boot();
    assert_eq!(metrics(&parts)["overdue"], json!([]));
}

/// Its registers say that no machine check is in progress, and it has not taken the one that is pending.
#[test]
fn a_vcpu_that_stops_before_its_machine_check_has_not_ended_it() {
    let responses = [Some(Response::Mce), Some(Response::Ignore)];
    let mut parts = parts(Arch::X86_64, responses, 2, Backing::Anonymous).expect("a plan");
    let state = MachineCheckState { in_progress: false, enabled: true, detected_unread: false, local: false };
    parts.reporting.consumed(1, parts.access(0x5008), &mut || Some(VcpuState::X86_64(state)));
    (0..2).for_each(|vcpu| parts.reporting.stopped(vcpu, &mut || Some(VcpuState::X86_64(state))));
    let (span, severity) = (Span::around(0x5000, 12), Severity::Recoverable);
    let expected = Unacknowledged { source: None, span, severity, consumed_by: Some(1) };
    assert_eq!(parts.reporting.unacknowledged(), Some(expected));
    parts.boot();
    assert_eq!(parts.reporting.unacknowledged(), None);
    assert_eq!(count(&parts, "overdue"), 0);
}

/// Advances the time.
fn tick_until(parts: &Parts, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "nothing has happened for 60 s");
        std::thread::sleep(Duration::from_millis(20));
        parts.reporting.tick();
    }
}

/// The hole of an error that the guest has injected.
fn injected_by_guest(gpa: u64, severity: Severity) -> Hole {
    Hole { span: Span::around(gpa, 12), origin: Origin::Einj, severity }
}

#[test]
fn an_error_that_the_guest_has_injected_is_reported_as_such() {
    for (severity, number) in [(Severity::Recoverable, 0), (Severity::Fatal, 1)] {
        let parts = arm(Backing::Anonymous);
        for (gpa, is_consumed, source) in [(0x5000, true, 0), (0x6000, false, 1)] {
            parts.reporting.memslot_holes().insert(injected_by_guest(gpa, severity));
            if is_consumed {
                consumed(&parts, 1, gpa);
            } else {
                let fault = parts.fault(gpa, Action::Optional);
                parts.reporting.detected(DetectedError::Signalled(fault));
            }
            let slot = parts.area.as_ref().expect("records").slot(source).expect("a source");
            // The severity of the block (ACPI 6.5, 18.3.2.7.1).
            let mut block = [0; 20];
            parts.ram.read(slot.block_gpa, &mut block).expect("memory");
            assert_eq!(block[16..], [number, 0, 0, 0]);
        }
        let ledger = parts.reporting.ledger();
        let origins = ledger.entries.as_array().expect("entries").iter().map(|entry| &entry["origin"]);
        assert!(origins.eq([&json!("einj"), &json!("einj")]), "{ledger:?}");
    }
}

#[test]
fn a_guest_cannot_inject_without_bound() {
    let parts = arm(Backing::Anonymous);
    let holes = parts.reporting.memslot_holes();
    let page = |number: usize| Span::around((number as u64) << 12, 12);
    for number in 0..MAX_POISONED {
        assert_eq!(admit(&parts.reporting, page(number), Severity::Recoverable), Admission::Poison);
        holes.insert(injected_by_guest(page(number).gpa, Severity::Recoverable));
    }
    assert_eq!(admit(&parts.reporting, page(MAX_POISONED), Severity::Fatal), Admission::TooMany);
    // A page that is poisoned already costs nothing; its error is the more severe of the two.
    for severity in [Severity::Fatal, Severity::Recoverable] {
        assert_eq!(admit(&parts.reporting, page(3), severity), Admission::PoisonedAlready);
        assert_eq!(holes.hole_at(page(3).gpa).expect("a hole").severity, Severity::Fatal);
    }
    holes.remove(page(7));
    assert_eq!(admit(&parts.reporting, page(MAX_POISONED), Severity::Fatal), Admission::Poison);
}
