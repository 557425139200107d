//! Values in records of others: each that is valid is printed, and reserved ones that are not zero.

use ras_core::Guid;

use crate::cper_bytes::{self as cper, OneSection, block, memory_record};
use crate::printed::{text, values};

#[test]
fn the_times_of_windows_are_binary() {
    let by_creator = OneSection { time: cper::BINARY_TIME, creator: cper::WINDOWS, ..memory_record(0x1000) };
    let by_revision = OneSection { time: cper::BINARY_TIME, revision: 0x210, ..memory_record(0x1000) };
    for record in [by_creator, by_revision] {
        assert_eq!(values(&record.bytes(), "time"), ["2025-07-01T02:01:34"]);
        assert_eq!(values(&record.bytes(), "time_encoding"), ["binary"]);
    }
    let bcd = memory_record(0x1000).bytes();
    assert_eq!(values(&bcd, "time"), ["2025-07-01T02:01:34"]);
    assert_eq!(values(&bcd, "time_encoding"), [""; 0]);
}

#[test]
fn digits_that_are_not_decimal_are_no_date() {
    let time = [20, 20, 14, 0, 24, 10, 24, 20];
    for creator in [cper::WINDOWS, Guid::ZERO] {
        let record = OneSection { time, creator, ..memory_record(0x1000) };
        assert_eq!(values(&record.bytes(), "time"), ["2024-10-24T14:20:20"]);
    }
    let record = OneSection { time: [0xff; 8], ..memory_record(0x1000) };
    assert_eq!(values(&record.bytes(), "time"), ["not a date: ff ff ff ff ff ff ff ff"]);
}

#[test]
fn a_time_is_precise_or_not() {
    let mut time = cper::BCD_TIME;
    let mut precision = |flags| {
        time[3] = flags;
        let bytes = OneSection { time, ..memory_record(0x1000) }.bytes();
        [values(&bytes, "time_precision"), values(&bytes, "time_reserved_flags")].concat()
    };
    assert_eq!(precision(0), ["not precise"]);
    assert_eq!(precision(1), ["precise"]);
    assert_eq!(precision(0x82), ["not precise", "0x82"]);
}

#[test]
fn every_flag_of_a_record_and_of_its_section_is_printed() {
    let record = OneSection { flags: 0x8000_002f, section_flags: 0x8000_0101, ..memory_record(0x1000) };
    assert_eq!(
        values(&record.bytes(), "flags"),
        ["recovered, previous, simulated, 0x8, 0x20, 0x80000000", "primary, 0x100, 0x80000000"]
    );
}

#[test]
fn persistence_information_and_revisions_are_printed() {
    let record = OneSection { persistence: 0xabcd, ..memory_record(0x1000) }.bytes();
    assert_eq!(values(&record, "persistence"), ["0xabcd"]);
    assert_eq!(values(&record, "revision"), ["0x101", "0x300"]);
}

#[test]
fn reserved_values_are_printed() {
    let mut bytes = memory_record(0x1000).bytes();
    bytes[16..20].copy_from_slice(&0x4000_0002_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&7_u32.to_le_bytes());
    bytes[116] = 0x5a;
    bytes[128 + 10] = 0x80;
    bytes[128 + 11] = 0x77;
    bytes[128 + 48] = 9;
    // Validation bit 63, and the reserved bits beside those of row and chip.
    bytes[200 + 7] = 0x80;
    bytes[200 + 73] = 0x1c;
    assert_eq!(values(&bytes, "severity"), ["7", "9"]);
    assert_eq!(values(&bytes, "reserved_validation_bits"), ["0x40000000", "0x80", "0x8000000000000000"]);
    assert_eq!(values(&bytes, "reserved"), ["5a0000000000000000000000", "0x77"]);
    assert_eq!(values(&bytes, "reserved_row_bits"), ["0x7"], "bits 2 to 4");
}

#[test]
fn a_status_block_has_its_reserved_bits() {
    let mut bytes = block(0x1000);
    let status = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) | 1 << 14 | 1 << 31;
    bytes[..4].copy_from_slice(&status.to_le_bytes());
    bytes[20 + 22] |= 0x10;
    assert_eq!(values(&bytes, "block_status"), ["uncorrectable, 0x4000, 0x80000000"]);
    assert_eq!(values(&bytes, "entry_count"), ["1"]);
    assert_eq!(values(&bytes, "reserved_validation_bits"), ["0x10"]);
    assert_eq!(values(&bytes, "time"), ["2018-12-01T00:00:00"]);
    assert_eq!(values(&bytes, "time_precision"), ["not precise"]);
}

#[test]
fn the_parts_of_an_error_status_are_named() {
    let mut bytes = memory_record(0x1000).bytes();
    bytes[200] |= 1;
    for (status, kind, flags) in [
        (0x0000_0400_u64, &["storage error in memory"][..], &[][..]),
        (0x0064_1a00, &["poisoned data was read"], &["data, first-error, overflow"]),
        (0x8000_0000_0080_ff01, &["255"], &["0x1, 0x800000, 0x8000000000000000"]),
        (0, &[], &[]),
    ] {
        bytes[208..216].copy_from_slice(&status.to_le_bytes());
        assert_eq!(values(&bytes, "error_status"), [format!("{status:#x}")]);
        assert_eq!(values(&bytes, "error_status_type"), kind);
        assert_eq!(values(&bytes, "error_status_flags"), flags);
    }
}

#[test]
fn the_type_of_a_processor_error_is_printed_with_its_reserved_bits() {
    let kind = |section, body| {
        let bytes = OneSection::new(section, body).bytes();
        [values(&bytes, "kind_value"), values(&bytes, "kind")].concat()
    };
    assert_eq!(kind(cper::ARM, cper::arm(0, false, &[])), ["0x0"]);
    assert_eq!(kind(cper::ARM, cper::arm(0xe2, false, &[])), ["0xe2", "cache, 0x20, 0x40, 0x80"]);
    assert_eq!(kind(cper::ARM, cper::arm(0x1d, false, &[])), ["0x1d", "0x1, tlb, bus, micro-architectural"]);
    assert_eq!(kind(cper::GENERIC, cper::generic(0xb7)), ["0xb7", "cache, tlb, bus, 0x10, 0x20, 0x80"]);
}

#[test]
fn vendor_bytes_are_printed_if_they_are_valid() {
    let vendor = |is_valid| OneSection::new(cper::ARM, cper::arm(2, is_valid, &[0xaa; 8])).bytes();
    assert_eq!(values(&vendor(true), "vendor"), ["aaaaaaaaaaaaaaaa"]);
    assert_eq!(values(&vendor(false), "vendor"), [""; 0]);
    assert!(!text(&vendor(false)).contains("aa aa"));
    assert_eq!(values(&vendor(false), "invalid_bytes"), ["8"]);
}

#[test]
fn bytes_behind_a_section_are_printed() {
    for (kind, body) in [
        (cper::MEMORY, cper::memory(0x1000)),
        (cper::ARM, cper::arm(2, false, &[])),
        (cper::GENERIC, cper::generic(1)),
        (ras_core::cper::x86_processor::KIND, vec![0; 64]),
    ] {
        let longer = |byte| OneSection::new(kind, [&body[..], &[byte; 3]].concat()).bytes();
        assert_eq!(values(&longer(0xbb), "bytes_behind"), ["bbbbbb"], "{kind}");
        assert_eq!(values(&longer(0), "bytes_behind"), [""; 0], "{kind}");
    }
    // The older form of a memory section, which has no rank.
    let mut older = cper::memory(0x1000);
    older.truncate(73);
    older[1] |= 0x80;
    let bytes = OneSection::new(cper::MEMORY, older).bytes();
    assert_eq!(values(&bytes, "validation_bits_of_missing_fields"), ["0x8000"]);
}

#[test]
fn types_that_are_not_decoded_have_their_name_and_bytes() {
    let bytes = OneSection::new(cper::IPF, vec![0xab; 4]).bytes();
    assert_eq!(values(&bytes, "section_type"), ["e429faf1-3cb7-11d4-bca7-0080c73c8881"]);
    assert_eq!(values(&bytes, "section_name"), ["IPF processor error"]);
    assert_eq!(values(&bytes, "section"), ["abababab"]);
    let unknown = OneSection::new(Guid::from_bytes([7; 16]), vec![0xab; 4]).bytes();
    assert_eq!(values(&unknown, "section_name"), [""; 0]);
    assert_eq!(values(&unknown, "section"), ["abababab"]);
}

#[test]
fn bytes_before_raw_data_are_printed() {
    let mut bytes = block(0x1000);
    let end = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&(end + 4).to_le_bytes());
    bytes[8] = 3;
    bytes.extend(b"\x01\x02\x03\x04raw");
    assert_eq!(values(&bytes, "raw_data"), ["726177"]);
    assert_eq!(values(&bytes, "bytes_before_raw_data"), ["01020304"]);
}
