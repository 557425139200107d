//! Paths by name.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::{FilePath, Form, Text, ValueError};
use crate::source::Place;
use crate::tree::{Entry, Value};

/// Paths by their names, written as a table.
pub struct NamedPaths {
    /// What a name must be.
    pub names: Text,
    /// The maximum number of names.
    pub max: usize,
    /// A path.
    pub path: FilePath,
}

/// An entry of [`NamedPaths`].
#[derive(Clone, Debug)]
pub struct NamedPath {
    /// Its name.
    pub name: String,
    /// The path, as written in the profile.
    pub path: PathBuf,
    /// The place of the path.
    pub place: Place,
}

impl NamedPaths {
    /// Reads an entry. The reason of an error names it.
    fn entry(&self, Entry { name, node, .. }: &Entry) -> Result<NamedPath, ValueError> {
        let escaped = name.escape_debug();
        self.names.read(&Value::Text(name.clone())).map_err(|error| match error {
            ValueError::Invalid { reason, help } => {
                ValueError::Invalid { reason: format!("the name `{escaped}`: {reason}"), help }
            }
            error => error,
        })?;
        let path = self.path.read(&node.value).map_err(|error| match error {
            ValueError::WrongType => ValueError::Invalid {
                reason: format!("`{escaped}`: expected a path, got {}", node.value.kind()),
                help: match node.value {
                    Value::Table(_) => format!("write a name with dots in quotes: `{}`", self.example()),
                    _ => format!("for example `{}`", self.example()),
                },
            },
            ValueError::Invalid { reason, help } => {
                ValueError::Invalid { reason: format!("`{escaped}`: {reason}"), help }
            }
        })?;
        Ok(NamedPath { name: name.clone(), path, place: node.place.clone() })
    }
}

impl Form for NamedPaths {
    type Value = Vec<NamedPath>;

    fn read(&self, value: &Value) -> Result<Self::Value, ValueError> {
        let Value::Table(table) = value else { return Err(ValueError::WrongType) };
        match table.entries.len() {
            0 => ValueError::invalid("it is empty", format!("for example `{}`", self.example())),
            count if count > self.max => ValueError::invalid(
                format!("it has {count} names; the maximum is {}", self.max),
                format!("remove {}", count - self.max),
            ),
            _ => table.entries.iter().map(|entry| self.entry(entry)).collect(),
        }
    }

    fn expected(&self) -> String {
        "a table of names and paths".to_owned()
    }

    fn example(&self) -> String {
        format!("{{ {} = {} }}", self.names.example(), self.path.example())
    }

    fn schema(&self) -> Json {
        json!({
            "type": "object",
            "propertyNames": self.names.schema(),
            "additionalProperties": self.path.schema(),
            "minProperties": 1,
            "maxProperties": self.max,
        })
    }

    fn to_json(&self, value: &Self::Value) -> Json {
        value.iter().map(|entry| (entry.name.clone(), self.path.to_json(&entry.path))).collect()
    }
}
