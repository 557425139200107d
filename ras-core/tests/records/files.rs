//! Files with error records of others: nothing in them is dropped silently.

use ras_core::{Decoded, Guid, Kind, MemoryBlocks, MemoryReport, Span, bytes_of_hex_text};

use crate::cper_bytes::{self as cper, OneSection, block, memory_record};
use crate::printed::{text, values};

#[test]
fn a_record_that_is_longer_than_the_file_is_decoded() {
    let bytes = OneSection { length: Some(0x400), ..memory_record(0x7000) }.bytes();
    assert_eq!(
        values(&bytes, "warning"),
        ["at byte 0x14: length of the record is 0x400, expected at most 0x118"]
    );
    assert_eq!(values(&bytes, "physical_address"), ["0x7000"]);
}

#[test]
fn records_behind_one_another_are_decoded() {
    let first = memory_record(0x8000).bytes();
    let second = OneSection::new(cper::ARM, cper::arm(2, false, &[])).bytes();
    let third = memory_record(0x9000).bytes();
    let bytes = [&first[..], &second, &[0; 232], &third, &[0; 5]].concat();
    assert_eq!(values(&bytes, "offset"), ["0x0", "0x118", "0x310"]);
    assert_eq!(values(&bytes, "physical_address"), ["0x8000", "0x9000"]);
    assert_eq!(values(&bytes, "zero_bytes"), ["237"]);
    let text = text(&bytes);
    for heading in ["record 1:\n", "record 2:\n", "record 3:\n"] {
        assert!(text.contains(heading), "{text}");
    }
}

/// Wrong lengths of one record do not hide the next.
#[test]
fn a_damaged_record_ends_before_the_next() {
    let good = memory_record(0x9000).bytes();
    for length in [0, 127, 0x7fff_ffff, u32::MAX] {
        for section_length in [80, 0x400, u32::MAX] {
            let mut damaged = OneSection { length: Some(length), ..memory_record(0x8000) }.bytes();
            damaged[132..136].copy_from_slice(&section_length.to_le_bytes());
            let bytes = [&damaged[..], &good].concat();
            assert_eq!(values(&bytes, "offset"), ["0x0", "0x118"], "{length:#x}, {section_length:#x}");
            assert_eq!(values(&bytes, "warning").len(), 1);
            let addresses = values(&bytes, "physical_address");
            assert_eq!(addresses.last().map(String::as_str), Some("0x9000"));
            assert_eq!(addresses.len() == 2, section_length == 80);
            assert_eq!(values(&bytes, "broken").is_empty(), section_length == 80);
        }
    }
    // Its length is within the file, and covers the next.
    let covering = OneSection { length: Some(0x118 + 0x110), ..memory_record(0x8000) }.bytes();
    let bytes = [&covering[..], &[0; 8], &good].concat();
    assert_eq!(values(&bytes, "offset"), ["0x0", "0x120"]);
    assert_eq!(values(&bytes, "physical_address"), ["0x8000", "0x9000"]);
    let warnings = values(&bytes, "warning");
    assert_eq!(warnings, ["at byte 0x14: length of the record is 0x228, expected at most 0x120"]);

    let mut many = memory_record(0x8000).bytes();
    many[10..12].copy_from_slice(&[0xff; 2]);
    let warnings = values(&many, "warning");
    assert_eq!(
        warnings,
        ["at byte 0x80: length left for section descriptors is 0x98, expected at least 0x47ffb8"]
    );
}

#[test]
fn bytes_behind_the_sections_of_a_record_are_printed() {
    let record = OneSection { length: Some(0x11b), ..memory_record(0x8000) }.bytes();
    let behind = |bytes: [u8; 3]| values(&[&record[..], &bytes].concat(), "bytes_behind");
    assert_eq!(behind([0, 0xbb, 0]), ["00bb00"]);
    assert_eq!(behind([0; 3]), [""; 0], "space for further sections");
}

/// What is printed about a record is in proportion to its length.
#[test]
fn sections_that_overlap_are_decoded_once() {
    let mut bytes = OneSection::new(Guid::from_bytes([7; 16]), vec![0xab; 1000]).bytes();
    let descriptors = 8;
    let body = bytes.split_off(200);
    let descriptor = bytes[128..].to_vec();
    for _ in 1..descriptors {
        bytes.extend(&descriptor);
    }
    bytes.extend(body);
    bytes[10] = descriptors;
    let length = bytes.len() as u32;
    bytes[20..24].copy_from_slice(&length.to_le_bytes());
    assert_eq!(values(&bytes, "section").len(), 1, "1000 bytes of 1704");
    assert_eq!(values(&bytes, "broken").len(), 7);
}

#[test]
fn bytes_that_are_not_a_record_are_printed() {
    let bytes =
        [&memory_record(0x8000).bytes()[..], b"garbage", &memory_record(0x9000).bytes(), &[0xee; 1000]]
            .concat();
    assert_eq!(values(&bytes, "physical_address"), ["0x8000", "0x9000"]);
    assert_eq!(values(&bytes, "offset"), ["0x0", "0x11f", "0x118", "0x237"]);
    assert_eq!(values(&bytes, "length"), ["7", "1000"]);
    let shown = values(&bytes, "bytes");
    assert_eq!(shown[0], "67617262616765");
    assert_eq!(shown[1], "ee".repeat(256));
    // Before the first record too.
    let bytes = [b"garbage", &memory_record(0x8000).bytes()[..]].concat();
    assert_eq!(values(&bytes, "physical_address"), ["0x8000"]);
    assert_eq!(values(&bytes, "length"), ["7"]);
    // A record that is cut in its header.
    let bytes = [&memory_record(0x8000).bytes()[..], &memory_record(0x9000).bytes()[..100]].concat();
    assert_eq!(
        values(&bytes, "broken"),
        ["at byte 0x0: length of the record is 0x64, expected at least 0x80"]
    );
}

#[test]
fn a_section_without_a_record_is_decoded() {
    for offset in [72, 200] {
        let mut bytes = cper::descriptor(offset, 80, cper::MEMORY, 1);
        bytes.extend(cper::memory(0x9000));
        assert_eq!(values(&bytes, "physical_address"), ["0x9000"]);
        assert_eq!(values(&bytes, "severity"), ["corrected"]);
        bytes.pop();
        assert_eq!(
            values(&bytes, "broken"),
            ["at byte 0x4: length of the section is 0x50, expected at most 0x4f"]
        );
    }
    // Of an unknown type, if its descriptor has the right offset.
    let unknown = |offset| {
        let descriptor = cper::descriptor(offset, 4, Guid::from_bytes([7; 16]), 1);
        [&descriptor[..], &[0xab; 4]].concat()
    };
    assert_eq!(values(&unknown(72), "section"), ["abababab"]);
    assert!(Decoded::read(&unknown(200)).is_err());
    let two = [unknown(72), unknown(72)].concat();
    assert_eq!(values(&two, "section").len(), 2);
}

#[test]
fn a_record_in_efivarfs_is_decoded() {
    let bytes = [&[0xf, 0, 0, 0], &memory_record(0x8000).bytes()[..]].concat();
    assert_eq!(values(&bytes, "physical_address"), ["0x8000"]);
    assert_eq!(
        values(&bytes, "variable_attributes"),
        ["non-volatile, boot-service-access, runtime-access, hardware-error-record"]
    );
    let two = [&bytes[..], &bytes].concat();
    assert_eq!(values(&two, "variable_attributes").len(), 2);
    // Zeros are no attributes.
    let zeros = [&[0; 4], &memory_record(0x8000).bytes()[..]].concat();
    assert_eq!(values(&zeros, "variable_attributes").len(), 0);
    assert_eq!(values(&zeros, "zero_bytes"), ["4"]);
}

#[test]
fn the_blocks_of_a_bert_region_are_decoded() {
    let mut region = [&block(0x1000)[..], &block(0x2000)].concat();
    region.resize(0x1000, 0);
    assert_eq!(values(&region, "physical_address"), ["0x1000", "0x2000"]);
    assert!(text(&region).contains("block 2:\n"));
    // Blocks of other error sources, of which a guest has cleared the status of the second and third.
    let mut area = Vec::new();
    for page in 1..=3_u8 {
        let mut block = block(u64::from(page) << 12);
        block.resize(0x1000, 0);
        if page > 1 {
            block[..4].fill(0);
        }
        area.extend(block);
    }
    assert_eq!(values(&area, "physical_address"), ["0x1000", "0x2000", "0x3000"]);
    assert_eq!(values(&area, "offset"), ["0x0", "0x1000", "0x2000"]);
    // Cut in the second block's entry: the first is decoded, the rest is printed.
    let mut cut = [&block(0x1000)[..], &block(0x2000)].concat();
    cut.truncate(cut.len() - 1);
    assert_eq!(values(&cut, "physical_address"), ["0x1000"]);
    assert_eq!(values(&cut, "length"), ["171"]);
}

#[test]
fn the_entries_before_a_damaged_one_are_decoded() {
    let report = MemoryReport::uncorrected(Kind::ActionRequired, 0, 1);
    let mut bytes = vec![0; 0x1000];
    let len = MemoryBlocks::new(Span::around(0x4000, 13), report).write_next(&mut bytes).expect("it fits");
    bytes.truncate(len - 10);
    assert_eq!(values(&bytes, "physical_address"), ["0x4000"]);
    assert_eq!(values(&bytes, "warning"), ["at byte 0xc: data length is 0x130, expected at most 0x126"]);
    assert_eq!(values(&bytes, "length"), ["142"]);
}

#[test]
fn zeros_are_an_empty_block() {
    assert_eq!(values(&[0; 64], "entry_count"), ["0"]);
    assert_eq!(values(&[0; 64], "zero_bytes"), ["44"]);
    assert!(Decoded::read(&[0; 19]).is_err());
}

#[test]
fn other_files_are_refused() {
    let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0";
    let error = Decoded::read(elf).expect_err("an ELF file");
    assert_eq!(error.to_string(), "at byte 0x10: severity is 0x3e0003, expected at most 0x3");
    let zeros_first = [&[0; 0x100], &[0xee; 64][..]].concat();
    let error = Decoded::read(&zeros_first).expect_err("no record");
    assert_eq!((error.offset, error.what), (0x10c, "data length"));
    assert!(Decoded::read(&[]).is_err());
}

#[test]
fn hexadecimal_text_is_decoded_as_its_bytes() {
    let bytes = memory_record(0x8000).bytes();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let read = bytes_of_hex_text(format!("{digits}\n").as_bytes(), 1 << 20);
    assert_eq!(read, Ok(Some(bytes.clone())));
    assert_eq!(bytes_of_hex_text(&bytes, 1 << 20), Ok(None), "a record is binary");
    assert_eq!(bytes_of_hex_text(&block(0x1000), 1 << 20), Ok(None), "a block is binary");
}

/// Two records: an object with a list, in which each has its offset.
#[cfg(feature = "serde")]
#[test]
fn several_records_are_a_list_in_json() -> Result<(), Box<dyn core::error::Error>> {
    let bytes = [memory_record(0x8000).bytes(), memory_record(0x9000).bytes()].concat();
    let json = serde_json::to_value(Decoded::read(&bytes)?.describe())?;
    assert_eq!(json["record"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["record"][1]["offset"], "0x118");
    assert_eq!(json["record"][1]["section"][0]["memory_error"]["physical_address"], "0x9000");
    // A single one is the object itself.
    let damaged = OneSection { flags: 0x21, length: Some(0x400), ..memory_record(0x8000) }.bytes();
    let json = serde_json::to_value(Decoded::read(&damaged)?.describe())?;
    assert_eq!(json["flags"], serde_json::json!(["recovered", "0x20"]));
    assert_eq!(json["warning"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["section"][0]["memory_error"]["physical_address"], "0x8000");
    Ok(())
}

/// A record becomes the status block that notifies a guest of it.
#[test]
fn a_record_becomes_a_status_block() -> Result<(), Box<dyn core::error::Error>> {
    let to_block = |bytes: &[u8]| -> Result<Vec<u8>, Box<dyn core::error::Error>> {
        Ok(Decoded::read(bytes)?.to_block()?)
    };
    let record = OneSection { section_flags: 0x121, ..memory_record(0x8000) };
    let block = to_block(&record.bytes())?;
    // One correctable error, as the descriptor's severity says.
    assert_eq!(block[..20], [0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 152, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(values(&block, "physical_address"), ["0x8000"]);
    assert_eq!(values(&block, "flags"), ["primary, latent"], "an entry has eight");
    assert_eq!(values(&block, "time"), ["2025-07-01T02:01:34"]);
    // The time of Windows becomes decimal.
    let windows = OneSection { time: cper::BINARY_TIME, creator: cper::WINDOWS, ..record };
    assert_eq!(to_block(&windows.bytes())?, block);
    // A status block stays as it is, without what is behind it; so does one that is damaged.
    let mut behind = [&block[..], &[0; 100]].concat();
    assert_eq!(to_block(&behind)?, block);
    behind[12] = 0xff;
    assert_eq!(to_block(&behind)?[..20], behind[..20]);
    let section = [cper::descriptor(72, 80, cper::MEMORY, 1), cper::memory(0x9000)].concat();
    assert_eq!(values(&to_block(&section)?, "physical_address"), ["0x9000"]);
    let two = [block.clone(), block].concat();
    let error = to_block(&two).expect_err("two blocks").to_string();
    assert_eq!(error, "it has 2 status blocks, records or sections: one is possible");
    Ok(())
}
