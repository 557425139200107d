//! Strings, paths and kernels.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::{Form, ValueError};
use crate::machine::Kernel;
use crate::tree::Value;

/// A string.
pub struct Text {
    /// The minimum length in bytes: 0 or 1.
    pub min: usize,
    /// The maximum length in bytes, and its reason.
    pub max: (usize, &'static str),
    /// Characters that it must not contain.
    pub refused: &'static [RangeInclusive<char>],
    /// An example, without quotes.
    pub example: &'static str,
}

impl Form for Text {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, ValueError> {
        let Value::Text(text) = value else { return Err(ValueError::WrongType) };
        if text.len() < self.min {
            return ValueError::invalid("it is empty", format!("for example `{}`", self.example()));
        }
        if text.len() > self.max.0 {
            return ValueError::invalid(
                format!("it is {} bytes long; the maximum is {}, {}", text.len(), self.max.0, self.max.1),
                format!("shorten it by {}", text.len() - self.max.0),
            );
        }
        match text.chars().find(|c| self.refused.iter().any(|range| range.contains(c))) {
            Some(c) => ValueError::invalid(
                format!("it contains `{}`", c.escape_debug()),
                format!("remove `{}`", c.escape_debug()),
            ),
            None => Ok(text.clone()),
        }
    }

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn example(&self) -> String {
        format!("\"{}\"", self.example)
    }

    fn limits(&self) -> Option<String> {
        Some(format!("{} to {} bytes", self.min, self.max.0))
    }

    fn schema(&self) -> Json {
        // Without a flag, a pattern takes characters past U+FFFF as two surrogates.
        let escaped = |c: &char| format!("\\u{:04x}", u32::from(*c).min(0xffff));
        let class: String = self
            .refused
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (one, other) if one == other => escaped(one),
                (first, last) => format!("{}-{}", escaped(first), escaped(last)),
            })
            .collect();
        // `maxLength` counts characters; a text never has more characters than bytes.
        json!({
            "type": "string",
            "minLength": self.min,
            "maxLength": self.max.0,
            "pattern": format!("^[^{class}]*$"),
        })
    }

    fn to_json(&self, value: &String) -> Json {
        json!(value)
    }
}

/// The path of a file, as written in the profile.
pub struct FilePath {
    /// An example, without quotes.
    pub example: &'static str,
}

impl FilePath {
    /// The maximum length of a path in Linux, without the terminating NUL (PATH_MAX in linux/limits.h).
    const MAX_LEN: usize = 4095;

    fn text(&self) -> Text {
        Text {
            min: 1,
            max: (Self::MAX_LEN, "the limit of Linux for paths"),
            refused: &['\0'..='\0'],
            example: self.example,
        }
    }
}

impl Form for FilePath {
    type Value = PathBuf;

    fn read(&self, value: &Value) -> Result<PathBuf, ValueError> {
        self.text().read(value).map(PathBuf::from)
    }

    fn expected(&self) -> String {
        "a path".to_owned()
    }

    fn example(&self) -> String {
        self.text().example()
    }

    fn schema(&self) -> Json {
        self.text().schema()
    }

    fn to_json(&self, value: &PathBuf) -> Json {
        json!(value.to_string_lossy())
    }
}

/// The path of a kernel, or `builtin:` and the name of a built-in kernel.
pub(crate) struct KernelPath;

impl KernelPath {
    const BUILTIN: &str = "builtin:";
    const PROBE: &str = "builtin:probe";
    const FILE: FilePath = FilePath { example: "vmlinuz" };
}

impl Form for KernelPath {
    type Value = Kernel;

    fn read(&self, value: &Value) -> Result<Kernel, ValueError> {
        match value {
            Value::Text(text) if text == Self::PROBE => Ok(Kernel::BuiltinProbe),
            Value::Text(text) if text.starts_with(Self::BUILTIN) => ValueError::invalid(
                "there is no built-in kernel of that name",
                format!("write `\"{}\"`, or `\"./{text}\"` for a file of that name", Self::PROBE),
            ),
            other => Self::FILE.read(other).map(Kernel::File),
        }
    }

    fn expected(&self) -> String {
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

    fn to_json(&self, value: &Kernel) -> Json {
        match value {
            Kernel::BuiltinProbe => json!(Self::PROBE),
            Kernel::File(path) => Self::FILE.to_json(path),
        }
    }
}
