//! The byte layout of blocks and tables, against the specifications' offsets.

use core::num::NonZeroU32;

use ras_core::{
    ErrorSource, GenericErrorSourceV2, Kind, MemoryBlocks, MemoryReport, Notification, RecordArea, Span,
};
use zerocopy::IntoBytes;

/// A structure from its fields in order: the length of each in bytes, and its value.
fn bytes(fields: &[(usize, u64)]) -> Vec<u8> {
    fields.iter().flat_map(|(len, value)| value.to_le_bytes().into_iter().take(*len)).collect()
}

#[test]
fn a_block_with_one_page() -> Result<(), Box<dyn core::error::Error>> {
    // 2026-08-09 10:11:12 UTC
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 1_786_270_272, 17);
    let mut block = [0; 0x1000];
    let len = MemoryBlocks::new(Span::around(0x1_2345_6789, 12), report).write_next(&mut block)?;

    // One uncorrectable error, one entry; no raw data; recoverable.
    let mut expected = bytes(&[(4, 0x11), (4, 0), (4, 0), (4, 152), (4, 0)]);
    // The entry: memory error, recoverable, revision 3.0, text and time valid, primary and latent, 80 bytes, no id.
    expected.extend(*b"\x14\x11\xbc\xa5\x64\x6f\xde\x4e\xb8\x63\x3e\x83\xed\x7c\x83\xb1");
    expected.extend(bytes(&[(4, 0), (2, 0x300), (1, 0b110), (1, 0x21), (4, 80), (8, 0), (8, 0)]));
    expected.extend(*b"memory #17\0\0\0\0\0\0\0\0\0\0");
    expected.extend([0x12, 0x11, 0x10, 0x00, 0x09, 0x08, 0x26, 0x20]);
    // The section: address, mask and type valid; no status.
    expected.extend(bytes(&[(8, 0x4006), (8, 0), (8, 0x1_2345_6000), (8, !0xfff)]));
    expected.extend([0; 80 - 32]);
    assert_eq!(block[..len], expected);
    Ok(())
}

#[test]
fn a_block_with_several_pages_has_the_status_of_multiple_errors() -> Result<(), Box<dyn core::error::Error>> {
    let report = MemoryReport::uncorrected(Kind::ActionRequired, 0, 1);
    let mut block = [0; 0x1000];
    MemoryBlocks::new(Span::around(0, 14), report).write_next(&mut block)?;
    // Four entries, more than one uncorrectable error.
    assert_eq!(block[..20], bytes(&[(4, 0x45), (4, 0), (4, 0), (4, 4 * 152), (4, 0)]));
    Ok(())
}

#[test]
fn an_entry_of_hest() -> Result<(), Box<dyn core::error::Error>> {
    let interval_ms = NonZeroU32::new(1000).ok_or("zero")?;
    let sources = [
        ErrorSource { id: 3, notification: Notification::Sea },
        ErrorSource { id: 7, notification: Notification::Polled { interval_ms } },
    ];
    let area = RecordArea::lay_out(0x8000_0000, u64::MAX, &sources)?;
    let slot = area.slot(7).ok_or("source 7 has no slot")?;

    let gas = |gpa| [(1, 0), (1, 64), (1, 0), (1, 4), (8, gpa)];
    let mut fields = vec![(2, 10), (2, 7), (2, 0xffff), (1, 0), (1, 1), (4, 1), (4, 16), (4, 0x1000)];
    fields.extend(gas(0x8000_0008));
    fields.extend([(1, 0), (1, 28), (2, 0), (4, 1000), (4, 0), (4, 0), (4, 0), (4, 0), (4, 0)]);
    fields.push((4, 0x1000));
    fields.extend(gas(0x8001_0008));
    fields.extend([(8, !1), (8, 1)]);
    let expected = bytes(&fields);
    assert_eq!(expected.len(), 92);
    assert_eq!(GenericErrorSourceV2::new(&slot).as_bytes(), expected);
    Ok(())
}
