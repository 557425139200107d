//! Descriptions of blocks and records, for users and for programs.

mod block;
mod memory;
mod parts;
mod processors;
mod record;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::timestamp::{TimeEncoding, Timestamp};

/// A decoded block or record as names and values, in memory order. Fields that are not valid are omitted.
///
/// Its `Display` form has one line for each value, indented by depth. Its serialised form (feature `serde`) is an object, with addresses,
/// masks and bytes as hexadecimal strings.
///
/// ```
/// use ras_core::{Description, Kind, MemoryBlocks, MemoryReport, Span, StatusBlock};
///
/// let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_543_622_400, 17);
/// let mut bytes = [0; 0x1000];
/// MemoryBlocks::new(Span::around(0x4020_0000, 12), report).write_next(&mut bytes)?;
///
/// let text = Description::of_block(&StatusBlock::read(&bytes)?).to_string();
/// assert!(text.contains("memory #17") && text.contains("0x40200000"), "{text}");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    fields: Vec<(&'static str, Value)>,
}

/// A value of a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A name, a time or another text.
    Text(String),
    /// A count or a number.
    Number(u64),
    /// An address, a mask or bits.
    Hex(u64),
    /// The flags that are set: the names of those that are defined, the others as hexadecimal numbers.
    Flags(Vec<Cow<'static, str>>),
    /// Several texts.
    Texts(Vec<String>),
    /// Bytes of an unknown format.
    Bytes(Vec<u8>),
    /// A nested description.
    Group(Description),
    /// Several nested descriptions.
    List(Vec<Description>),
}

impl Description {
    /// Its names and values.
    #[must_use]
    pub fn fields(&self) -> &[(&'static str, Value)] {
        &self.fields
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.fields.push((name, value));
        self
    }

    fn text(self, name: &'static str, text: impl ToString) -> Self {
        self.with(name, Value::Text(text.to_string()))
    }

    fn number(self, name: &'static str, number: impl Into<u64>) -> Self {
        self.with(name, Value::Number(number.into()))
    }

    fn hex(self, name: &'static str, number: impl Into<u64>) -> Self {
        self.with(name, Value::Hex(number.into()))
    }

    /// The text, or if there is none, the number.
    fn named(self, name: &'static str, text: Option<impl ToString>, number: impl Into<u64>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self.number(name, number),
        }
    }

    /// Flags, if any is set: the names of the lowest bits, the others as numbers.
    fn flags(self, name: &'static str, flags: impl Into<u64>, names: &[&'static str]) -> Self {
        self.flags_from(0, name, flags, names)
    }

    /// Flags whose named bits start at `first`.
    fn flags_from(
        self,
        first: usize,
        name: &'static str,
        flags: impl Into<u64>,
        names: &[&'static str],
    ) -> Self {
        let flags = flags.into();
        let flags: Vec<_> = (0..64_usize)
            .filter(|bit| flags >> bit & 1 != 0)
            .map(|bit| match bit.checked_sub(first).and_then(|index| names.get(index)) {
                Some(name) => Cow::Borrowed(*name),
                None => Cow::Owned(format!("{:#x}", 1_u64 << bit)),
            })
            .collect();
        if flags.is_empty() { self } else { self.with(name, Value::Flags(flags)) }
    }

    /// A reserved value, which should be zero, if it is not.
    fn reserved(self, name: &'static str, value: impl Into<u64>) -> Self {
        let value = value.into();
        self.when(value != 0, |described| described.hex(name, value))
    }

    /// Reserved bytes, which should be zero, if one is not.
    fn reserved_bytes(self, name: &'static str, bytes: &[u8]) -> Self {
        self.when(bytes.iter().any(|byte| *byte != 0), |described| described.bytes(name, bytes))
    }

    /// Problems, if there are any.
    fn warnings(self, problems: impl IntoIterator<Item = impl ToString>) -> Self {
        let texts: Vec<_> = problems.into_iter().map(|problem| problem.to_string()).collect();
        if texts.is_empty() { self } else { self.with("warning", Value::Texts(texts)) }
    }

    /// A timestamp, and how precise it is.
    fn time(self, time: &Timestamp, expected: TimeEncoding) -> Self {
        let date = time.date_and_time(expected);
        let is_binary = matches!(date, Some((_, TimeEncoding::Binary)));
        let text = date.map_or_else(|| time.to_string(), |(text, _)| text);
        self.text("time", text)
            .when(is_binary, |described| described.text("time_encoding", "binary"))
            .text("time_precision", if time.is_precise() { "precise" } else { "not precise" })
            .reserved("time_reserved_flags", time.reserved_flags())
    }

    /// Bytes, if there are any.
    fn bytes(self, name: &'static str, bytes: &[u8]) -> Self {
        if bytes.is_empty() { self } else { self.with(name, Value::Bytes(bytes.to_vec())) }
    }

    /// Nested descriptions, if there are any.
    fn list(self, name: &'static str, groups: impl Iterator<Item = Description>) -> Self {
        let groups: Vec<_> = groups.collect();
        if groups.is_empty() { self } else { self.with(name, Value::List(groups)) }
    }

    fn group(self, name: &'static str, group: Description) -> Self {
        self.with(name, Value::Group(group))
    }

    /// With what `describe` adds, if `condition` holds.
    fn when(self, condition: bool, describe: impl FnOnce(Self) -> Self) -> Self {
        if condition { describe(self) } else { self }
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        for (name, value) in &self.fields {
            let name = name.replace('_', " ");
            let margin = 2 * depth;
            match value {
                Value::Group(group) => {
                    writeln!(f, "{:margin$}{name}:", "")?;
                    group.print(f, depth + 1)?;
                }
                Value::List(groups) => {
                    for (index, group) in groups.iter().enumerate() {
                        writeln!(f, "{:margin$}{name} {}:", "", index + 1)?;
                        group.print(f, depth + 1)?;
                    }
                }
                Value::Bytes(bytes) => {
                    writeln!(f, "{:margin$}{name}:", "")?;
                    for line in bytes.chunks(16) {
                        write!(f, "{:margin$} ", "")?;
                        line.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
                        writeln!(f)?;
                    }
                }
                Value::Texts(texts) => {
                    for text in texts {
                        writeln!(f, "{:margin$}{name:22} {}", "", Printable(text))?;
                    }
                }
                value => writeln!(f, "{:margin$}{name:22} {value}", "")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, 0)
    }
}

/// On one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => Printable(text).fmt(f),
            Value::Texts(texts) => Printable(&texts.join("; ")).fmt(f),
            Value::Number(number) => write!(f, "{number}"),
            Value::Hex(number) => write!(f, "{number:#x}"),
            Value::Flags(flags) => f.write_str(&flags.join(", ")),
            Value::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Value::Group(_) | Value::List(_) => f.write_str("..."),
        }
    }
}

/// A text without its control characters: those of a file must not reach a terminal.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().filter(|character| !character.is_control()).try_for_each(|c| f.write_char(c))
    }
}

#[cfg(feature = "serde")]
mod serialised {
    use alloc::string::ToString;

    use serde::{Serialize, Serializer};

    use super::{Description, Value};

    impl Serialize for Description {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.fields.iter().map(|(name, value)| (name, value)))
        }
    }

    impl Serialize for Value {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Value::Text(text) => serializer.serialize_str(text),
                Value::Number(number) => serializer.serialize_u64(*number),
                Value::Hex(_) | Value::Bytes(_) => serializer.serialize_str(&self.to_string()),
                Value::Flags(flags) => flags.serialize(serializer),
                Value::Texts(texts) => texts.serialize(serializer),
                Value::Group(group) => group.serialize(serializer),
                Value::List(groups) => groups.serialize(serializer),
            }
        }
    }
}
