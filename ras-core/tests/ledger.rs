//! The ledger against a simple model, a map of pages; and its validation of entries from outside.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ras_core::ledger::{Entry, Ledger};
use ras_core::{Kind, MemoryError, Origin, Response, Severity, Span};

/// The model: for each page the number of errors, and whether it was acknowledged and repaired since.
type Pages = BTreeMap<u64, (u64, bool, bool)>;

#[derive(Clone, Debug)]
enum Event {
    Poisoned(Span),
    Acknowledged(Span),
    Repaired(Span),
}

fn span() -> impl Strategy<Value = Span> {
    (0..64_u64, 12..19_u8).prop_map(|(page, log2_len)| Span::around(0x4000_0000 + (page << 12), log2_len))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => span().prop_map(Event::Poisoned),
        1 => span().prop_map(Event::Acknowledged),
        1 => span().prop_map(Event::Repaired),
    ]
}

fn error(span: Span, time_ns: u64) -> MemoryError {
    let kind = Kind::ActionOptional;
    MemoryError {
        span,
        gpa: span.gpa,
        kind,
        severity: Severity::Recoverable,
        vcpu: None,
        origin: Origin::Sigbus,
        time_ns,
    }
}

proptest! {
    #[test]
    fn the_ledger_has_exactly_the_poisoned_pages(events in proptest::collection::vec(event(), 0..40)) {
        let mut ledger = Ledger::default();
        let mut pages = Pages::new();
        for (time, event) in (1..).zip(&events) {
            match *event {
                Event::Poisoned(span) => {
                    ledger.record(&error(span, time));
                    // An entry is one unit: an event of a part of it applies to all of it.
                    let whole: Vec<u64> = ledger.within(span.gpa, span.bytes()).iter().flat_map(|entry| entry.span.pages()).collect();
                    for page in whole {
                        let page = pages.entry(page).or_default();
                        *page = (page.0 + 1, false, false);
                    }
                }
                Event::Acknowledged(span) => {
                    ledger.acknowledged(span, time);
                    let wider = |page: u64| ledger.at(page).is_some_and(|entry| entry.span.log2_len > span.log2_len);
                    span.pages().for_each(|page| {
                        if !wider(page) && let Some(known) = pages.get_mut(&page) {
                            known.1 = true;
                        }
                    });
                }
                Event::Repaired(span) => {
                    ledger.repaired(span, time);
                    let wider = |page: u64| ledger.at(page).is_some_and(|entry| entry.span.log2_len > span.log2_len);
                    span.pages().for_each(|page| {
                        if !wider(page) && let Some(known) = pages.get_mut(&page) {
                            known.2 = true;
                        }
                    });
                }
            }
        }
        for page in (0x3ff8_0000_u64..0x4010_0000).step_by(0x1000) {
            let entry = ledger.at(page + 0xfff);
            prop_assert_eq!(entry.is_some(), pages.contains_key(&page), "{:#x}", page);
            if let (Some(entry), Some((_, acknowledged, repaired))) = (entry, pages.get(&page)) {
                prop_assert_eq!(entry.acknowledged_ns.is_some(), *acknowledged);
                prop_assert_eq!(entry.repaired_ns.is_some(), *repaired);
                prop_assert!(entry.times >= 1 && entry.first_seen_ns <= entry.last_seen_ns);
            }
        }
        let poisoned: u64 = pages.values().filter(|page| !page.2).count() as u64 * 4096;
        prop_assert_eq!(ledger.poisoned_bytes(), poisoned);
        prop_assert_eq!(ledger.distinct_pages(), pages.len() as u64);
        prop_assert_eq!(ledger.distinct_pages_since(0), pages.len() as u64);
        prop_assert_eq!(ledger.last().is_some(), !pages.is_empty());
        let runs: Vec<(u64, u64)> = ledger.poisoned_ranges().collect();
        prop_assert_eq!(runs.iter().map(|(_, len)| len).sum::<u64>(), poisoned);
        prop_assert!(runs.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        prop_assert!(runs.iter().all(|(gpa, len)| (*gpa..gpa + len).step_by(4096).all(|page| !pages[&page].2)));
        // A host page is repairable if and only if every page of it is poisoned and acknowledged.
        let ready = |page: u64| pages.get(&page).is_some_and(|page| page.1 && !page.2);
        let repairable: Vec<Span> = ledger.repairable().collect();
        prop_assert!(repairable.iter().all(|span| span.pages().all(ready)));
        for entry in ledger.entries() {
            let widest = ledger.within(entry.poisoned_with.gpa, entry.poisoned_with.bytes()).iter().map(|entry| entry.poisoned_with.log2_len).max();
            if widest == Some(entry.poisoned_with.log2_len) {
                prop_assert_eq!(repairable.contains(&entry.poisoned_with), entry.poisoned_with.pages().all(ready), "{:?}", entry);
            } else {
                prop_assert!(!repairable.contains(&entry.poisoned_with));
            }
        }
        prop_assert!(ledger.entries().windows(2).all(|pair| !pair[0].span.contains(pair[1].span.gpa)));
        // It survives serialisation, and its entries may come in any order.
        let text = serde_json::to_string(&ledger).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Ledger>(&text).unwrap(), &ledger);
        let backwards: Vec<Entry> = ledger.entries().iter().rev().copied().collect();
        prop_assert_eq!(&Ledger::try_from(backwards).unwrap(), &ledger);
    }

    #[test]
    fn no_entries_make_it_panic(
        spans in proptest::collection::vec((any::<u64>(), any::<u8>(), any::<u64>(), 0..40_u8, any::<bool>()), 0..6),
        gpa in any::<u64>(),
        len in any::<u64>(),
    ) {
        let entries = spans.into_iter().map(|(gpa, log2_len, times, wide, valid)| {
            let span = if valid { Span::around(gpa, log2_len % 17) } else { Span { gpa, log2_len } };
            let poisoned_with = if valid { Span::around(gpa, wide) } else { Span { gpa, log2_len: wide } };
            Entry {
                span,
                poisoned_with,
                first_seen_ns: times / 2,
                last_seen_ns: times,
                times,
                origin: Origin::Injected,
                severity: Severity::Recoverable,
                consumed_by: None,
                response: Some(Response::Sea),
                acknowledged_ns: None,
                repaired_ns: None,
            }
        });
        if let Ok(mut ledger) = Ledger::try_from(entries.collect::<Vec<_>>()) {
            let found = ledger.within(gpa, len).len();
            prop_assert!(found <= ledger.entries().len());
            let _ = (ledger.at(gpa), ledger.poisoned_bytes(), ledger.poisoned_ranges().count(), ledger.repairable().count());
            ledger.record(&error(Span { gpa, log2_len: len as u8 }, 1));
            ledger.handled(Span { gpa, log2_len: len as u8 }, Response::Ignore);
            prop_assert!(ledger.at(gpa).is_some());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in r#"\[(\{"span":\{"gpa":[0-9]{1,20},"log2_len":[0-9]{1,3}\},?\}?,?)*\]?"#) {
        let _ = serde_json::from_str::<Ledger>(&text);
    }
}

/// A vCPU consumed one page of a larger span: the guest's acknowledgements of the other pages stay valid.
#[test]
fn a_consumed_page_has_to_be_acknowledged_again_and_no_other() {
    let mut ledger = Ledger::default();
    let whole = Span::around(0x4000_0000, 21);
    let touch = |gpa, time_ns| MemoryError {
        gpa,
        kind: Kind::ActionRequired,
        severity: Severity::Recoverable,
        vcpu: Some(1),
        ..error(whole, time_ns)
    };
    ledger.record(&touch(0x4000_1000, 1));
    ledger.acknowledged(whole, 2);
    ledger.record(&touch(0x4003_4000, 3));
    let unacknowledged = ledger.entries().iter().filter(|entry| entry.acknowledged_ns.is_none());
    assert!(unacknowledged.map(|entry| entry.span).eq([Span::around(0x4003_4000, 16)]));
    assert_eq!(ledger.repairable().count(), 0);
    ledger.acknowledged(Span::around(0x4003_4000, 16), 4);
    assert!(ledger.repairable().eq([whole]));
    assert_eq!([ledger.repairable_after(9, 12).count(), ledger.repairable_after(9, 13).count()], [0, 1]);
    assert_eq!(ledger.repairable_after(9, 8).count(), 0);
    // Poisoned again after the repair, it was neither reported nor acknowledged.
    ledger.handled(whole, Response::Sea);
    ledger.repaired(whole, 5);
    ledger.record(&touch(0x4003_4000, 6));
    assert!(ledger.entries().iter().all(|entry| (entry.response, entry.acknowledged_ns) == (None, None)));
    // If the host reports a single page later, the host page does not become smaller.
    ledger.record(&MemoryError { span: Span::around(0x4000_5000, 12), ..touch(0x4000_5000, 7) });
    assert_eq!(ledger.at(0x4000_5000).unwrap().poisoned_with, whole);
}

#[test]
fn invalid_entries_are_refused() {
    let mut ledger = Ledger::default();
    ledger.record(&error(Span::around(0x1000, 12), 5));
    let good = ledger.entries()[0];
    for (bad, why) in [
        (Entry { span: Span { gpa: 0x1000, log2_len: 200 }, ..good }, "invalid span"),
        (Entry { span: Span { gpa: 0x1001, log2_len: 12 }, ..good }, "invalid span"),
        (Entry { poisoned_with: Span::around(0x20_0000, 12), ..good }, "outside"),
        (Entry { times: 0, ..good }, "never"),
        (Entry { first_seen_ns: 6, ..good }, "before"),
    ] {
        let refused = Ledger::try_from(vec![bad]).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert!(Ledger::try_from(vec![good, good]).unwrap_err().to_string().contains("two entries"));
}

/// The binary logarithm of 100,000 is 17: a linear search would take thousands of times as long.
#[test]
fn a_look_up_among_many_entries_is_fast() {
    let mut ledger = Ledger::with_capacity(100_000);
    (0..100_000_u64).for_each(|page| ledger.record(&error(Span::around(page << 13, 12), page)));
    let start = std::time::Instant::now();
    let found = (0..1_000_000_u64).filter(|page| ledger.at((page % 200_000) << 12).is_some()).count();
    assert_eq!(found, 500_000);
    println!("{} ns for a look-up", start.elapsed().as_nanos() / 1_000_000);
    assert!(start.elapsed().as_secs() < 5);
}
