use machine_profile::{Source, parse};
use platform::Arch;

use super::*;

const PAGE: u64 = 0x1000;
const RAM: [Range; 2] = [Range { start: 0, len: 1 << 30 }, Range { start: 4 << 30, len: 1 << 30 }];
const ID: MemoryFileId = MemoryFileId { device: 5, inode: 6, len: 2 << 30, page_size: PAGE };
const KEPT: KeptMemory = KeptMemory { id: ID, had_contents: true };

fn machine(name: &str) -> Machine {
    let source = Source { name: name.to_owned(), text: "[machine]".to_owned() };
    let kinds = devices::kinds();
    parse(source, &[], Arch::NATIVE, std::path::Path::new(""), &kinds).expect("a profile").machine
}

fn entry(gpa: u64, span: u64) -> SavedEntry {
    SavedEntry {
        gpa,
        span,
        first_seen: 7,
        last_seen: 8,
        times: 2,
        origin: Origin::Sigbus,
        severity: Severity::Fatal,
        consumed_by: Some(ConsumedBy::Vcpu(1)),
        repaired: None,
    }
}

fn saved(entries: Vec<SavedEntry>) -> SavedLedger {
    let (machine, boot_id) = ("web".to_owned(), "boot".to_owned());
    SavedLedger { machine, boot_id, memory: Some(ID.into()), written: 9, omitted: 0, entries }
}

#[test]
fn what_is_poisoned_is_taken_over() {
    let repaired = SavedEntry { repaired: Some(9), ..entry(0x9000, PAGE) };
    // A huge page, and a run of pages that begins and ends anywhere.
    let saved = saved(vec![entry(0x3000, 0x23 * PAGE), repaired, entry(4 << 30, 1 << 30)]);
    let inherited = saved.inherit(&machine("web.toml"), "boot", &RAM, Some(KEPT));
    assert_eq!((&inherited.not_applied, inherited.found), (&None, Some((1 << 30) + 0x23 * PAGE)));
    let ranges: Vec<_> = inherited.ledger.poisoned_ranges().collect();
    assert_eq!(ranges, [(0x3000, 0x23 * PAGE), (4 << 30, 1 << 30)]);
    let entry = inherited.ledger.at(0x3000).expect("an entry");
    assert_eq!((entry.severity, entry.last_seen_ns, entry.response), (Severity::Fatal, 0, None));
    assert_eq!(inherited.entries.len(), 2);
    let text = serde_json::to_string(&saved).expect("JSON");
    assert_eq!(serde_json::from_str::<SavedLedger>(&text).expect("JSON"), saved);
}

#[test]
fn it_is_applied_to_the_same_memory_only() {
    let saved = saved(vec![entry(0x3000, PAGE)]);
    let because = |saved: &SavedLedger, name, boot, kept| {
        let inherited = saved.inherit(&machine(name), boot, &RAM, kept);
        assert!(inherited.ledger.entries().is_empty() && inherited.entries.is_empty());
        assert_eq!(inherited.found, Some(PAGE));
        inherited.not_applied.expect("a reason")
    };
    let other_file = KeptMemory { id: MemoryFileId { inode: 7, ..ID }, ..KEPT };
    let new = KeptMemory { had_contents: false, ..KEPT };
    for (name, boot, kept, said) in [
        ("web", "boot", None, "ends with its process"),
        ("db", "boot", Some(KEPT), "another machine, `web`"),
        ("web", "later", Some(KEPT), "the host has booted since"),
        ("web", "boot", Some(other_file), "another memory file"),
        ("web", "boot", Some(new), "the file is new"),
    ] {
        let because = because(&saved, name, boot, kept);
        assert!(because.contains(said), "{said}: {because}");
    }
    let unknown = SavedLedger { boot_id: String::new(), ..saved.clone() };
    assert!(because(&unknown, "web", "", Some(KEPT)).contains("booted"));
    let ended = SavedLedger { memory: None, ..saved };
    assert!(because(&ended, "web", "boot", Some(KEPT)).contains("has ended with its process"));
}

#[test]
fn entries_that_are_no_memory_are_refused() {
    for (gpa, span) in [
        (0x3001, PAGE),
        (0x3000, PAGE + 1),
        (0x3000, 0),
        ((1 << 30) - PAGE, 2 * PAGE),
        (2 << 30, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (0, !0xfff),
    ] {
        let inherited = saved(vec![entry(gpa, span)]).inherit(&machine("web"), "boot", &RAM, Some(KEPT));
        let because = inherited.not_applied.expect("a reason");
        assert!(because.contains("is not guest memory"), "{gpa:#x}: {because}");
        assert!(inherited.ledger.entries().is_empty());
    }
}

#[test]
fn text_for_people_has_each_entry() {
    let text =
        saved(vec![entry(0x3000, PAGE), SavedEntry { repaired: Some(9), ..entry(0x9000, PAGE) }]).to_string();
    for line in [
        "ledger of poisoned pages of the machine web",
        "0x000000003000  4096 bytes, poisoned; 2 errors from 7 to 8, the last by sigbus, fatal",
        "0x000000009000  4096 bytes, repaired at 9; 2 errors from 7 to 8, the last by sigbus, fatal",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}
