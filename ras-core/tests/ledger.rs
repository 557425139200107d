//! The ledger against a plain list of pages, and what it lets in from outside.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ras_core::ledger::{Entry, Ledger};
use ras_core::{Kind, MemoryError, Origin, Response, Span};

/// Each page on its own: how often it was lost, whether it was acknowledged and repaired since.
type Pages = BTreeMap<u64, (u64, bool, bool)>;

#[derive(Clone, Debug)]
enum Event {
    Lost(Span),
    Acknowledged(Span),
    Repaired(Span),
}

fn span() -> impl Strategy<Value = Span> {
    (0..64_u64, 12..19_u8).prop_map(|(page, log2_len)| Span::around(0x4000_0000 + (page << 12), log2_len))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => span().prop_map(Event::Lost),
        1 => span().prop_map(Event::Acknowledged),
        1 => span().prop_map(Event::Repaired),
    ]
}

fn lost(span: Span, time_ns: u64) -> MemoryError {
    let kind = Kind::ActionOptional;
    MemoryError { span, gpa: span.gpa, kind, vcpu: None, origin: Origin::Sigbus, time_ns }
}

proptest! {
    #[test]
    fn every_page_that_was_lost_is_found_and_no_other(events in proptest::collection::vec(event(), 0..40)) {
        let mut ledger = Ledger::default();
        let mut pages = Pages::new();
        for (time, event) in (1..).zip(&events) {
            match *event {
                Event::Lost(span) => {
                    ledger.record(&lost(span, time));
                    // One entry is one whole: what befalls a part of it befalls all.
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
        let lost: u64 = pages.values().filter(|page| !page.2).count() as u64 * 4096;
        prop_assert_eq!(ledger.poisoned_bytes(), lost);
        let runs: Vec<(u64, u64)> = ledger.lost().collect();
        prop_assert_eq!(runs.iter().map(|(_, len)| len).sum::<u64>(), lost);
        prop_assert!(runs.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        prop_assert!(runs.iter().all(|(gpa, len)| (*gpa..gpa + len).step_by(4096).all(|page| !pages[&page].2)));
        // What may be repaired is whole, and no page of it is in doubt; what is whole and in no doubt may be repaired.
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
        // Written and read, it is the same; and so are its entries in any order.
        let text = serde_json::to_string(&ledger).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Ledger>(&text).unwrap(), &ledger);
        let backwards: Vec<Entry> = ledger.entries().iter().rev().copied().collect();
        prop_assert_eq!(&Ledger::try_from(backwards).unwrap(), &ledger);
    }

    #[test]
    fn nothing_that_is_read_makes_it_panic(
        spans in proptest::collection::vec((any::<u64>(), any::<u8>(), any::<u64>(), 0..40_u8, any::<bool>()), 0..6),
        gpa in any::<u64>(),
        len in any::<u64>(),
    ) {
        let entries = spans.into_iter().map(|(gpa, log2_len, times, wide, sound)| {
            let span = if sound { Span::around(gpa, log2_len % 17) } else { Span { gpa, log2_len } };
            let poisoned_with = if sound { Span::around(gpa, wide) } else { Span { gpa, log2_len: wide } };
            Entry {
                span,
                poisoned_with,
                first_seen_ns: times / 2,
                last_seen_ns: times,
                times,
                origin: Origin::Injected,
                consumed_by: None,
                answered: Some(Response::Sea),
                acknowledged_ns: None,
                repaired_ns: None,
            }
        });
        if let Ok(mut ledger) = Ledger::try_from(entries.collect::<Vec<_>>()) {
            let found = ledger.within(gpa, len).len();
            prop_assert!(found <= ledger.entries().len());
            let _ = (ledger.at(gpa), ledger.poisoned_bytes(), ledger.lost().count(), ledger.repairable().count());
            ledger.record(&lost(Span { gpa, log2_len: len as u8 }, 1));
            ledger.answered(Span { gpa, log2_len: len as u8 }, Response::Ignore);
            prop_assert!(ledger.at(gpa).is_some());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in r#"\[(\{"span":\{"gpa":[0-9]{1,20},"log2_len":[0-9]{1,3}\},?\}?,?)*\]?"#) {
        let _ = serde_json::from_str::<Ledger>(&text);
    }
}

/// A vCPU consumed one page of what was lost together: what the guest acknowledged of the rest stays acknowledged.
#[test]
fn a_touch_puts_one_page_in_doubt() {
    let mut ledger = Ledger::default();
    let whole = Span::around(0x4000_0000, 21);
    let touch =
        |gpa, time_ns| MemoryError { gpa, kind: Kind::ActionRequired, vcpu: Some(1), ..lost(whole, time_ns) };
    ledger.record(&touch(0x4000_1000, 1));
    ledger.acknowledged(whole, 2);
    ledger.record(&touch(0x4003_4000, 3));
    let doubtful = ledger.entries().iter().filter(|entry| entry.acknowledged_ns.is_none());
    assert!(doubtful.map(|entry| entry.span).eq([Span::around(0x4003_4000, 16)]));
    assert_eq!(ledger.repairable().count(), 0);
    ledger.acknowledged(Span::around(0x4003_4000, 16), 4);
    assert!(ledger.repairable().eq([whole]));
    assert_eq!([ledger.repairable_after(9, 12).count(), ledger.repairable_after(9, 13).count()], [0, 1]);
    assert_eq!(ledger.repairable_after(9, 8).count(), 0);
    // Lost anew, it is nothing that anybody was told of.
    ledger.answered(whole, Response::Sea);
    ledger.repaired(whole, 5);
    ledger.record(&touch(0x4003_4000, 6));
    assert!(ledger.entries().iter().all(|entry| (entry.answered, entry.acknowledged_ns) == (None, None)));
    // A host that reports a page of it alone does not make less of what it took with it.
    ledger.record(&MemoryError { span: Span::around(0x4000_5000, 12), ..touch(0x4000_5000, 7) });
    assert_eq!(ledger.at(0x4000_5000).unwrap().poisoned_with, whole);
}

#[test]
fn what_is_no_ledger_is_refused() {
    let mut ledger = Ledger::default();
    ledger.record(&lost(Span::around(0x1000, 12), 5));
    let good = ledger.entries()[0];
    for (bad, why) in [
        (Entry { span: Span { gpa: 0x1000, log2_len: 200 }, ..good }, "no such span"),
        (Entry { span: Span { gpa: 0x1001, log2_len: 12 }, ..good }, "no such span"),
        (Entry { poisoned_with: Span::around(0x20_0000, 12), ..good }, "outside"),
        (Entry { times: 0, ..good }, "never"),
        (Entry { first_seen_ns: 6, ..good }, "before"),
    ] {
        let refused = Ledger::try_from(vec![bad]).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert!(Ledger::try_from(vec![good, good]).unwrap_err().to_string().contains("two entries"));
}

/// The binary logarithm of 100,000 is 17: a look-up that walked the list would take thousands of times as long.
#[test]
fn a_look_up_among_many_is_quick() {
    let mut ledger = Ledger::with_capacity(100_000);
    (0..100_000_u64).for_each(|page| ledger.record(&lost(Span::around(page << 13, 12), page)));
    let start = std::time::Instant::now();
    let found = (0..1_000_000_u64).filter(|page| ledger.at((page % 200_000) << 12).is_some()).count();
    assert_eq!(found, 500_000);
    println!("{} ns for a look-up", start.elapsed().as_nanos() / 1_000_000);
    assert!(start.elapsed().as_secs() < 5);
}
