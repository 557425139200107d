//! The forms of values. A form defines in one place how a value is read and its JSON Schema.

mod paths;
mod quantities;
mod rates;
mod responses;
mod texts;

use serde_json::{Value as Json, json};

pub use self::paths::{NamedPath, NamedPaths};
pub use self::quantities::{Period, Size};
pub use self::rates::{RateLimits, Rates};
pub(crate) use self::responses::ResponseName;
pub(crate) use self::texts::KernelPath;
pub use self::texts::{FilePath, Text};
use crate::suggest::closest;
use crate::tree::Value;

/// A form: which TOML values it accepts, and what they mean.
pub trait Form: Sync {
    /// The value after reading.
    type Value: Clone + Sync + 'static;

    /// Reads a value.
    ///
    /// # Errors
    /// Returns an error if the value is not of this form.
    fn read(&self, value: &Value) -> Result<Self::Value, ValueError>;
    /// The expected value, as a noun phrase with its article.
    fn expected(&self) -> String;
    /// An example value in TOML.
    fn example(&self) -> String;
    /// The limits and units that [`expected`](Self::expected) does not state, as a phrase: "from 1ms to 1h".
    fn limits(&self) -> Option<String> {
        None
    }
    /// The JSON Schema, without description and default.
    fn schema(&self) -> Json;
    /// `value` as JSON, for the default in the schema.
    fn to_json(&self, value: &Self::Value) -> Json;
}

/// Why a value is not of a [`Form`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// The value has another TOML type.
    WrongType,
    /// The type is right and the content is wrong.
    Invalid {
        /// The reason, as a clause: "it is empty".
        reason: String,
        /// What to write instead.
        help: String,
    },
}

impl ValueError {
    fn invalid<T>(reason: impl Into<String>, help: impl Into<String>) -> Result<T, ValueError> {
        Err(ValueError::Invalid { reason: reason.into(), help: help.into() })
    }
}

/// One of a fixed set of words.
pub struct Words<T: 'static>(pub &'static [Word<T>]);

/// A word of [`Words`].
pub struct Word<T> {
    /// The word.
    pub word: &'static str,
    /// Its meaning.
    pub value: T,
    /// A phrase that describes it, for the schema.
    pub doc: &'static str,
}

impl<T> Words<T> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|word| word.word)
    }
}

impl<T: Copy + PartialEq + Sync + 'static> Form for Words<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Result<T, ValueError> {
        let Value::Text(text) = value else { return Err(ValueError::WrongType) };
        match self.0.iter().find(|word| word.word == text) {
            Some(word) => Ok(word.value),
            None => Err(unknown_word(text, self.names(), &self.expected())),
        }
    }

    fn expected(&self) -> String {
        listed(self.names().map(|name| format!("\"{name}\"")), "or")
    }

    fn example(&self) -> String {
        self.0.first().map(|word| format!("\"{}\"", word.word)).unwrap_or_default()
    }

    fn schema(&self) -> Json {
        let words: Vec<Json> =
            self.0.iter().map(|word| json!({ "const": word.word, "description": word.doc })).collect();
        json!({ "type": "string", "oneOf": words })
    }

    fn to_json(&self, value: &T) -> Json {
        self.0.iter().find(|word| word.value == *value).map_or(Json::Null, |word| json!(word.word))
    }
}

/// The error of a text that is not one of `words`. `expected` lists them.
pub(crate) fn unknown_word(
    text: &str,
    words: impl Iterator<Item = &'static str>,
    expected: &str,
) -> ValueError {
    match closest(text, words) {
        Some(word) => ValueError::Invalid {
            reason: format!("expected {expected}"),
            help: format!("did you mean `\"{word}\"`?"),
        },
        None => ValueError::Invalid {
            reason: "it is not an allowed value".into(),
            help: format!("write {expected}"),
        },
    }
}

/// An integer.
pub struct Integer {
    /// The minimum.
    pub min: u32,
    /// The maximum.
    pub max: u32,
    /// An example.
    pub example: u32,
}

impl Form for Integer {
    type Value = u32;

    fn read(&self, value: &Value) -> Result<u32, ValueError> {
        let Value::Integer(number) = value else { return Err(ValueError::WrongType) };
        match u32::try_from(*number) {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => {
                let nearest = (*number).clamp(self.min.into(), self.max.into());
                let end = if nearest == i128::from(self.min) { "minimum" } else { "maximum" };
                ValueError::invalid(
                    format!("expected {}", self.expected()),
                    format!("the {end} is `{nearest}`"),
                )
            }
        }
    }

    fn expected(&self) -> String {
        format!("an integer from {} to {}", self.min, self.max)
    }

    fn example(&self) -> String {
        self.example.to_string()
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.min, "maximum": self.max })
    }

    fn to_json(&self, value: &u32) -> Json {
        json!(value)
    }
}

/// A boolean.
pub struct Flag;

impl Form for Flag {
    type Value = bool;

    fn read(&self, value: &Value) -> Result<bool, ValueError> {
        let Value::Boolean(flag) = value else { return Err(ValueError::WrongType) };
        Ok(*flag)
    }

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn example(&self) -> String {
        "true".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean" })
    }

    fn to_json(&self, value: &bool) -> Json {
        json!(value)
    }
}

/// Joins items as `a, b or c`.
pub fn listed(items: impl IntoIterator<Item = String>, conjunction: &str) -> String {
    let items: Vec<String> = items.into_iter().collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}
