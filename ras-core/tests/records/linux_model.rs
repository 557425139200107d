//! The model of Linux's driver, on blocks whose outcome is known.

use ras_core::acceptance::{GuestAction, LinuxOutcome, Rejection, linux_accepts};
use ras_core::cper::arm_processor::{ArmErrorInfo, ArmProcessor, ArmProcessorHeader, error_kind};
use ras_core::cper::memory::MemorySection;
use ras_core::cper::{RawSection, Section};
use ras_core::{BlockWriter, BufferTooSmall, Guid, Heading, Notification, Severity};

const BLOCK_LEN: u32 = 0x1000;

fn block(severities: &[Severity], section: &impl Section) -> Result<[u8; 0x1000], BufferTooSmall> {
    let mut bytes = [0; 0x1000];
    let mut block = BlockWriter::new(&mut bytes)?;
    for severity in severities {
        let heading = Heading { severity: *severity, flags: 0, fru_id: None, fru_text: None, time: None };
        block.push(&heading, section)?;
    }
    assert!(block.finish() <= bytes.len());
    Ok(bytes)
}

fn handled(actions: &[GuestAction], kills_current_task: bool) -> Result<LinuxOutcome, Rejection> {
    Ok(LinuxOutcome::Handled { actions: actions.to_vec(), kills_current_task })
}

#[test]
fn the_page_of_an_arm_cache_error_is_offlined() -> Result<(), Box<dyn core::error::Error>> {
    let of_cache = ArmErrorInfo {
        length: ArmErrorInfo::LENGTH,
        // Of the physical address.
        validation: (1 << 4).into(),
        kind: error_kind::CACHE,
        physical_address: 0x1_2345_6789.into(),
        ..Default::default()
    };
    let of_bus = ArmErrorInfo { kind: error_kind::BUS, ..of_cache };
    let infos = [of_bus, of_cache];
    let section = ArmProcessor::new(ArmProcessorHeader::default(), &infos, &[], &[])?;
    let bytes = block(&[Severity::Recoverable], &section)?;
    let verdict = linux_accepts(&bytes, BLOCK_LEN, Notification::Sea);
    assert_eq!(verdict, handled(&[GuestAction::MemoryFailureActionRequired { pfn: 0x12_3456 }], false));

    let corrected = block(&[Severity::Corrected], &section)?;
    assert_eq!(linux_accepts(&corrected, BLOCK_LEN, Notification::Gsiv), handled(&[], false));
    Ok(())
}

#[test]
fn a_synchronous_error_without_a_page_kills_the_current_task() -> Result<(), Box<dyn core::error::Error>> {
    let bytes = block(&[Severity::Recoverable], &RawSection { kind: Guid::ZERO, bytes: &[] })?;
    assert_eq!(linux_accepts(&bytes, BLOCK_LEN, Notification::Sea), handled(&[], true));
    assert_eq!(linux_accepts(&bytes, BLOCK_LEN, Notification::Nmi), handled(&[], false));
    Ok(())
}

#[test]
fn the_seventeenth_page_is_dropped() -> Result<(), Box<dyn core::error::Error>> {
    let bytes = block(&[Severity::Recoverable; 17], &MemorySection::of_page(0x5000))?;
    let mut actions = vec![GuestAction::MemoryFailure { pfn: 5 }; 16];
    actions.push(GuestAction::Dropped { pfn: 5 });
    assert_eq!(linux_accepts(&bytes, BLOCK_LEN, Notification::Gsiv), handled(&actions, false));
    // A synchronous error does not use the FIFO.
    let actions = [GuestAction::MemoryFailureActionRequired { pfn: 5 }; 17];
    assert_eq!(linux_accepts(&bytes, BLOCK_LEN, Notification::Sea), handled(&actions, false));
    Ok(())
}

#[test]
fn one_fatal_entry_is_enough_to_panic() -> Result<(), Box<dyn core::error::Error>> {
    let section = MemorySection::of_page(0x5000);
    let mut bytes = block(&[Severity::Corrected, Severity::Fatal, Severity::Recoverable], &section)?;
    assert_eq!(linux_accepts(&bytes, BLOCK_LEN, Notification::Gsiv), Ok(LinuxOutcome::Panic));
    // So is an undefined severity.
    bytes[16] = 4;
    assert_eq!(linux_accepts(&bytes, BLOCK_LEN, Notification::Gsiv), Ok(LinuxOutcome::Panic));
    Ok(())
}

#[test]
fn invalid_blocks_are_rejected() -> Result<(), Box<dyn core::error::Error>> {
    let good = block(&[Severity::Recoverable], &MemorySection::of_page(0x5000))?;
    let judge = |bytes: &[u8], limit| linux_accepts(bytes, limit, Notification::Gsiv).err();
    let changed = |offset: usize, byte| {
        let mut bytes = good;
        bytes[offset] = byte;
        bytes
    };
    assert_eq!(judge(&good, 172), None);
    assert_eq!(judge(&good, 171), Some(Rejection::TooLong { len: 172, limit: 171 }));
    assert_eq!(judge(&good[..19], BLOCK_LEN), Some(Rejection::NoHeader { len: 19 }));
    assert_eq!(judge(&changed(12, 63), BLOCK_LEN), Some(Rejection::DataTooShort { data_length: 63 }));
    // A data length that is off by one, either way.
    assert_eq!(
        judge(&changed(12, 151), BLOCK_LEN),
        Some(Rejection::EntryTooLong { offset: 20, needed: 152, available: 151 })
    );
    assert_eq!(
        judge(&changed(12, 153), BLOCK_LEN),
        Some(Rejection::EntryTooLong { offset: 172, needed: 64, available: 1 })
    );
    // Raw data that starts at the block's start.
    assert_eq!(judge(&changed(8, 255), BLOCK_LEN), Some(Rejection::RawDataOverlaps { raw_data_offset: 0 }));
    assert_eq!(
        linux_accepts(&good, BLOCK_LEN, Notification::Sei),
        Err(Rejection::UnknownNotification { notification: "sei" })
    );
    Ok(())
}
