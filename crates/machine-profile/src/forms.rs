//! The forms of values. Each defines in one place how a value is read and its JSON Schema.

mod quantities;
mod texts;

use serde_json::{Value as Json, json};

pub use self::quantities::{Period, Size};
pub(crate) use self::texts::KernelPath;
pub use self::texts::{FilePath, Text};
use crate::suggest::closest;
use crate::tree::Value;

/// A form: which TOML values it takes, and what they mean.
pub trait Form: Sync {
    /// The value after reading.
    type Value: Clone + Sync + 'static;

    /// Reads a value.
    ///
    /// # Errors
    /// Returns an error if the value is not of this form.
    fn read(&self, value: &Value) -> Result<Self::Value, Flaw>;
    /// What is expected, as a noun phrase with its article.
    fn wanted(&self) -> String;
    /// An example value in TOML.
    fn example(&self) -> String;
    /// The JSON Schema, without description and default.
    fn schema(&self) -> Json;
    /// `value` in JSON, for the default in the schema.
    fn write(&self, value: &Self::Value) -> Json;
}

/// Why a value is refused.
pub enum Flaw {
    /// It is of another TOML type.
    Type,
    /// Its type is right and its content is wrong.
    Content {
        /// What is wrong.
        why: String,
        /// What to write instead.
        help: String,
    },
}

impl Flaw {
    fn content<T>(why: impl Into<String>, help: impl Into<String>) -> Result<T, Flaw> {
        Err(Flaw::Content { why: why.into(), help: help.into() })
    }
}

/// One of a few words.
pub struct Words<T: 'static>(pub &'static [Word<T>]);

/// A word of [`Words`].
pub struct Word<T> {
    /// The word.
    pub word: &'static str,
    /// Its meaning.
    pub value: T,
    /// A phrase about it.
    pub doc: &'static str,
}

impl<T> Words<T> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|word| word.word)
    }
}

impl<T: Copy + PartialEq + Sync + 'static> Form for Words<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Result<T, Flaw> {
        let Value::Text(text) = value else { return Err(Flaw::Type) };
        match self.0.iter().find(|word| word.word == text) {
            Some(word) => Ok(word.value),
            None => Err(words_flaw(text, self.names(), &self.wanted())),
        }
    }

    fn wanted(&self) -> String {
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

    fn write(&self, value: &T) -> Json {
        self.0.iter().find(|word| word.value == *value).map_or(Json::Null, |word| json!(word.word))
    }
}

/// Why `text` is none of these words.
pub(crate) fn words_flaw(text: &str, words: impl Iterator<Item = &'static str>, wanted: &str) -> Flaw {
    match closest(text, words) {
        Some(word) => {
            Flaw::Content { why: format!("{wanted} is wanted"), help: format!("did you mean `\"{word}\"`?") }
        }
        None => Flaw::Content { why: "it is not one of its words".into(), help: format!("write {wanted}") },
    }
}

/// An integer.
pub struct Integer {
    /// The least.
    pub min: u32,
    /// The greatest.
    pub max: u32,
}

impl Form for Integer {
    type Value = u32;

    fn read(&self, value: &Value) -> Result<u32, Flaw> {
        let Value::Integer(number) = value else { return Err(Flaw::Type) };
        match u32::try_from(*number) {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => {
                let nearest = (*number).clamp(self.min.into(), self.max.into());
                let end = if nearest == i128::from(self.min) { "least" } else { "most" };
                Flaw::content(format!("{} is wanted", self.wanted()), format!("the {end} is `{nearest}`"))
            }
        }
    }

    fn wanted(&self) -> String {
        format!("an integer from {} to {}", self.min, self.max)
    }

    fn example(&self) -> String {
        self.min.to_string()
    }

    fn schema(&self) -> Json {
        json!({ "type": "integer", "minimum": self.min, "maximum": self.max })
    }

    fn write(&self, value: &u32) -> Json {
        json!(value)
    }
}

/// A boolean.
pub struct Flag;

impl Form for Flag {
    type Value = bool;

    fn read(&self, value: &Value) -> Result<bool, Flaw> {
        let Value::Boolean(flag) = value else { return Err(Flaw::Type) };
        Ok(*flag)
    }

    fn wanted(&self) -> String {
        "true or false".to_owned()
    }

    fn example(&self) -> String {
        "true".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "boolean" })
    }

    fn write(&self, value: &bool) -> Json {
        json!(value)
    }
}

/// `a, b or c`.
pub fn listed(items: impl IntoIterator<Item = String>, joint: &str) -> String {
    let items: Vec<String> = items.into_iter().collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {joint} {last}", first.join(", ")),
    }
}
