//! The decoder accepts any bytes: it decodes them or returns an error with an offset, and agrees with the rules of Linux.
//!
//! `PROPTEST_CASES=1000000` runs each test a million times.

use proptest::prelude::*;
use ras_core::acceptance::{LinuxOutcome, Rejection, linux_accepts};
use ras_core::cper::record::{Record, RecordHeader};
use ras_core::{
    BlockWriter, DecodeError, Decoded, Expected, Heading, Notification, Severity, StatusBlock,
    bytes_of_hex_text,
};

use crate::cper_bytes::{self as cper, OneSection};
use crate::printed::values;
use crate::sections::{self, AnySection};

const MAX_LEN: u32 = 64 << 10;

/// The bytes of a block with these sections.
fn block(sections: &[AnySection]) -> Vec<u8> {
    let heading =
        Heading { severity: Severity::Recoverable, flags: 0, fru_id: None, fru_text: None, time: None };
    let mut bytes = vec![0; 0x4000];
    let mut block = BlockWriter::new(&mut bytes).expect("a block fits");
    sections.iter().for_each(|section| section.push_to(&mut block, &heading).expect("its entries fit"));
    let len = block.finish();
    bytes.truncate(len);
    bytes
}

/// Blocks with a few bytes changed, mostly in their headers, truncated or not.
fn mutated_blocks() -> impl Strategy<Value = Vec<u8>> {
    let change = (prop_oneof![0..128_usize, any::<usize>()], any::<u8>());
    let sections = prop::collection::vec(sections::any_section(), 0..4);
    (sections, prop::collection::vec(change, 0..6), prop::option::of(any::<usize>())).prop_map(
        |(sections, changes, cut)| {
            let mut bytes = block(&sections);
            for (place, byte) in changes {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut % (bytes.len() + 1));
            }
            bytes
        },
    )
}

/// Bytes that start like a record.
fn records() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..600), 0..6_u8, any::<bool>()).prop_map(
        |(mut bytes, sections, marked)| {
            let len = bytes.len() as u32;
            for (offset, value) in [(0, *b"CPER"), (6, [0xff; 4]), (20, len.to_le_bytes())] {
                if let (true, Some(place)) = (marked, bytes.get_mut(offset..offset + 4)) {
                    place.copy_from_slice(&value);
                }
            }
            if let Some(count) = bytes.get_mut(10..12) {
                count.copy_from_slice(&[sections, 0]);
            }
            // Sections of known types, mostly within the record.
            for section in 0..usize::from(sections) {
                let descriptor = 128 + 72 * section;
                if let Some(place) = bytes.get_mut(descriptor..descriptor + 8) {
                    place.copy_from_slice(&[place[0], place[1] & 1, 0, 0, place[4], 0, 0, 0]);
                }
                if let Some(place) = bytes.get_mut(descriptor + 16..descriptor + 32) {
                    place.copy_from_slice(ras_core::cper::arm_processor::KIND.bytes());
                }
            }
            bytes
        },
    )
}

/// Several blocks, records and sections, with other bytes between them and a few bytes changed.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![cper::MEMORY, cper::ARM, cper::GENERIC, cper::PCIE]);
    let record = (kind.clone(), prop::collection::vec(any::<u8>(), 0..200), prop::option::of(any::<u32>()));
    let part = prop_oneof![
        mutated_blocks(),
        records(),
        record.prop_map(|(kind, body, length)| OneSection { length, ..OneSection::new(kind, body) }.bytes()),
        (kind, prop::collection::vec(any::<u8>(), 0..200), any::<u8>()).prop_map(|(kind, body, longer)| {
            let length = (body.len() + usize::from(longer % 2)) as u32;
            [cper::descriptor(72, length, kind, 0), body].concat()
        }),
        Just(vec![0xf, 0, 0, 0]),
        (0..100_usize).prop_map(|zeros| vec![0; zeros]),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (prop::collection::vec(part, 0..8), prop::collection::vec(change, 0..4)).prop_map(|(parts, changes)| {
        let mut bytes = parts.concat();
        for (place, byte) in changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        bytes
    })
}

/// Decodes and describes `bytes`.
fn decode(bytes: &[u8]) -> Result<String, DecodeError> {
    Decoded::read(bytes).map(|decoded| decoded.describe().to_string())
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Err(error) = decode(&bytes) {
            prop_assert!(error.offset <= bytes.len(), "{error}");
        }
    }

    #[test]
    fn invalid_blocks_are_decoded_or_refused(bytes in mutated_blocks()) {
        if let Err(error) = decode(&bytes) {
            prop_assert!(error.offset <= bytes.len(), "{error}");
        }
    }

    #[test]
    fn records_are_decoded_or_refused(bytes in records()) {
        if let Err(error) = decode(&bytes) {
            prop_assert!(error.offset <= bytes.len(), "{error}");
        }
    }

    /// What is printed is in proportion to what is read.
    #[test]
    fn files_are_decoded_or_refused(bytes in files()) {
        match decode(&bytes) {
            Ok(text) => prop_assert!(text.len() <= 0x800 + 0x100 * bytes.len(), "{text}"),
            Err(error) => prop_assert!(error.offset <= bytes.len(), "{error}"),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([0-9a-fx:*| ,]{0,24}[\n])*", limit in 0..100_usize) {
        if let Ok(bytes) = bytes_of_hex_text(text.as_bytes(), limit) {
            prop_assert!(bytes.is_some_and(|bytes| bytes.len() <= limit));
        }
    }

    /// The bytes of a dump are those that were dumped.
    #[test]
    fn a_dump_is_read_as_its_bytes(bytes in prop::collection::vec(0..3_u8, 0..200), group in 1..8_usize) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let groups = |row: &[u8]| row.chunks(group).map(hex).collect::<Vec<_>>().join(" ");
        let plain = groups(&bytes);
        let rows = |line: &dyn Fn(usize, &[u8]) -> String| -> String {
            bytes.chunks(16).enumerate().map(|(index, row)| line(16 * index, row)).collect()
        };
        let xxd = rows(&|offset, row| format!("{offset:08x}: {}  |: 00\n", groups(row)));
        let bytewise = |row: &[u8]| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let hexdump = rows(&|offset, row| format!("{offset:08x}  {}  |.: 00|\n", bytewise(row)))
            + &format!("{:08x}\n", bytes.len());
        for text in [plain, xxd, hexdump] {
            let expected = if text == "00000000\n" { vec![0; 4] } else { bytes.clone() };
            prop_assert_eq!(bytes_of_hex_text(text.as_bytes(), 1 << 10), Ok(Some(expected)), "{}", text);
        }
    }

    /// Two independent decoders.
    #[test]
    fn the_decoder_accepts_what_linux_accepts(bytes in mutated_blocks()) {
        let read = StatusBlock::read(&bytes);
        let raw_data = bytes.get(8..12).is_some_and(|length| length != [0; 4]);
        match linux_accepts(&bytes, MAX_LEN, Notification::Gsiv) {
            // Linux does not read a block with the status of an empty one.
            Ok(LinuxOutcome::NothingToRead) => {}
            // The decoder requires all of the raw data; Linux copies what there is.
            Ok(_) if raw_data => {}
            Ok(_) => prop_assert!(read.is_ok(), "{read:?}"),
            // A block may be longer than Linux reads.
            Err(Rejection::TooLong { .. }) => {}
            Err(rejection) => prop_assert!(read.is_err(), "{rejection}: {read:?}"),
        }
    }
}

#[test]
fn errors_have_offset_and_field() {
    let mut bytes = block(&[AnySection::Raw(ras_core::Guid::ZERO, vec![1; 8])]);
    assert_eq!(bytes.len(), 20 + 72 + 8);
    // The length of the entry's payload.
    bytes[20 + 24] = 9;
    let error = StatusBlock::read(&bytes).expect_err("one byte too many");
    assert_eq!(
        error,
        DecodeError { offset: 44, what: "error data length", found: 9, expected: Expected::AtMost(8) }
    );
    assert_eq!(error.to_string(), "at byte 0x2c: error data length is 0x9, expected at most 0x8");

    let error = StatusBlock::read(&bytes[..19]).expect_err("less than a header");
    assert_eq!(
        error,
        DecodeError { offset: 0, what: "length of the block", found: 19, expected: Expected::AtLeast(20) }
    );
}

#[test]
fn raw_data_follows_the_entries() -> Result<(), DecodeError> {
    let mut bytes = block(&[]);
    bytes.extend(*b"..raw");
    bytes[4] = 22;
    bytes[8] = 3;
    assert_eq!(StatusBlock::read(&bytes)?.raw_data, b"raw");
    bytes[4] = 19;
    let error = StatusBlock::read(&bytes).expect_err("in the header");
    assert_eq!((error.what, error.expected), ("raw data offset", Expected::AtLeast(20)));
    Ok(())
}

#[test]
fn a_record_with_a_memory_section_is_described() -> Result<(), DecodeError> {
    let memory = ras_core::cper::memory::MemorySection::of_page(0x8000_0000);
    let mut bytes = vec![0; 128 + 72];
    bytes[..4].copy_from_slice(&RecordHeader::SIGNATURE);
    bytes[6..10].copy_from_slice(&[0xff; 4]);
    bytes[10] = 1;
    bytes[20..24].copy_from_slice(&280_u32.to_le_bytes());
    // Boot notification.
    bytes[80..96].copy_from_slice(b"\x66\xa4\x61\x3d\x40\xab\x9a\x40\xa6\x98\xf3\x62\xd4\x64\xb3\x8f");
    bytes[128] = 200;
    bytes[132] = 80;
    bytes[144..160].copy_from_slice(b"\x14\x11\xbc\xa5\x64\x6f\xde\x4e\xb8\x63\x3e\x83\xed\x7c\x83\xb1");
    ras_core::cper::Section::parts(&memory, &mut |part| bytes.extend_from_slice(part));

    let text = decode(&bytes)?;
    for expected in ["notification           boot", "section 1:", "physical address       0x80000000"] {
        assert!(text.contains(expected), "{text}");
    }
    // The older section ends after the type.
    bytes[132] = 73;
    assert!(decode(&bytes)?.contains("0x80000000"));
    // A shorter one is reported as broken, with its bytes.
    bytes[132] = 72;
    assert!(decode(&bytes)?.contains("length of the memory error section is 0x48, expected at least 0x49"));
    // A section that exceeds the record is an error.
    bytes[132] = 81;
    let error = Record::read(&bytes).expect_err("it exceeds the record");
    assert_eq!((error.offset, error.found, error.expected), (128, 281, Expected::AtMost(280)));
    Ok(())
}

#[cfg(feature = "serde")]
#[test]
fn a_serialised_description_has_names_and_values() -> Result<(), Box<dyn core::error::Error>> {
    let bytes = block(&[AnySection::Memory(ras_core::cper::memory::MemorySection::of_page(0x8000_0000))]);
    let json = serde_json::to_value(Decoded::read(&bytes)?.describe())?;
    assert_eq!(
        json,
        serde_json::json!({
            "block_status": ["uncorrectable"],
            "entry_count": 1,
            "data_length": 152,
            "severity": "recoverable",
            "entry": [{
                "severity": "recoverable",
                "revision": "0x300",
                "memory_error": {
                    "physical_address": "0x80000000",
                    "physical_address_mask": "0xfffffffffffff000",
                    "error_type": "unknown",
                },
            }],
        })
    );
    Ok(())
}

#[test]
fn raw_data_must_not_overlap_the_entries() -> Result<(), DecodeError> {
    let mut bytes = block(&[AnySection::Raw(ras_core::Guid::ZERO, vec![1; 8])]);
    bytes.push(b'r');
    bytes[8] = 1;
    bytes[4] = 100;
    assert_eq!(StatusBlock::read(&bytes)?.raw_data, b"r");
    bytes[4] = 99;
    let error = StatusBlock::read(&bytes).expect_err("the last byte of the entry");
    assert_eq!((error.offset, error.found, error.expected), (4, 99, Expected::AtLeast(100)));
    Ok(())
}

#[test]
fn entries_have_a_timestamp_since_revision_3() -> Result<(), DecodeError> {
    let section = AnySection::Raw(ras_core::Guid::ZERO, vec![1; 8]);
    for (revision, timestamp, payload) in [
        ([0x01, 0x02], false, 16),
        ([0xff, 0x02], false, 16),
        ([0x00, 0x03], true, 8),
        ([0x01, 0x03], true, 8),
    ] {
        let mut bytes = block(std::slice::from_ref(&section));
        bytes[40..42].copy_from_slice(&revision);
        bytes[44] = payload;
        let block = StatusBlock::read(&bytes)?;
        let entries: Vec<_> =
            block.entries().map(|entry| (entry.timestamp.is_some(), entry.payload.len())).collect();
        assert_eq!(entries, [(timestamp, usize::from(payload))], "revision {revision:?}");
    }
    Ok(())
}

#[test]
fn the_length_of_an_arm_section_is_checked() {
    use ras_core::cper::arm_processor::{ArmErrorInfo, ArmProcessorHeader};

    let info = ArmErrorInfo { length: ArmErrorInfo::LENGTH, ..Default::default() };
    let section = AnySection::Arm {
        header: ArmProcessorHeader::default(),
        infos: vec![info],
        contexts: vec![],
        vendor: vec![1, 2],
    };
    let mut bytes = block(&[section]);
    let section_length = 20 + 72 + 8;
    assert_eq!(bytes[section_length], 40 + 32 + 2);
    bytes[section_length] -= 1;
    assert_eq!(values(&bytes, "vendor"), ["01"]);
    assert_eq!(values(&bytes, "bytes_behind"), ["02"]);

    // Too short for the error that it counts; longer than the entry.
    for (length, error) in [
        (71, "at byte 0x84: length of error information is 0x1f, expected at least 0x20"),
        (75, "at byte 0x64: length of the Arm processor section is 0x4b, expected at most 0x4a"),
    ] {
        bytes[section_length] = length;
        assert_eq!(values(&bytes, "broken"), [error]);
    }
}
