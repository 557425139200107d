//! The guest's parsers of error sources and records, run on the host with our data and with random data.

#[path = "../guest/acpi.rs"]
#[expect(dead_code, reason = "only the structures of a HEST are used here")]
mod acpi;
#[path = "../guest/failure.rs"]
mod failure;
#[path = "../guest/format.rs"]
#[allow(dead_code, reason = "nothing is shown here; an expectation does not see traits")]
mod format;
#[path = "../guest/hest.rs"]
mod hest;
#[path = "../guest/memory_section.rs"]
mod memory_section;
mod oem;
#[path = "../guest/status_block.rs"]
mod status_block;
#[path = "../guest/wire.rs"]
mod wire;

use firmware_tables::{GuestTables, TableSet};
use platform::x86_64;
use proptest::prelude::*;
use ras_core::acceptance::linux_accepts;
use ras_core::{ErrorSource, Kind, MemoryBlocks, MemoryReport, Span};

use failure::Failure;
use hest::{Notification, Source, sources};
use status_block::{Block, Severity};

/// A machine with one source of each kind that it can have.
fn tables() -> GuestTables {
    use ras_core::Notification as Described;
    let interval_ms = 1000.try_into().expect("some time");
    let types = [Described::Nmi, Described::Polled { interval_ms }, Described::External { gsi: 13 }];
    let sources = (3..).zip(types).map(|(id, notification)| ErrorSource { id, notification }).collect();
    let machine =
        x86_64::platform(&x86_64::Layout::REFERENCE, 1, 64 << 20, vec![], None).with_error_sources(sources);
    firmware_tables::build(TableSet::Acpi, &machine, &Default::default(), &oem::OEM).expect("tables")
}

fn hest() -> Vec<u8> {
    tables().table("hest").expect("a HEST").bytes.clone()
}

fn all_of(table: &[u8]) -> Result<Vec<Source>, Failure> {
    sources(table).collect()
}

#[test]
fn sources_are_those_of_the_record_area() {
    let types = [Notification::Nmi, Notification::Polled, Notification::External { gsi: 13 }];
    let area = tables().record_area.expect("a record area");
    let expected: Vec<_> = area
        .slots()
        .zip(types)
        .map(|(slot, notification)| Source {
            id: slot.source.id,
            notification,
            cell: slot.cell_gpa,
            block_len: slot.block_len,
            ack: slot.ack_gpa,
            preserve: !1,
            write: 1,
        })
        .collect();
    assert_eq!(all_of(&hest()), Ok(expected));
    assert_eq!(types.map(Notification::name), ["nmi", "polled", "external"]);
}

/// Bytes of a HEST before its sources, and of each of ours.
const FIRST: usize = 40;
const SOURCE: usize = 92;

#[test]
fn numbers_of_notifications_are_those_of_acpi() {
    let names = [(3, "sci"), (7, "gpio"), (8, "sea"), (9, "sei"), (10, "gsiv"), (2, "other"), (11, "other")];
    for (number, name) in names {
        let mut table = hest();
        table[FIRST + 32] = number;
        let first = all_of(&table).expect("sources")[0].notification;
        assert_eq!(first.name(), name, "{number}");
        assert_eq!(first.is_event(), matches!(number, 3 | 7 | 10), "{number}");
    }
}

/// A HEST that counts `count` sources.
fn table_of(count: u32, sources: &[&[u8]]) -> Vec<u8> {
    let mut table = hest()[..36].to_vec();
    table.extend(count.to_le_bytes());
    table.extend(sources.concat());
    table
}

/// A source of a kind, of zeros but for a count of banks.
fn other(kind: u16, len: usize, banks: Option<(usize, u8)>) -> Vec<u8> {
    let mut source = vec![0; len];
    source[..2].copy_from_slice(&kind.to_le_bytes());
    if let Some((at, count)) = banks {
        source[at] = count;
    }
    source
}

#[test]
fn sources_of_other_kinds_are_skipped() {
    let ours = &hest()[FIRST..FIRST + SOURCE];
    let machine_check = other(0, 40 + 2 * 28, Some((32, 2)));
    let corrected = other(1, 48 + 28, Some((44, 1)));
    let deferred = other(11, 48, Some((44, 0)));
    let others = [(2, 20), (6, 48), (7, 44), (8, 56), (9, 64)].map(|(kind, len)| other(kind, len, None));
    let mut parts = vec![&machine_check[..], &corrected, ours, &deferred];
    parts.extend(others.iter().map(Vec::as_slice));
    parts.push(ours);
    let table = table_of(10, &parts);
    assert_eq!(all_of(&table).map(|found| found.iter().map(|source| source.id).collect()), Ok(vec![3, 3]));

    let mut disabled = ours.to_vec();
    disabled[7] = 0;
    assert_eq!(all_of(&table_of(1, &[&disabled])), Ok(vec![]));
}

#[test]
fn a_broken_hest_is_an_error() {
    let ours = &hest()[FIRST..FIRST + SOURCE];
    let broken = |offset: usize| Err(Failure::with("HEST: broken source at offset", offset as u64));
    assert_eq!(all_of(&table_of(2, &[ours])), broken(FIRST + SOURCE), "fewer than it counts");
    assert_eq!(
        all_of(&table_of(1, &[ours, &[0; 5]])),
        Err(Failure::with("HEST: unexpected bytes after its sources:", 5))
    );
    assert_eq!(all_of(&table_of(2, &[ours, &other(12, 92, None)])), broken(FIRST + SOURCE), "no such kind");
    assert_eq!(all_of(&table_of(1, &[&ours[..91]])), broken(FIRST), "cut off");
    assert_eq!(all_of(&table_of(1, &[&other(0, 40, Some((32, 1)))])), broken(FIRST), "without its bank");
    // Space, width, offset, access size and address of the address cell and of the register.
    for at in [20, 21, 22, 23, 24, 64, 65, 66, 67, 68] {
        let mut wrong = ours.to_vec();
        wrong[at] ^= 1;
        assert_eq!(all_of(&table_of(1, &[&wrong])), broken(FIRST), "byte {at}");
    }
    assert_eq!(all_of(&hest()[..39]), Ok(vec![]), "shorter than any");
}

/// The first block about a span.
fn block(gpa: u64, log2_len: u8) -> Vec<u8> {
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 1_795_446_245, 17);
    let mut block = vec![0; 4096];
    MemoryBlocks::new(Span::around(gpa, log2_len), report).write_next(&mut block).expect("room for a block");
    block
}

/// Severity of a block, and addresses and severities of its sections about memory.
type Read = (Severity, Vec<(u64, Severity)>);

fn read(bytes: &[u8]) -> Result<Read, Failure> {
    let block = Block::read(bytes)?;
    assert_eq!(block.entries().count(), block.count);
    let mut pages = Vec::new();
    for entry in block.entries() {
        pages.extend(memory_section::address(&entry)?.map(|address| (address, entry.severity)));
    }
    Ok((block.severity, pages))
}

#[test]
fn our_records_are_read() {
    let page = |gpa| (gpa, Severity::Recoverable);
    assert_eq!(read(&block(0x200_1000, 12)), Ok((Severity::Recoverable, vec![page(0x200_1000)])));
    let pages = (0..16).map(|number| page(0x4567_0000 + number * 0x1000)).collect();
    assert_eq!(read(&block(0x4567_8000, 16)), Ok((Severity::Recoverable, pages)));
}

#[test]
fn sections_without_an_address_or_of_another_type_are_skipped() {
    let mut no_address = block(0x1000, 12);
    no_address[20 + 72] &= !2;
    let mut other_type = block(0x1000, 12);
    other_type[20] ^= 1;
    for bytes in [no_address, other_type] {
        assert_eq!(read(&bytes), Ok((Severity::Recoverable, vec![])));
    }
    let mut corrected = block(0x1000, 12);
    (corrected[16], corrected[20 + 16]) = (2, 2);
    assert_eq!(read(&corrected), Ok((Severity::Corrected, vec![(0x1000, Severity::Corrected)])));
    assert!(Severity::Recoverable.is_uncorrected() && Severity::Fatal.is_uncorrected());
    assert!(!Severity::Corrected.is_uncorrected() && !Severity::Informational.is_uncorrected());
    assert_eq!(Severity::Informational.name(), "informational");
}

#[test]
fn malformed_records_are_errors() {
    let good = block(0x1000, 12);
    let len = 20 + 72 + 80;
    let changed = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        read(&bytes).map_err(|failure| (failure.what, failure.value))
    };
    let data = "status block: data length";
    assert_eq!(changed(0, 0), Err(("status block: empty", None)));
    assert_eq!(changed(12, 63), Err((data, Some(63))));
    assert_eq!(changed(12, 4077), Err(("status block: length", Some(4097))));
    assert_eq!(changed(12, u32::MAX), Err(("status block: length", Some(0x1_0000_0013))));
    assert_eq!(changed(12, 151), Err(("status block: broken entry at offset", Some(20))));
    assert_eq!(changed(12, 153), Err(("status block: broken entry at offset", Some(len))));
    assert_eq!(changed(16, 4), Err(("status block: severity", Some(4))));
    assert_eq!(changed(20 + 16, 4), Err(("status block: severity", Some(4))));
    assert_eq!(changed(20 + 24, u32::MAX), Err(("status block: broken entry at offset", Some(20))));
    assert_eq!(changed(8, 8), Err(("status block: length", Some(8))), "raw data before the block");
    let mut overlapping = good.clone();
    (overlapping[4], overlapping[8]) = (100, 8);
    assert_eq!(read(&overlapping).map_err(|failure| failure.value), Err(Some(100)));
    let mut raw = good.clone();
    (raw[4], raw[8]) = (200, 8);
    assert!(read(&raw).is_ok(), "raw data behind the entries");
    let mut short_section = good[..len as usize - 8].to_vec();
    (short_section[12], short_section[20 + 24]) = (144, 72);
    assert_eq!(read(&short_section), Err(Failure::with("status block: memory section has length", 72)));
    assert_eq!(read(&good[..19]), Err(Failure::new("status block: too short")));
}

/// One of our blocks with some changed bytes.
fn nearly_blocks() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((0usize..400, any::<u8>()), 0..4);
    (12u8..15, changes, 0usize..=4096).prop_map(|(log2_len, changes, len)| {
        let mut bytes = block(0x4000_0000, log2_len);
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(len);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// The guest rejects the same blocks as Linux, except for blocks on which Linux panics and for unknown severities.
    #[test]
    fn blocks_are_accepted_as_by_linux(bytes in nearly_blocks()) {
        use ras_core::acceptance::LinuxOutcome;
        let outcome = linux_accepts(&bytes, bytes.len() as u32, ras_core::Notification::Gsiv);
        let read = Block::read(&bytes);
        match (outcome, read) {
            (Ok(LinuxOutcome::NothingToRead), Err(failure)) => {
                prop_assert_eq!(failure, Failure::new("status block: empty"));
            }
            (Ok(LinuxOutcome::Panic), Ok(block)) => prop_assert_eq!(block.severity, Severity::Fatal),
            (Ok(_), Ok(_)) => {}
            (Ok(_), Err(failure)) => prop_assert_eq!(failure.what, "status block: severity"),
            (Err(_), Ok(block)) => prop_assert!(false, "accepted: {:?}", block),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn a_damaged_hest_has_sources_or_an_error(at in 36usize..316, value: u8, len in 0usize..=316) {
        let mut table = hest();
        prop_assert_eq!(table.len(), 316);
        table[at] = value;
        table.truncate(len);
        let found = sources(&table).count();
        prop_assert!(found <= 4, "{}", found);
    }
}
