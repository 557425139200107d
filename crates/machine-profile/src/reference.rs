//! The reference of the profile, as a page in Markdown.

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::description::{KeySchema, Section, Shape};
use crate::device_kind::{DeviceKinds, TYPE};
use crate::keys::SECTIONS;

/// Every section and key in Markdown: values, default, example and meaning, generated from the declarations that the reader uses.
#[must_use]
pub fn reference(kinds: &DeviceKinds) -> String {
    let mut page = String::from(HEADING);
    for section in SECTIONS {
        of_section(&mut page, section, kinds);
    }
    page
}

const HEADING: &str = "\
# The profile

A profile is a TOML file that describes one machine. This page lists every section and key. It is generated from the declarations by
which `ghest` reads profiles; `ghest schema` prints the same as a JSON Schema, for editors.

- `ghest check PROFILE` reports every problem of a profile with its line and the remedy. An unknown key is one of them.
- Paths are relative to the directory of the profile.
- Sizes, times and bandwidths are strings: a whole number and its unit, for example `\"512MiB\"`.
- `--set machine.vcpus=4` replaces the value of a key, and `--set device.0.path=disk.img` one of the first device, with the same checks.
";

const COLUMNS: &str = "| key | values | default | example | meaning |\n|---|---|---|---|---|\n";

fn of_section(page: &mut String, section: &Section, kinds: &DeviceKinds) {
    line(page, format_args!("\n## `{}`\n\n{}", section.header(), section.doc));
    match &section.shape {
        Shape::Once { required, keys } => {
            if *required {
                page.push_str("Every profile has this section.\n");
            }
            table(page, keys);
        }
        Shape::Devices => {
            page.push_str(
                "One section for each, any number of times. `type` is its kind, which has the other keys.\n",
            );
            for kind in kinds.iter() {
                let heading =
                    format_args!("\n### `{TYPE} = \"{}\"`\n\n{}.", kind.name(), capitalised(kind.doc()));
                line(page, heading);
                if kind.keys().is_empty() {
                    page.push_str("It has no other keys.\n");
                } else {
                    table(page, kind.keys());
                }
            }
        }
    }
}

fn table(page: &mut String, keys: &[&dyn KeySchema]) {
    page.push('\n');
    page.push_str(COLUMNS);
    for key in keys {
        let schema = key.schema();
        // What is so by default needs no line.
        let example = if schema["default"] == true { "false".to_owned() } else { key.example() };
        let (name, example) = (key.name(), format!("{} = {example}", key.name()));
        let cells = [
            &format!("`{name}`"),
            &values(*key, &schema),
            &default(*key, &schema),
            &format!("`{example}`"),
            key.doc(),
        ];
        line(page, format_args!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
}

/// The allowed words with their meanings, or the phrase that describes the values.
fn values(key: &dyn KeySchema, schema: &Json) -> String {
    let Some(words) = schema["oneOf"].as_array() else { return key.values() };
    let word = |word: &Json| Some(format!("`{}`: {}", word["const"], word["description"].as_str()?));
    words.iter().filter_map(word).collect::<Vec<_>>().join("<br>")
}

fn default(key: &dyn KeySchema, schema: &Json) -> String {
    match (key.note(), schema.get("default")) {
        // What applies has no name in the profile.
        (Some(note), _) => note.to_owned(),
        // JSON's strings, numbers and booleans are TOML's.
        (None, Some(default)) => format!("`{default}`"),
        (None, None) => "must be given".to_owned(),
    }
}

/// A phrase as a sentence.
fn capitalised(phrase: &str) -> String {
    let mut characters = phrase.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}
