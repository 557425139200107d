//! The JSON Schema of a profile.

use serde_json::{Map, Value as Json, json};

use crate::description::{KeySchema, Section, Shape};
use crate::device_kind::{DeviceKinds, TYPE, TYPE_DOC};
use crate::keys::SECTIONS;

/// The JSON Schema (draft 2020-12) of a profile, generated from the declarations that the reader uses.
///
/// It covers each key by itself: names, types, words, units, lengths and defaults. Constraints between keys, and the limits
/// of sizes and times, are checked by [`parse`](crate::parse) only. The schema accepts every profile that `parse` accepts.
#[must_use]
pub fn schema(kinds: &DeviceKinds) -> Json {
    let properties: Map<String, Json> =
        SECTIONS.iter().map(|section| (section.name.to_owned(), of_section(section, kinds))).collect();
    let required: Vec<&str> = SECTIONS
        .iter()
        .filter(|section| matches!(section.shape, Shape::Once { required: true, .. }))
        .map(|section| section.name)
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Machine profile",
        "description": "A virtual machine, written as TOML.",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn of_section(section: &Section, kinds: &DeviceKinds) -> Json {
    let mut schema = match &section.shape {
        Shape::Once { keys, .. } => of_keys(keys),
        Shape::Devices => {
            let types: Vec<Json> = kinds
                .iter()
                .map(|kind| {
                    let mut schema = of_keys(kind.keys());
                    schema["description"] = json!(kind.doc());
                    schema["properties"][TYPE] = json!({ "const": kind.name(), "description": TYPE_DOC });
                    if let Some(required) = schema["required"].as_array_mut() {
                        required.insert(0, json!(TYPE));
                    }
                    schema
                })
                .collect();
            json!({ "type": "array", "items": { "oneOf": types } })
        }
    };
    schema["description"] = json!(section.doc);
    schema
}

fn of_keys(keys: &[&dyn KeySchema]) -> Json {
    let properties: Map<String, Json> =
        keys.iter().map(|key| (key.name().to_owned(), key.schema())).collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.required()).map(|key| key.name()).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
