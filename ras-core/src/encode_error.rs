//! Errors of the encoder.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::description::Value;

/// The largest result, in bytes. A description of a few bytes may describe many.
pub(crate) const MAX_LEN: usize = 16 << 20;

/// A description that cannot be encoded: a key, and what is wrong with its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", located(.path))]
pub struct EncodeError {
    /// The key with those above it, for example `entry[0].memory_error.bank`. Empty: the whole.
    pub path: String,
    /// What is wrong.
    pub problem: EncodeProblem,
}

fn located(path: &str) -> String {
    if path.is_empty() { String::new() } else { alloc::format!("`{path}` ") }
}

/// What is wrong with the value of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeProblem {
    /// It is not one of the values of its key.
    #[error("is {found}, expected {expected}")]
    Unexpected {
        /// The value.
        found: String,
        /// Those that it may have.
        expected: Cow<'static, str>,
    },
    /// No key of its object has this name.
    #[error("is not a key of this object: correct or remove it; the keys are {}", .known.join(", "))]
    UnknownKey {
        /// Those that the object has.
        known: Vec<&'static str>,
    },
    /// The key is in its object twice.
    #[error("is there twice: remove one of them")]
    Duplicate,
    /// A key that the object needs.
    #[error("is missing: add it, as {expected}")]
    Missing {
        /// Its values.
        expected: Cow<'static, str>,
    },
    /// Other keys give the same bits another value.
    #[error(
        "is {number:#x}, but other keys of the same object make it {other:#x}: correct or remove one of them"
    )]
    Contradiction {
        /// The value.
        number: u64,
        /// The value of the other keys.
        other: u64,
    },
    /// Other keys give the same bytes another value.
    #[error("contradicts other keys of the same object, which have the same bytes: remove one of them")]
    ContradictingBytes,
    /// There are more than their count can hold.
    #[error("has {number} items or bytes, and {max} are possible")]
    TooMany {
        /// Their number.
        number: u64,
        /// The largest number.
        max: u64,
    },
    /// The value that chooses the form of this object permits none.
    #[error("has no form that the other values of this object choose: remove it, and give the bytes instead")]
    NoSuchForm,
    /// More than one section, where one is possible.
    #[error("is a second section beside `{other}`: give each section an object of its own")]
    SecondSection {
        /// The key of the first.
        other: &'static str,
    },
    /// There is no block, record or section.
    #[error(
        "has no status block, CPER record or section: give it an `entry`, a `section`, or the key of a section, for example `memory_error`"
    )]
    Nothing,
    /// A part of a file lies behind the start of the next.
    #[error("is {offset:#x}, but what is before it ends at {end:#x}: correct it, or remove it")]
    Overlap {
        /// The offset.
        offset: u64,
        /// The end of the part before.
        end: u64,
    },
    /// The result would be too long.
    #[error("makes it longer than {max} bytes, the maximum")]
    TooLong {
        /// The maximum.
        max: usize,
    },
    /// The bytes of a part are not all there.
    #[error("has {found} of its {len} bytes: a description of an undecoded part has only the first of them")]
    Incomplete {
        /// Those that are there.
        found: usize,
        /// Their number.
        len: u64,
    },
}

impl EncodeProblem {
    /// A value that is not `expected`.
    pub(crate) fn expected(value: &Value, expected: impl Into<Cow<'static, str>>) -> Self {
        const MAX_CHARS: usize = 60;
        let found = match value {
            Value::Text(text) => alloc::format!("`{text}`"),
            Value::Group(_) => "an object".to_string(),
            Value::List(_) => "a list of objects".to_string(),
            Value::Texts(texts) => alloc::format!("[{}]", texts.join(", ")),
            Value::Flags(flags) => alloc::format!("[{}]", flags.join(", ")),
            other => other.to_string(),
        };
        let found = match found.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => alloc::format!("{}...", found.get(..end).unwrap_or_default()),
            None => found,
        };
        EncodeProblem::Unexpected { found, expected: expected.into() }
    }
}
