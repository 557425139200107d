//! The page of the profile's keys is generated, and complete.
//!
//! After a change of a key, write it anew:
//!
//! ```sh
//! UPDATE_EXPECTED=1 cargo test -p ghest-machine-profile --test reference
//! ```

use std::fs;

use machine_profile::{reference, schema};
use serde_json::Value;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/profile.md");

#[test]
fn the_page_in_docs_is_generated_from_the_declarations() {
    let page = reference(&devices::kinds());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(PAGE).unwrap(), page, "UPDATE_EXPECTED=1 accepts the second");
}

/// Each key of the schema has a row in its section, with an example that the schema accepts.
#[test]
fn every_key_of_the_schema_has_a_row_with_a_valid_example() {
    let (schema, page) = (schema(&devices::kinds()), reference(&devices::kinds()));
    let mut expected = 0;
    for (name, section) in schema["properties"].as_object().unwrap() {
        match section["items"]["oneOf"].as_array() {
            None => expected += check(&page, &format!("\n## `[{name}]`\n"), section),
            Some(kinds) => {
                for kind in kinds {
                    let of_kind = kind["properties"]["type"]["const"].as_str().unwrap();
                    expected += check(&page, &format!("\n### `type = \"{of_kind}\"`\n"), kind);
                }
            }
        }
    }
    assert_eq!(page.lines().filter(|line| line.starts_with("| `")).count(), expected);
}

/// The number of keys of a section, each of which the page has.
fn check(page: &str, heading: &str, section: &Value) -> usize {
    let (_, text) = page.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let text = text.split("\n##").next().unwrap();
    let keys = section["properties"].as_object().unwrap().iter().filter(|(key, _)| *key != "type");
    keys.map(|(key, schema)| {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("{heading}: no {key}"));
        let cells: Vec<_> = row.split(" | ").collect();
        let [_, values, default, example, meaning] = cells[..] else { panic!("{row}") };
        assert!(
            [values, default, meaning].iter().all(|cell| !cell.trim_end_matches(" |").is_empty()),
            "{row}"
        );
        let value: Value = toml::from_str(example.trim_matches('`')).unwrap();
        assert!(jsonschema::is_valid(schema, &value[key]), "{row}");
    })
    .count()
}
