//! Blocks that are written can be decoded, and Linux accepts them.

use core::num::NonZeroU32;

use proptest::prelude::*;
use ras_core::acceptance::{GuestAction, LinuxOutcome, linux_accepts};
use ras_core::status_block::Entry;
use ras_core::{
    BlockWriter, BufferTooSmall, Description, FruText, Guid, Heading, Kind, MemoryBlocks, MemoryReport,
    Notification, PartName, Severity, Span, StatusBlock, Timestamp, Value, blocks_needed,
};

use crate::sections::{self, AnySection};

const BLOCK_LEN: usize = 0x1000;

const SEVERITIES: [Severity; 4] =
    [Severity::Recoverable, Severity::Fatal, Severity::Corrected, Severity::Informational];

fn notifications() -> impl Strategy<Value = Notification> {
    prop_oneof![
        Just(Notification::Polled { interval_ms: NonZeroU32::MIN }),
        any::<u32>().prop_map(|gsi| Notification::External { gsi }),
        Just(Notification::Nmi),
        Just(Notification::Gpio),
        Just(Notification::Sea),
        Just(Notification::Gsiv),
    ]
}

fn headings() -> impl Strategy<Value = Heading> {
    let fru_id = prop::option::of(any::<[u8; 16]>().prop_map(Guid::from_bytes));
    let fru_text = prop::option::of(".{0,24}".prop_map(|text| FruText::new(format_args!("{text}"))));
    let time = prop::option::of(any::<u64>().prop_map(Timestamp::from_unix));
    (prop::sample::select(&SEVERITIES[..]), any::<u8>(), fru_id, fru_text, time).prop_map(
        |(severity, flags, fru_id, fru_text, time)| Heading { severity, flags, fru_id, fru_text, time },
    )
}

/// Writes as many of the entries as fit, and returns their number and the block's length.
fn write(entries: &[(Heading, AnySection)], bytes: &mut [u8]) -> Result<(usize, usize), BufferTooSmall> {
    let mut block = BlockWriter::new(bytes)?;
    let written =
        entries.iter().take_while(|(heading, section)| section.push_to(&mut block, heading).is_ok()).count();
    Ok((written, block.finish()))
}

fn heading_of(entry: &Entry<'_>) -> Option<Heading> {
    Some(Heading {
        severity: entry.severity()?,
        flags: entry.header.flags,
        fru_id: entry.fru_id(),
        fru_text: entry.fru_text(),
        time: entry.time(),
    })
}

proptest! {
    #[test]
    fn every_block_is_decoded_as_it_was_written(
        entries in prop::collection::vec((headings(), sections::any_section()), 0..24),
        len in 20..=0x2000_usize,
    ) {
        let mut bytes = vec![0xa5; len];
        let (written, block_len) = write(&entries, &mut bytes)?;
        prop_assert!(block_len <= len);
        prop_assert!(bytes[block_len..].iter().all(|byte| *byte == 0xa5), "bytes after the block were changed");

        let block = StatusBlock::read(&bytes[..block_len])?;
        let entries = &entries[..written];
        prop_assert_eq!(block.entries().count(), written);
        prop_assert_eq!(block.header.entry_count() as usize, written);
        prop_assert_eq!(block.header.data_length.get() as usize, block_len - 20);
        let described = Description::of_block(&block);
        let Some(Value::List(described)) = described.get("entry") else {
            prop_assert_eq!(written, 0);
            return Ok(());
        };
        prop_assert_eq!(described.len(), written);
        for ((read, described), (heading, section)) in block.entries().zip(described).zip(entries) {
            prop_assert_eq!(heading_of(&read), Some(*heading));
            section.assert_read(&read, described)?;
        }
    }

    #[test]
    fn linux_accepts_every_block_with_entries(
        entries in prop::collection::vec((headings(), sections::any_section()), 1..24),
        notification in notifications(),
    ) {
        let mut bytes = [0; BLOCK_LEN];
        let (written, len) = write(&entries, &mut bytes)?;
        // The guest reads the whole block, not only the bytes that were written.
        let outcome = linux_accepts(&bytes, BLOCK_LEN as u32, notification)?;
        prop_assert_eq!(&outcome, &linux_accepts(&bytes[..len], len as u32, notification)?);
        if written == 0 {
            prop_assert_eq!(outcome, LinuxOutcome::NothingToRead);
            return Ok(());
        }
        let fatal = entries[..written].iter().any(|(heading, _)| heading.severity == Severity::Fatal);
        match outcome {
            LinuxOutcome::NothingToRead => prop_assert!(false, "entries were not read"),
            LinuxOutcome::Panic => prop_assert!(fatal),
            LinuxOutcome::Handled { actions, .. } => {
                prop_assert!(!fatal);
                let short = actions.iter().find(|action| matches!(action, GuestAction::TooShort { .. }));
                prop_assert_eq!(short, None);
            }
        }
    }

    #[test]
    fn linux_offlines_every_poisoned_page_once(
        gpa in 0..1_u64 << 52,
        log2_len in 12..=24_u8,
        notification in notifications(),
        kind in prop::sample::select(&[Kind::ActionRequired, Kind::ActionOptional][..]),
        number in any::<u64>(),
    ) {
        let span = Span::around(gpa, log2_len);
        let mut blocks = MemoryBlocks::new(span, MemoryReport::uncorrected(kind, 1_800_000_000, number));
        let mut found = Vec::new();
        let mut written = 0;
        let mut bytes = [0; BLOCK_LEN];
        while blocks.write_next(&mut bytes)? > 0 {
            written += 1;
            let outcome = linux_accepts(&bytes, BLOCK_LEN as u32, notification)?;
            let LinuxOutcome::Handled { actions, kills_current_task: false } = outcome else {
                return Err(TestCaseError::fail(format!("{outcome:?}")));
            };
            for action in actions {
                match action {
                    GuestAction::MemoryFailure { pfn } if !notification.is_synchronous() => found.push(pfn << 12),
                    GuestAction::MemoryFailureActionRequired { pfn } if notification.is_synchronous() => found.push(pfn << 12),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
        }
        prop_assert_eq!(found, span.pages().collect::<Vec<_>>());
        prop_assert_eq!(Some(written), blocks_needed(span, BLOCK_LEN));
    }

    #[test]
    fn the_records_of_two_errors_differ(gpa: u64, time in any::<u32>(), number in 0..1_000_000_000 - 1_u64) {
        let block = |number| {
            let report = MemoryReport::uncorrected(Kind::ActionRequired, time.into(), number);
            let mut bytes = [0; BLOCK_LEN];
            MemoryBlocks::new(Span::around(gpa, 12), report).write_next(&mut bytes).map(|_| bytes)
        };
        prop_assert_ne!(block(number)?, block(number + 1)?);
    }
}

#[test]
fn a_corrected_error_beyond_the_threshold_soft_offlines_the_page() -> Result<(), Box<dyn core::error::Error>>
{
    let report = MemoryReport {
        part: PartName::MEMORY,
        severity: Severity::Corrected,
        flags: ras_core::status_block::section_flags::THRESHOLD_EXCEEDED,
        time: Timestamp::from_unix(0),
        number: 1,
    };
    let mut bytes = [0; BLOCK_LEN];
    MemoryBlocks::new(Span::around(0x1_2345_6789, 12), report).write_next(&mut bytes)?;
    assert_eq!(
        linux_accepts(&bytes, BLOCK_LEN as u32, Notification::Gsiv),
        Ok(LinuxOutcome::Handled {
            actions: vec![GuestAction::SoftOffline { pfn: 0x12_3456 }],
            kills_current_task: false
        })
    );
    Ok(())
}

#[test]
fn wide_spans_take_several_blocks() {
    for (log2_len, blocks) in [(12, 1), (16, 1), (17, 2), (21, 32), (30, 16_384)] {
        assert_eq!(blocks_needed(Span::around(0, log2_len), BLOCK_LEN), Some(blocks), "2^{log2_len} bytes");
    }
    // Blocks that hold one entry, and none.
    assert_eq!(blocks_needed(Span::around(0, 13), 172), Some(2));
    assert_eq!(blocks_needed(Span::around(0, 13), 171), None);
}

#[test]
fn the_last_page_of_the_address_space_has_a_block() -> Result<(), BufferTooSmall> {
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 0, 0);
    let mut blocks = MemoryBlocks::new(Span::around(u64::MAX, 12), report);
    let mut bytes = [0; 172];
    assert_eq!((blocks.write_next(&mut bytes)?, blocks.write_next(&mut bytes)?), (172, 0));
    Ok(())
}

#[test]
fn an_entry_that_does_not_fit_leaves_the_block_unchanged() -> Result<(), Box<dyn core::error::Error>> {
    let heading =
        Heading { severity: Severity::Recoverable, flags: 0, fru_id: None, fru_text: None, time: None };
    let mut bytes = [0; 172 + 151];
    let mut block = BlockWriter::new(&mut bytes)?;
    let section = ras_core::cper::memory::MemorySection::of_page(0x1000);
    block.push(&heading, &section)?;
    let fatal = Heading { severity: Severity::Fatal, ..heading };
    assert_eq!(block.push(&fatal, &section), Err(BufferTooSmall { needed: 152, available: 151 }));
    assert_eq!(block.finish(), 172);
    assert_eq!(StatusBlock::read(&bytes)?.header.severity(), Some(Severity::Recoverable));

    assert_eq!(BlockWriter::new(&mut [0; 19]).err(), Some(BufferTooSmall { needed: 20, available: 19 }));
    Ok(())
}

#[test]
fn a_block_has_at_most_1023_entries() -> Result<(), Box<dyn core::error::Error>> {
    let heading =
        Heading { severity: Severity::Informational, flags: 0, fru_id: None, fru_text: None, time: None };
    let empty = ras_core::cper::RawSection { kind: Guid::ZERO, bytes: &[] };
    let mut bytes = vec![0; 20 + 72 * 1024];
    let mut block = BlockWriter::new(&mut bytes)?;
    for _ in 0..1023 {
        block.push(&heading, &empty)?;
    }
    assert_eq!(block.push(&heading, &empty), Err(BufferTooSmall { needed: 72, available: 0 }));
    let len = block.finish();
    let block = StatusBlock::read(&bytes[..len])?;
    assert_eq!((block.header.entry_count(), block.entries().count()), (1023, 1023));
    Ok(())
}

#[test]
fn the_fru_text_is_the_part_and_the_last_nine_digits_of_the_number() -> Result<(), Box<dyn core::error::Error>>
{
    for (number, text) in [(999_999_999, "123456789 #999999999"), (u64::MAX, "123456789 #709551615")] {
        let part = PartName::new("123456789").ok_or("nine characters fit")?;
        let report = MemoryReport::uncorrected(Kind::ActionRequired, 0, number).with_part(part);
        let mut bytes = [0; BLOCK_LEN];
        MemoryBlocks::new(Span::around(0, 12), report).write_next(&mut bytes)?;
        let shown = StatusBlock::read(&bytes)?.entries().next().and_then(|entry| entry.fru_text());
        assert_eq!(shown, Some(FruText::new(format_args!("{text}"))));
    }
    Ok(())
}
