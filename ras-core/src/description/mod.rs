//! Descriptions of blocks and records, for users and for programs.

mod block;
mod parts;
mod record;
#[cfg(feature = "serde")]
mod serialised;

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::layout::flag_names;
use crate::timestamp::{TimeEncoding, Timestamp};

/// A decoded block or record as names and values, in memory order. Fields that are not valid are omitted.
///
/// Its `Display` form has one line for each value, indented by depth. Its serialised form (feature `serde`) is an object, with addresses,
/// masks and bytes as hexadecimal strings; it is deserialised too, and [encoded](Description::encode).
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
    fields: Vec<(Cow<'static, str>, Value)>,
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
    pub(crate) const TIME: &str = "time";
    pub(crate) const TIME_ENCODING: &str = "time_encoding";
    pub(crate) const TIME_PRECISION: &str = "time_precision";
    pub(crate) const TIME_RESERVED_FLAGS: &str = "time_reserved_flags";
    /// Offset of a part in its file.
    pub(crate) const OFFSET: &str = "offset";
    /// Number of zeros of a file that belong to none of its parts.
    pub(crate) const ZERO_BYTES: &str = "zero_bytes";
    /// The sections of a record; the bytes of one whose type is unknown.
    pub(crate) const SECTION: &str = "section";
    pub(crate) const SECTION_TYPE: &str = "section_type";
    pub(crate) const SECTION_NAME: &str = "section_name";
    /// Offset of a section in its record, if it does not follow the one before.
    pub(crate) const SECTION_OFFSET: &str = "section_offset";
    pub(crate) const BYTES_BEFORE: &str = "bytes_before";
    pub(crate) const BYTES_BEHIND: &str = "bytes_behind";
    pub(crate) const ZERO_BYTES_BEHIND: &str = "zero_bytes_behind";
    /// Why something is not decoded.
    pub(crate) const BROKEN: &str = "broken";
    pub(crate) const WARNING: &str = "warning";
    pub(crate) const VARIABLE_ATTRIBUTES: &str = "variable_attributes";

    /// Its names and values.
    #[must_use]
    pub fn fields(&self) -> &[(Cow<'static, str>, Value)] {
        &self.fields
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// With a further name and value.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: Value) -> Self {
        self.fields.push((name.into(), value));
        self
    }

    pub(crate) fn add(&mut self, name: &'static str, value: Value) {
        self.fields.push((Cow::Borrowed(name), value));
    }

    /// Adds flags, if any is set.
    fn add_flags(&mut self, name: &'static str, flags: u64, names: &'static [&'static str]) {
        if flags != 0 {
            self.add(name, Value::Flags(flag_names(flags, names)));
        }
    }

    /// Adds problems, if there are any.
    fn add_warnings(&mut self, problems: impl IntoIterator<Item = impl ToString>) {
        let texts: Vec<_> = problems.into_iter().map(|problem| problem.to_string()).collect();
        if !texts.is_empty() {
            self.add(Self::WARNING, Value::Texts(texts));
        }
    }

    /// Adds a timestamp, and how precise it is.
    pub(crate) fn add_time(&mut self, time: &Timestamp, expected: TimeEncoding) {
        let date = time.date_and_time(expected);
        let is_binary = matches!(date, Some((_, TimeEncoding::Binary)));
        self.add(Self::TIME, Value::Text(date.map_or_else(|| time.to_string(), |(text, _)| text)));
        if is_binary {
            self.add(Self::TIME_ENCODING, Value::Text("binary".to_string()));
        }
        let precision = if time.is_precise() { "precise" } else { "not precise" };
        self.add(Self::TIME_PRECISION, Value::Text(precision.to_string()));
        if time.reserved_flags() != 0 {
            self.add(Self::TIME_RESERVED_FLAGS, Value::Hex(time.reserved_flags().into()));
        }
    }

    /// Adds bytes that should be zero, or not be there: of zeros, their number.
    fn add_bytes(&mut self, name: &'static str, name_of_zeros: &'static str, bytes: &[u8]) {
        if bytes.iter().any(|byte| *byte != 0) {
            self.add(name, Value::Bytes(bytes.to_vec()));
        } else if !bytes.is_empty() {
            self.add(name_of_zeros, Value::Number(bytes.len() as u64));
        }
    }

    /// Adds nested descriptions, if there are any.
    fn add_list(&mut self, name: &'static str, groups: impl Iterator<Item = Description>) {
        let groups: Vec<_> = groups.collect();
        if !groups.is_empty() {
            self.add(name, Value::List(groups));
        }
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
            Value::Flags(flags) if flags.is_empty() => f.write_str("none"),
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
