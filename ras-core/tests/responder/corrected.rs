//! Corrected errors: every one of them is reported or counted as not reported, and none of them poisons a page.

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use proptest::prelude::*;
use ras_core::abilities::HostAbilities;
use ras_core::acceptance::{GuestAction, LinuxOutcome, linux_accepts};
use ras_core::actions::Action;
use ras_core::request::TableSet;
use ras_core::status_block::section_flags;
use ras_core::{
    CorrectedErrors, ErrorSource, Kind, Notification, Response, Severity, StatusBlock, Threshold,
};

use crate::machine::{Machine, SECOND, arm, pages_of};

const SOURCE: u16 = ErrorSource::CORRECTED;
const WRITTEN: [&str; 3] = ["record 2", "error event", "handled gsiv"];

fn threshold(errors: u32) -> Option<Threshold> {
    let [errors, window_ms] = [errors, 60_000].map(|number| NonZeroU32::new(number).expect("not zero"));
    Some(Threshold { errors, window_ms })
}

fn machine(host: &HostAbilities, threshold: Option<Threshold>) -> Machine {
    let responses = [Response::Stop, Response::Gsiv, Response::Gsiv].map(Some);
    Machine::with_corrected(host, TableSet::Acpi, responses, threshold)
}

/// The block in memory, and what Linux does with it.
fn block(machine: &Machine) -> (Vec<u8>, LinuxOutcome) {
    let slot = machine.area.as_ref().expect("an area").slot(SOURCE).expect("the source");
    let bytes = machine.read(slot.block_gpa, u64::from(slot.block_len));
    let outcome = linux_accepts(&bytes, slot.block_len, slot.source.notification).expect("accepted");
    (bytes, outcome)
}

fn numbers(machine: &Machine) -> (u64, u64, u64) {
    let CorrectedErrors { errors, not_reported, thresholds } = machine.responder.corrected_errors();
    (errors, not_reported, thresholds)
}

#[test]
fn a_record_is_of_a_corrected_error_and_the_page_is_not_poisoned() {
    let mut machine = machine(&arm(), threshold(2));
    assert_eq!(machine.corrected(0x8000_1234), WRITTEN);
    let (bytes, outcome) = block(&machine);
    let written = StatusBlock::read(&bytes).expect("a block");
    assert_eq!(pages_of(&written), [0x8000_1000]);
    assert!(written.entries().all(|entry| entry.severity() == Some(Severity::Corrected)));
    assert_eq!(outcome, LinuxOutcome::Handled { actions: vec![], kills_current_task: false });
    let context = machine.context(None);
    // A guest that dies now did not die of it.
    assert_eq!(machine.responder.unacknowledged(&context), None);
    assert!(machine.responder.ledger().entries().is_empty());

    machine.guest_reads(SOURCE);
    assert_eq!(machine.tick(), ["acknowledged 2"]);
    // The second error of the page reaches the threshold: Linux migrates its contents.
    assert_eq!(machine.corrected(0x8000_1000), [&["threshold 2 0x80001000 2"], &WRITTEN[..]].concat());
    let (_, outcome) = block(&machine);
    let actions = vec![GuestAction::SoftOffline { pfn: 0x8_0001 }];
    assert_eq!(outcome, LinuxOutcome::Handled { actions, kills_current_task: false });
    assert_eq!((numbers(&machine), machine.responder.ledger().poisoned_bytes()), ((2, 0, 1), 0));
}

#[test]
fn errors_of_a_page_wait_together_and_have_an_entry_each() {
    let mut machine = machine(&arm(), threshold(20));
    assert_eq!(machine.corrected(0x8000_0000), WRITTEN);
    assert_eq!(machine.corrected(0x8000_1000), ["queued 2"]);
    assert_eq!(machine.corrected(0x8000_2000), ["queued 2"]);
    for _ in 0..18 {
        assert_eq!(machine.corrected(0x8000_1800), ["coalesced 2"]);
    }
    assert_eq!(machine.corrected(0x8000_1800), ["threshold 2 0x80001000 20", "coalesced 2"]);
    let mut read = Vec::new();
    for flagged in [false, false, false, true] {
        let (bytes, outcome) = block(&machine);
        let LinuxOutcome::Handled { actions, .. } = outcome else { panic!("handled") };
        assert_eq!(!actions.is_empty(), flagged);
        let written = StatusBlock::read(&bytes).expect("a block");
        let flags: Vec<_> = written.entries().map(|entry| entry.header.flags).collect();
        let is_flagged = |flags: &u8| flags & section_flags::THRESHOLD_EXCEEDED != 0;
        assert_eq!(flags.iter().position(is_flagged), flagged.then(|| flags.len() - 1), "the last one");
        let pages = machine.guest_reads(SOURCE);
        assert!(pages.iter().all(|page| *page == pages[0]));
        read.push((pages[0], pages.len()));
        machine.tick();
    }
    assert_eq!(read, [(0x8000_0000, 1), (0x8000_1000, 16), (0x8000_2000, 1), (0x8000_1000, 4)]);
    assert_eq!(numbers(&machine), (22, 0, 1));
}

#[test]
fn the_ledger_of_a_poisoned_page_does_not_change_with_its_corrected_errors() {
    let mut machine = machine(&arm(), None);
    machine.detected(0x8000_0000, 12, None);
    assert_eq!(machine.corrected(0x8000_0000), WRITTEN);
    machine.guest_reads(SOURCE);
    assert_eq!(machine.tick(), ["acknowledged 2"]);
    let entry = *machine.responder.ledger().at(0x8000_0000).expect("an entry");
    assert_eq!((entry.times, entry.acknowledged_ns), (1, None));
    machine.guest_reads(1);
    assert_eq!(machine.tick(), ["acknowledged 1"]);
}

#[test]
fn pages_that_do_not_fit_into_the_queue_and_those_of_an_earlier_guest_are_counted() {
    let mut machine = machine(&arm(), None);
    // One is written, and 64 wait.
    for page in 0..65_u64 {
        machine.corrected(page << 12);
    }
    assert_eq!(machine.corrected(1 << 20), ["overflowed 2 1"]);
    assert_eq!(machine.corrected(64 << 12), ["coalesced 2"]);
    assert_eq!(numbers(&machine), (67, 1, 0));
    // It reads none of them in time, and no vCPU waits.
    machine.now += 60 * SECOND;
    machine.tick();
    assert_eq!(machine.corrected(64 << 12), ["coalesced 2"]);
    machine.fill();
    machine.run(|responder, sink| responder.reset(false, sink));
    assert_eq!(machine.tick(), [""; 0]);
    // The one that was written is in the old guest's hands.
    assert_eq!(numbers(&machine), (68, 67, 0));
    assert_eq!(machine.corrected(0), WRITTEN);
}

#[test]
fn errors_whose_record_cannot_be_written_are_counted() {
    let mut machine = machine(&arm(), None);
    assert_eq!(machine.corrected(0x1000), WRITTEN);
    for _ in 0..40 {
        machine.corrected(0x2000);
    }
    machine.guest_reads(SOURCE);
    machine.fails = |action| matches!(action, Action::Write { .. });
    let done = machine.tick();
    assert_eq!(done, ["acknowledged 2", "not reported 2", "not reported 2", "not reported 2"], "40 errors");
    assert_eq!(numbers(&machine), (41, 40, 0));
    machine.fails = |_| false;
    assert_eq!(machine.corrected(0x2000), WRITTEN);
}

#[test]
fn without_a_source_nothing_is_reported() {
    for set in [TableSet::Acpi, TableSet::Devicetree] {
        let mut machine = Machine::new(&arm(), set, None, None);
        assert_eq!(machine.responder.acknowledge_register(Kind::Corrected), None);
        assert_eq!(machine.corrected(0), ["handled ignore"]);
    }
    let responses = [None, None, Some(Response::Polled)];
    let polled = Machine::with_corrected(&arm(), TableSet::Acpi, responses, None);
    let sources: Vec<_> = polled.responder.slots().map(|slot| slot.source).collect();
    let interval_ms = NonZeroU32::new(1000).expect("not zero");
    let notification = Notification::Polled { interval_ms };
    assert_eq!(sources.last(), Some(&ErrorSource { id: SOURCE, notification }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever the order of errors and acknowledgements: the guest reads each error once, or it is counted as not reported.
    #[test]
    fn no_error_is_missing(steps in prop::collection::vec((0..100_u64, 1..30_u8, prop::bool::weighted(0.2)), 1..150)) {
        let mut machine = machine(&arm(), threshold(7));
        let mut reported = BTreeMap::new();
        let mut read = BTreeMap::new();
        let mut guest_reads = |machine: &mut Machine| {
            let pages = machine.guest_reads(SOURCE);
            pages.iter().for_each(|page| *read.entry(*page).or_insert(0_u64) += 1);
            !pages.is_empty()
        };
        for (page, times, reads) in steps {
            for _ in 0..times {
                let done = machine.corrected(page << 12);
                if !done.iter().any(|what| what.starts_with("overflowed")) {
                    *reported.entry(page << 12).or_insert(0_u64) += 1;
                }
            }
            if reads {
                guest_reads(&mut machine);
            }
        }
        machine.tick();
        while guest_reads(&mut machine) {
            machine.tick();
        }
        let CorrectedErrors { errors, not_reported, .. } = machine.responder.corrected_errors();
        prop_assert_eq!(errors - not_reported, reported.values().sum::<u64>());
        prop_assert_eq!(read, reported);
    }
}
