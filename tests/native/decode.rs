//! `ghest decode`: the forms of its input. What it prints about records is tested in `ras-core` (`records`).

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use libtest_mimic::Trial;
use ras_core::{Kind, MemoryBlocks, MemoryReport, Span};
use serde_json::json;

use crate::harness::ghest::Outcome;
use crate::harness::{Checked, Ghest, Scratch, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        records_are_decoded,
        every_form_of_a_record,
        standard_input,
        several_blocks_are_numbered,
        inputs_that_are_no_records,
        an_input_without_end,
        the_table_bert,
    ]
}

/// The address in [`RECORD`].
pub(crate) const ADDRESS: &str = "0x8000";

/// A record of 280 bytes with a memory error section, as `xxd -p` prints it: from the tables of UEFI 2.10, appendix N.
const RECORD: &str = "\
    435045520101ffffffff01000000000002000000180100003401020001072520\
    0000000000000000000000000000000000000000000000000000000000000000\
    11111111222233334444555555555555b18bce2dd7bd0e45b9ad9cf4ebd4f890\
    3412000000000000000000000000000000000000000000000000000000000000\
    c80000005000000000030000010000001411bca5646fde4eb8633e83ed7c83b1\
    0000000000000000000000000000000000000000000000000000000000000000\
    0000000000000000064000000000000000000000000000000080000000000000\
    00f0ffffffffffff000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000200000000000000";

pub(crate) fn record() -> Vec<u8> {
    ras_core::bytes_of_hex_text(RECORD.as_bytes(), 1000).expect("hexadecimal text").expect("text")
}

pub(crate) fn block(gpa: u64) -> Vec<u8> {
    let mut block = vec![0; 4096];
    let report = MemoryReport::uncorrected(Kind::ActionOptional, 1_795_446_245, 17);
    let len = MemoryBlocks::new(Span::around(gpa, 12), report).write_next(&mut block).expect("one block");
    block.truncate(len);
    block
}

fn decode(scratch: &Scratch, input: impl AsRef<[u8]>) -> Outcome {
    Ghest::new(["decode"]).arg(scratch.file("input", input)).finish()
}

fn records_are_decoded() -> Checked {
    let scratch = Scratch::new();
    let file = scratch.file("block", block(0x4567_8000));
    let text = Ghest::new(["decode"]).arg(&file).finish().expect(0);
    assert!(text.stdout().contains("0x45678000"), "{text}");
    assert!(text.stdout().contains("memory #17"), "{text}");
    let json = Ghest::new(["decode", "--json"]).arg(&file).finish().expect(0).json();
    assert_eq!(json["entry"][0]["memory_error"]["physical_address"], json!("0x45678000"));
    Ok(())
}

fn every_form_of_a_record() -> Checked {
    let scratch = Scratch::new();
    let expected = decode(&scratch, record()).expect(0).stdout();
    assert!(expected.contains(ADDRESS), "{expected}");

    let with_prefix: String = record().iter().map(|byte| format!("0x{byte:02x}, ")).collect();
    let mut xxd = String::new();
    let mut hexdump = String::new();
    for (index, row) in record().chunks(16).enumerate() {
        let digits: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let pairs: Vec<_> = digits.chunks(2).map(<[String]>::concat).collect();
        xxd += &format!("{:08x}: {:39}  {}\n", 16 * index, pairs.join(" "), "|:".repeat(8));
        hexdump += &format!("{:08x}  {:48}  |{}|\n", 16 * index, digits.join(" "), ".".repeat(row.len()));
    }
    hexdump += "00000118\n";
    for text in [RECORD.to_owned(), format!("{RECORD}\n"), with_prefix, xxd, hexdump] {
        assert_eq!(decode(&scratch, &text).expect(0).stdout(), expected, "{text}");
    }

    let efivarfs = decode(&scratch, [&[7, 0, 0, 0], &record()[..]].concat()).expect(0).stdout();
    assert!(efivarfs.contains("non-volatile, boot-service-access, runtime-access"), "{efivarfs}");
    assert!(efivarfs.contains(ADDRESS), "{efivarfs}");
    // The descriptor and its section alone.
    let section = decode(&scratch, &record()[128..]).expect(0).stdout();
    assert!(section.contains(ADDRESS) && !section.contains("notification"), "{section}");
    Ok(())
}

fn standard_input() -> Checked {
    let scratch = Scratch::new();
    let expected = decode(&scratch, record()).expect(0).stdout();
    for input in [record(), RECORD.into()] {
        let mut running = Ghest::new(["decode", "-"]).stdin(Stdio::piped()).start();
        running.take_stdin().write_all(&input).expect("a reader");
        assert_eq!(running.finish().expect(0).stdout(), expected);
    }
    Ghest::new(["decode", "-"]).finish().expect(2).expect_said("ghest: standard input: it is empty");
    Ok(())
}

fn several_blocks_are_numbered() -> Checked {
    let scratch = Scratch::new();
    let mut region = [block(0x1000), block(0x2000)].concat();
    region.resize(4096, 0);
    let text = decode(&scratch, &region).expect(0).stdout();
    assert!(text.contains("block 1:\n") && text.contains("block 2:\n"), "{text}");
    let file = scratch.file("records", [record(), record(), vec![0xee; 7]].concat());
    let json = Ghest::new(["decode", "--json"]).arg(&file).finish().expect(0).json();
    assert_eq!(json["record"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(json["undecoded"][0]["length"], json!(7), "{json}");
    Ok(())
}

fn inputs_that_are_no_records() -> Checked {
    let scratch = Scratch::new();
    for (input, said) in [
        (&[0xff; 64][..], "it has no status block, CPER record or section; as a status block: at byte 0xc: "),
        (
            &record()[..100],
            "as a CPER record: at byte 0x0: length of the record is 0x64, expected at least 0x80",
        ),
        (b"", "it is empty"),
        (b"[machine]\n", "it is text, but not hexadecimal: line 1: `[machine]` is not a number of bytes"),
        (b"00000000: 4350\n00000010: 4552\n", "line 2: its offset is 0x10, expected 0x2"),
    ] {
        let outcome = decode(&scratch, input).expect(2).expect_said(said);
        assert_eq!(outcome.stdout, b"", "{outcome}");
    }
    Ghest::new(["decode"])
        .arg(scratch.path("missing"))
        .finish()
        .expect(2)
        .expect_said("open(2): No such file");
    Ghest::new(["decode"]).arg(scratch.path("")).finish().expect(2).expect_said("read(2): Is a directory");
    Ok(())
}

fn an_input_without_end() -> Checked {
    const SAID: &str = "it has more than 16777216 bytes, the maximum";
    Ghest::new(["decode", "/dev/zero"]).finish().expect(2).expect_said(SAID);
    let zeros = File::open("/dev/zero").expect("/dev/zero");
    Ghest::new(["decode", "-"]).stdin(zeros).finish().expect(2).expect_said(SAID);
    // Lines that stand for more bytes than they have.
    let scratch = Scratch::new();
    let row = "00 ".repeat(16);
    let dump = format!("00000000  {row}|................|\n*\n7fffffff0\n");
    decode(&scratch, dump).expect(2).expect_said("line 3: more than 16777216 bytes");
    Ok(())
}

fn the_table_bert() -> Checked {
    let scratch = Scratch::new();
    let mut table = b"BERT\x30\0\0\0\x01\x5aGHEST GHESTACP".to_vec();
    table.resize(48, 0x11);
    decode(&scratch, table).expect(2).expect_said("the region is /sys/firmware/acpi/tables/data/BERT");
    Ok(())
}
