//! Texts, paths and kernels.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::{Flaw, Form};
use crate::machine::Kernel;
use crate::tree::Value;

/// A string.
pub struct Text {
    /// Its least length in bytes: 0 or 1.
    pub min: usize,
    /// Its greatest length in bytes, and why.
    pub max: (usize, &'static str),
    /// Characters that it must not contain.
    pub refused: &'static [RangeInclusive<char>],
    /// An example, without quotes.
    pub example: &'static str,
}

impl Form for Text {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, Flaw> {
        let Value::Text(text) = value else { return Err(Flaw::Type) };
        if text.len() < self.min {
            return Flaw::content("it is empty", format!("for example `{}`", self.example()));
        }
        if text.len() > self.max.0 {
            return Flaw::content(
                format!("it is {} bytes long; the most is {}, {}", text.len(), self.max.0, self.max.1),
                format!("shorten it by {}", text.len() - self.max.0),
            );
        }
        match text.chars().find(|c| self.refused.iter().any(|range| range.contains(c))) {
            Some(c) => Flaw::content(
                format!("it holds `{}`", c.escape_debug()),
                format!("leave `{}` out", c.escape_debug()),
            ),
            None => Ok(text.clone()),
        }
    }

    fn wanted(&self) -> String {
        "a string".to_owned()
    }

    fn example(&self) -> String {
        format!("\"{}\"", self.example)
    }

    fn schema(&self) -> Json {
        let escaped = |c: &char| format!("\\u{:04x}", u32::from(*c));
        let class: String = self
            .refused
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (one, other) if one == other => escaped(one),
                (first, last) => format!("{}-{}", escaped(first), escaped(last)),
            })
            .collect();
        // The length is one of bytes, and no text has more characters than bytes.
        json!({
            "type": "string",
            "minLength": self.min,
            "maxLength": self.max.0,
            "pattern": format!("^[^{class}]*$"),
        })
    }

    fn write(&self, value: &String) -> Json {
        json!(value)
    }
}

/// The path of a file, as written in the profile.
pub struct FilePath {
    /// An example, without quotes.
    pub example: &'static str,
}

impl FilePath {
    /// The longest path that Linux takes, without the NUL at its end (PATH_MAX in linux/limits.h).
    const LONGEST: usize = 4095;

    fn text(&self) -> Text {
        Text {
            min: 1,
            max: (Self::LONGEST, "the longest path that Linux takes"),
            refused: &['\0'..='\0'],
            example: self.example,
        }
    }
}

impl Form for FilePath {
    type Value = PathBuf;

    fn read(&self, value: &Value) -> Result<PathBuf, Flaw> {
        self.text().read(value).map(PathBuf::from)
    }

    fn wanted(&self) -> String {
        "a path".to_owned()
    }

    fn example(&self) -> String {
        self.text().example()
    }

    fn schema(&self) -> Json {
        self.text().schema()
    }

    fn write(&self, value: &PathBuf) -> Json {
        json!(value.to_string_lossy())
    }
}

/// The path of a kernel, or `builtin:` and the name of a built-in one.
pub(crate) struct KernelPath;

impl KernelPath {
    const BUILTIN: &str = "builtin:";
    const PROBE: &str = "builtin:probe";
    const FILE: FilePath = FilePath { example: "vmlinuz" };
}

impl Form for KernelPath {
    type Value = Kernel;

    fn read(&self, value: &Value) -> Result<Kernel, Flaw> {
        match value {
            Value::Text(text) if text == Self::PROBE => Ok(Kernel::BuiltinProbe),
            Value::Text(text) if text.starts_with(Self::BUILTIN) => Flaw::content(
                "there is no such built-in kernel",
                format!("write `\"{}\"`; a file of that name is `\"./{text}\"`", Self::PROBE),
            ),
            other => Self::FILE.read(other).map(Kernel::File),
        }
    }

    fn wanted(&self) -> String {
        "a path or \"builtin:probe\"".to_owned()
    }

    fn example(&self) -> String {
        format!("\"{}\"", Self::PROBE)
    }

    fn schema(&self) -> Json {
        let mut file = Self::FILE.schema();
        file["not"] = json!({ "pattern": format!("^{}", Self::BUILTIN) });
        json!({ "anyOf": [{ "const": Self::PROBE, "description": "the built-in guest" }, file] })
    }

    fn write(&self, value: &Kernel) -> Json {
        match value {
            Kernel::BuiltinProbe => json!(Self::PROBE),
            Kernel::File(path) => Self::FILE.write(path),
        }
    }
}
