//! The encoder is the inverse of the decoder.
//!
//! `PROPTEST_CASES=1000000` runs each test a million times.

use proptest::prelude::*;
use ras_core::{Decoded, Description, StatusBlock, Value};

use crate::section_bytes as bytes_of;

fn describe(bytes: &[u8]) -> Result<Description, TestCaseError> {
    Ok(Decoded::read(bytes)?.describe())
}

fn is_broken(description: &Description) -> bool {
    description.to_string().lines().any(|line| line.trim_start().starts_with("broken  "))
}

/// Bytes are encoded as they were, also by way of JSON.
fn assert_encoded(bytes: &[u8]) -> Result<(), TestCaseError> {
    let described = describe(bytes)?;
    prop_assert!(!is_broken(&described), "{}", described);
    let encoded = described.encode().map_err(|error| TestCaseError::fail(format!("{error}\n{described}")))?;
    prop_assert_eq!(&encoded, bytes, "{}", described);
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_string(&described).expect("JSON");
        let read: Description = serde_json::from_str(&json).expect("the same JSON");
        prop_assert_eq!(&read.encode()?, bytes, "{}", json);
    }
    Ok(())
}

/// Any bytes that can be decoded: what was decoded is decoded again from what is encoded.
fn assert_same(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(decoded) = Decoded::read(bytes) else { return Ok(()) };
    let described = decoded.describe();
    // The encoder corrects lengths that are wrong, and gives each section bytes of its own.
    let text = described.to_string();
    if ["warning", "undecoded", "end of a section", "length of a section"].iter().any(|it| text.contains(it))
    {
        return Ok(());
    }
    if let Ok(encoded) = described.encode() {
        prop_assert_eq!(describe(&encoded)?, described);
    }
    Ok(())
}

/// A change of a description: of a key or of a value, at any depth.
fn change(description: &Description, place: usize, value: &Value) -> Description {
    let fields = description.fields();
    let mut changed = Description::default();
    let place = place % (fields.len() + 1);
    for (index, (name, old)) in fields.iter().enumerate() {
        let new = match old {
            _ if index == place => value.clone(),
            Value::Group(group) if index == place.saturating_sub(1) => {
                Value::Group(change(group, place, value))
            }
            Value::List(items) => Value::List(items.iter().map(|item| change(item, place, value)).collect()),
            old => old.clone(),
        };
        changed = changed.with(name.clone(), new);
    }
    if place == fields.len() { changed.with("further", value.clone()) } else { changed }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Number),
        "[a-z0-9x-]{0,24}".prop_map(Value::Text),
        Just(Value::Text("0xffffffff".to_owned())),
        Just(Value::Texts(vec![])),
        Just(Value::Texts(vec!["primary".to_owned(), "0x7".to_owned()])),
        Just(Value::Group(Description::default())),
        Just(Value::List(vec![Description::default()])),
    ]
}

proptest! {
    #[test]
    fn every_block_is_encoded_as_it_was(bytes in bytes_of::block()) {
        prop_assert!(StatusBlock::read(&bytes).is_ok());
        assert_encoded(&bytes)?;
    }

    #[test]
    fn every_record_is_encoded_as_it_was(bytes in bytes_of::record(), attributes in prop::option::of(1..0x100_u32)) {
        match attributes {
            Some(attributes) => assert_encoded(&[&attributes.to_le_bytes(), &bytes[..]].concat())?,
            None => assert_encoded(&bytes)?,
        }
    }

    #[test]
    fn files_are_encoded_as_they_were(
        parts in prop::collection::vec(prop_oneof![bytes_of::block(), bytes_of::record()], 1..4),
        zeros in 0..3_usize,
    ) {
        let mut file = Vec::new();
        for part in parts {
            // Blocks are aligned.
            file.resize(file.len().next_multiple_of(64) + 64 * zeros, 0);
            file.extend(part);
        }
        file.resize(file.len() + 32 * zeros, 0);
        let described = describe(&file)?;
        if is_broken(&described) {
            return Ok(());
        }
        prop_assert_eq!(described.encode()?, file, "{}", described);
    }

    /// Also if fields are not valid.
    #[test]
    fn what_was_decoded_is_decoded_again(
        bytes in prop_oneof![bytes_of::block(), bytes_of::record()],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut bytes = bytes;
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        assert_same(&bytes)?;
    }

    /// What is encoded is decoded; the rest is refused with the path of a key.
    #[test]
    fn any_description_is_encoded_or_refused(
        bytes in prop_oneof![bytes_of::block(), bytes_of::record()],
        changes in prop::collection::vec((0..40_usize, value()), 1..4),
    ) {
        let mut described = describe(&bytes)?;
        for (place, value) in changes {
            described = change(&described, place, &value);
        }
        match described.encode() {
            Ok(encoded) => prop_assert!(encoded.len() <= 16 << 20),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[cfg(feature = "serde")]
mod by_hand {
    use super::*;

    fn encode(json: &str) -> Result<Vec<u8>, String> {
        let description: Description = serde_json::from_str(json).map_err(|error| error.to_string())?;
        description.encode().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_follows_from_the_rest() {
        let json = r#"{ "entry": [
            { "severity": "corrected", "memory_error": { "physical_address": "0x12345000", "error_type": 2 } },
            { "severity": "fatal", "section_type": "00112233-4455-6677-8899-aabbccddeeff", "section": "beef" }
        ] }"#;
        let bytes = encode(json).expect("two entries");
        assert_eq!(bytes.len(), 20 + 72 + 80 + 72 + 2);
        // Both bits and a count of two; the worst severity.
        assert_eq!(bytes[..20], [0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 226, 0, 0, 0, 1, 0, 0, 0]);
        let text = Decoded::read(&bytes).expect("a block").describe().to_string();
        assert!(text.contains("0x12345000") && text.contains("single-bit ECC"), "{text}");

        let record =
            r#"{ "section": [{ "severity": "fatal", "pcie_error": { "device_id": { "bus": 7 } } }] }"#;
        let bytes = encode(record).expect("a record");
        assert_eq!(bytes.len(), 128 + 72 + 208);
        assert_eq!((&bytes[..4], bytes[12], bytes[20]), (&b"CPER"[..], 1, 152));
        assert_eq!(bytes[200], 1 << 3, "only the device id is valid");

        let section = r#"{ "severity": "fatal", "dmar_error": { "access_type": "DMA read" } }"#;
        assert_eq!(encode(section).expect("a section behind its descriptor").len(), 72 + 32);
    }

    #[test]
    fn errors_have_path_value_and_remedy() {
        let memory =
            |fields: &str| format!(r#"{{"entry":[{{"severity":"fatal","memory_error":{{{fields}}}}}]}}"#);
        for (json, said) in [
            (
                memory(r#""node": 65536"#),
                "`entry[0].memory_error.node` is 65536, expected a number from 0 to 0xffff, decimal or as text with `0x`",
            ),
            (memory(r#""node": "0x+1""#), "is `0x+1`, expected a number"),
            (memory(r#""nod": 1"#), "`entry[0].memory_error.nod` is not a key of this object"),
            (memory(r#""nod": 1"#), "the keys are length, error_status, error_status_type"),
            (memory(r#""node": 1, "node": 1"#), "`entry[0].memory_error.node` is there twice"),
            (
                memory(r#""bank": "0x305", "bank_group": 4"#),
                "`entry[0].memory_error.bank_group` is 0x4, but other keys of the same object make it 0x3",
            ),
            (memory(r#""error_type": "bad""#), "is `bad`, expected `unknown`, `no error`, `single-bit ECC`"),
            (memory(r#""physical_address": -1"#), "invalid type: integer `-1`"),
            (memory(r#""physical_address": null"#), "line 1 column"),
            (r#"{"entry":[{"memory_error":{}}]}"#.to_owned(), "`entry[0].severity` is missing: add it, as `recoverable`"),
            (r#"{"entry":[{"severity":"fatal"}]}"#.to_owned(), "`entry[0]` has no status block"),
            (
                r#"{"entry":[{"severity":"fatal","memory_error":{},"pcie_error":{}}]}"#.to_owned(),
                "`entry[0].pcie_error` is a second section beside `memory_error`",
            ),
            (r#"{"entry":[],"data_length":4}"#.to_owned(), "`data_length` is 0x4, but other keys of the same object make it 0x0"),
            (r#"{"entry":["x"]}"#.to_owned(), "`entry` is [x], expected a list of objects"),
            ("{}".to_owned(), "`severity` is missing"),
            (r#"{"severity":"fatal"}"#.to_owned(), "has no status block, CPER record or section"),
            (
                r#"{"section":[{"severity":"fatal","section_offset":"0xffffffff","memory_error":{}}]}"#.to_owned(),
                "`section[0].section_offset` makes it longer than 16777216 bytes",
            ),
            (
                r#"{"severity":"fatal","zero_bytes_behind":4294967295,"memory_error":{}}"#.to_owned(),
                "`zero_bytes_behind` makes it longer",
            ),
            (
                r#"{"severity":"fatal","memory_error":{},"undecoded":[{"offset":"0x200","length":300,"bytes":"00"}]}"#
                    .to_owned(),
                "`undecoded[0].bytes` has 1 of its 300 bytes",
            ),
            (
                r#"{"severity":"fatal","arm_processor_error":{"error":[{"kind_value":16,"error_details":{}}]}}"#.to_owned(),
                "`arm_processor_error.error[0].error_details` has no form",
            ),
        ] {
            let error = encode(&json).expect_err(&json);
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
