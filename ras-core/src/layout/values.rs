//! Values of a description that was written by hand, or read from JSON: numbers and bytes are text there.

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Kind;
use crate::description::Value;
use crate::encode_error::EncodeProblem;
use crate::guid::Guid;
use crate::severity::Severity;

/// The names of severities, by their numbers.
pub(crate) const SEVERITIES: &[&str] = &[
    Severity::Recoverable.name(),
    Severity::Fatal.name(),
    Severity::Corrected.name(),
    Severity::Informational.name(),
];

/// The names of the flags that are set; those without a name are hexadecimal numbers.
pub(crate) fn flag_names(flags: u64, names: &'static [&'static str]) -> Vec<Cow<'static, str>> {
    let name = |bit: usize| names.get(bit).filter(|name| !name.is_empty());
    (0..64)
        .filter(|bit| flags >> bit & 1 != 0)
        .map(|bit| {
            name(bit).map_or_else(|| format!("{:#x}", 1_u64 << bit).into(), |name| Cow::Borrowed(*name))
        })
        .collect()
}

/// A number, decimal or hexadecimal, up to `max`.
pub(crate) fn number(value: &Value, max: u64) -> Result<u64, EncodeProblem> {
    let number = match value {
        Value::Number(number) | Value::Hex(number) => Some(*number),
        Value::Text(text) => number_of_text(text),
        _ => None,
    };
    number.filter(|number| *number <= max).ok_or_else(|| {
        EncodeProblem::expected(value, format!("a number from 0 to {max:#x}, decimal or as text with `0x`"))
    })
}

fn number_of_text(text: &str) -> Option<u64> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    // `from_str_radix` accepts a sign.
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number)
}

/// A name of those, or a number.
pub(super) fn named(value: &Value, names: &[&str], max: u64) -> Result<u64, EncodeProblem> {
    let position = match value {
        Value::Text(text) => names.iter().position(|name| !name.is_empty() && name == text),
        _ => None,
    };
    position.map(|number| number as u64).map_or_else(|| number(value, max), Ok).map_err(|_| {
        EncodeProblem::expected(value, format!("{}, or a number from 0 to {max:#x}", quoted(names)))
    })
}

/// A list of flags: names of those, or hexadecimal numbers.
pub(crate) fn flag_set(value: &Value, names: &[&str], max: u64) -> Result<u64, EncodeProblem> {
    let flag = |text: &str| {
        let position = names.iter().position(|name| !name.is_empty() && *name == text);
        position.and_then(|bit| 1_u64.checked_shl(bit as u32)).or_else(|| number_of_text(text))
    };
    let expected = || {
        EncodeProblem::expected(
            value,
            format!("a list of {}, or of numbers from 0 to {max:#x}", quoted(names)),
        )
    };
    let bits: Option<Vec<u64>> = match value {
        Value::Flags(flags) => flags.iter().map(|text| flag(text)).collect(),
        Value::Texts(texts) => texts.iter().map(|text| flag(text)).collect(),
        Value::List(groups) if groups.is_empty() => Some(Vec::new()),
        _ => None,
    };
    let bits = bits.map(|bits| bits.iter().fold(0, |all, bit| all | bit));
    bits.filter(|bits| *bits <= max).ok_or_else(expected)
}

fn quoted(names: &[&str]) -> String {
    let names = names.iter().filter(|name| !name.is_empty());
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

pub(super) fn guid(value: &Value, names: &[(Guid, &str)]) -> Result<Guid, EncodeProblem> {
    let Value::Text(text) = value else { return Err(no_guid(value, names)) };
    let named = names.iter().find(|(_, name)| name == text).map(|(guid, _)| *guid);
    named.or_else(|| Guid::parse(text)).ok_or_else(|| no_guid(value, names))
}

fn no_guid(value: &Value, names: &[(Guid, &str)]) -> EncodeProblem {
    const GUID: &str = "a GUID as text, for example `a5bc1114-6f64-4ede-b863-3e83ed7c83b1`";
    let names: Vec<_> = names.iter().map(|(_, name)| *name).collect();
    let expected = if names.is_empty() { GUID.to_owned() } else { format!("{}, or {GUID}", quoted(&names)) };
    EncodeProblem::expected(value, expected)
}

/// Bytes: text of two hexadecimal digits for each.
pub(crate) fn byte_string(value: &Value) -> Result<Vec<u8>, EncodeProblem> {
    let bytes = match value {
        Value::Bytes(bytes) => Some(bytes.clone()),
        Value::Text(text) => bytes_of_text(text),
        _ => None,
    };
    bytes.ok_or_else(|| EncodeProblem::expected(value, "text of two hexadecimal digits for each byte"))
}

fn bytes_of_text(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// That many bytes.
pub(super) fn bytes(value: &Value, len: usize) -> Result<Vec<u8>, EncodeProblem> {
    let bytes = byte_string(value).ok().filter(|bytes| bytes.len() == len);
    bytes.ok_or_else(|| EncodeProblem::expected(value, format!("text of {} hexadecimal digits", 2 * len)))
}

/// Text, padded to that many bytes; or those bytes: as text they are longer than the field.
pub(super) fn text(value: &Value, len: usize) -> Result<Vec<u8>, EncodeProblem> {
    let bytes = match value {
        Value::Text(text) if text.len() <= len && !text.contains('\0') => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(len, 0);
            Some(bytes)
        }
        value => bytes(value, len).ok(),
    };
    bytes.ok_or_else(|| {
        EncodeProblem::expected(
            value,
            format!("text of {len} bytes at most, or {} hexadecimal digits", 2 * len),
        )
    })
}

impl Kind {
    pub(crate) const YES_OR_NO: Kind = Kind::Named(&["no", "yes"]);

    /// The kind of a severity.
    pub(crate) const SEVERITY: Kind = Kind::Named(SEVERITIES);
}
