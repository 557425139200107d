//! The forms that a value can have. Each says side by side how it is read and what the JSON Schema says of it.

mod quantities;
mod responses;
mod texts;

use serde_json::{Value as Json, json};

pub(crate) use self::quantities::{Period, Size};
pub(crate) use self::responses::ResponseName;
pub(crate) use self::texts::{FilePath, KernelPath, Text};
use crate::suggest::closest;
use crate::tree::Value;

/// A form: which TOML values it takes, and what they mean.
pub(crate) trait Form: Sync {
    /// What is left once it is read.
    type Value: Clone + Sync + 'static;

    /// The meaning of a value.
    fn read(&self, value: &Value) -> Result<Self::Value, Flaw>;
    /// Noun phrase with its article.
    fn wanted(&self) -> String;
    /// A value, as TOML.
    fn example(&self) -> String;
    /// The schema, without description and default.
    fn schema(&self) -> Json;
    /// How JSON has `value`: that is the schema's default.
    fn write(&self, value: &Self::Value) -> Json;
}

/// Why a value is refused.
pub(crate) enum Flaw {
    /// It is of another TOML type.
    Type,
    /// It is of the right type, but what it says is wrong; `help` is the way out.
    Content { why: String, help: String },
}

impl Flaw {
    fn content<T>(why: impl Into<String>, help: impl Into<String>) -> Result<T, Flaw> {
        Err(Flaw::Content { why: why.into(), help: help.into() })
    }

    /// A text that is none of the words of a form, which `wanted` lists.
    fn unknown_word(text: &str, words: impl Iterator<Item = &'static str>, wanted: &str) -> Flaw {
        let (why, help) = match closest(text, words) {
            Some(name) => (format!("{wanted} is wanted"), format!("did you mean `\"{name}\"`?")),
            None => ("it is none of its words".to_owned(), format!("write {wanted}")),
        };
        Flaw::Content { why, help }
    }
}

/// One of a few words.
pub(crate) struct Words<T: 'static>(pub(crate) &'static [Word<T>]);

/// A word, its meaning and one line about it.
pub(crate) struct Word<T> {
    pub(crate) word: &'static str,
    pub(crate) value: T,
    pub(crate) doc: &'static str,
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
            None => Err(Flaw::unknown_word(text, self.names(), &self.wanted())),
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

/// A whole number.
pub(crate) struct Integer {
    pub(crate) min: u32,
    pub(crate) max: u32,
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

/// True or false.
pub(crate) struct Flag;

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
pub(crate) fn listed(items: impl IntoIterator<Item = String>, joint: &str) -> String {
    let items: Vec<String> = items.into_iter().collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {joint} {last}", first.join(", ")),
    }
}
