//! From bytes to a description.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use zerocopy::FromBytes;

use super::{Bits, ByteString, Field, Flags, Kind, Layout, Part, Selector};
use crate::decode_error::{DecodeError, Expected};
use crate::description::{Description, Value};
use crate::guid::Guid;
use crate::timestamp::Timestamp;

/// The key for the length of a structure in its shortest form.
pub(super) const LENGTH: &str = "length";
/// The key for validation bits without a meaning.
pub(super) const RESERVED_VALIDATION_BITS: &str = "reserved_validation_bits";
/// The key for validation bits whose fields are not there.
pub(super) const MISSING_VALIDATION_BITS: &str = "validation_bits_of_missing_fields";

/// A structure that was decoded.
pub(crate) struct Described {
    pub(crate) description: Description,
    /// Number of its bytes.
    pub(crate) len: usize,
}

/// Describes the structure at the start of `bytes`. Offsets in errors are relative to `offset`.
///
/// # Errors
/// Returns an error if there are too few bytes for its members, counts and lengths.
pub(crate) fn describe(layout: &Layout, bytes: &[u8], offset: usize) -> Result<Described, DecodeError> {
    let too_short = |at: usize, what, needed: usize| DecodeError {
        offset: offset + at,
        what,
        found: bytes.len().saturating_sub(at) as u64,
        expected: Expected::AtLeast(needed as u64),
    };
    if bytes.len() < layout.min_len {
        return Err(too_short(0, layout.what, layout.min_len));
    }
    let total = layout.total.and_then(|total| Some((total, total.get(bytes)?)));
    let wrong_total = |expected| {
        let (at, found) = total.map_or((0, 0), |(total, len)| (total.offset(), len));
        DecodeError { offset: offset + at, what: layout.what, found, expected }
    };
    if total.is_some_and(|(_, len)| len > bytes.len() as u64) {
        return Err(wrong_total(Expected::AtMost(bytes.len() as u64)));
    }
    let end = total.map_or(bytes.len(), |(_, len)| layout.len.max(len as usize));
    let bytes = bytes.get(..end).unwrap_or(bytes);

    let mut structure = Structure {
        bytes,
        offset,
        cursor: if bytes.len() < layout.len { layout.min_len } else { layout.len },
        validation: layout.validation().and_then(|bits| bits.get(bytes)).unwrap_or(0),
        implied: layout.other_validation_bits(),
        description: Description::default(),
    };
    structure.fields(layout, 0, structure.cursor);
    if structure.cursor < layout.len {
        structure.description.add(LENGTH, Value::Number(structure.cursor as u64));
    }
    layout.parts.iter().try_for_each(|part| structure.part(part))?;
    if total.is_some_and(|(_, len)| len != structure.cursor as u64) {
        return Err(wrong_total(Expected::Exactly(structure.cursor as u64)));
    }
    let Structure { validation, implied, mut description, cursor, .. } = structure;
    let known = layout.known_validation_bits();
    for (name, bits) in [
        (RESERVED_VALIDATION_BITS, validation & !known),
        (MISSING_VALIDATION_BITS, validation & known & !implied),
    ] {
        if bits != 0 {
            description.add(name, Value::Hex(bits));
        }
    }
    Ok(Described { description, len: cursor })
}

/// A structure that is being described.
struct Structure<'a> {
    bytes: &'a [u8],
    /// Offset of `bytes`, for errors.
    offset: usize,
    /// Offset of what has not been described yet.
    cursor: usize,
    validation: u64,
    /// The validation bits of what has been described.
    implied: u64,
    description: Description,
}

impl<'a> Structure<'a> {
    /// The members at `base`, as far as they end before `end`.
    fn fields(&mut self, layout: &Layout, base: usize, end: usize) {
        let bytes = self.bytes.get(base..end).unwrap_or_default();
        for field in layout.fields() {
            let bit = field.valid.map_or(0, |bit| 1 << bit);
            if self.validation & bit == bit && show(&field, bytes, self.validation, &mut self.description) {
                self.implied |= bit;
            }
        }
    }

    fn part(&mut self, part: &Part) -> Result<(), DecodeError> {
        match part {
            Part::List { name, count, valid, item } => self.list(name, *count, valid, item),
            Part::Bytes(bytes) => self.byte_string(bytes),
            Part::If { number, permits, layout } => {
                if number.get(self.bytes).is_some_and(permits) {
                    let base = self.cursor;
                    self.take(layout.len, layout.what)?;
                    self.fields(layout, base, self.cursor);
                }
                Ok(())
            }
            Part::Group { name, at, layout } => {
                if at.get(self.bytes) != Some(0) {
                    self.at(layout.what, *at)?;
                    let description = self.structure(layout)?;
                    self.description.add(name, Value::Group(description));
                }
                Ok(())
            }
            Part::At { what, member } => self.at(what, *member),
        }
    }

    fn list(
        &mut self,
        name: &'static str,
        count: Bits,
        valid: &[u8],
        item: &Layout,
    ) -> Result<(), DecodeError> {
        let bits = valid.iter().fold(0, |bits, bit| bits | 1 << bit);
        let number = count.get(self.bytes).unwrap_or(0);
        if self.validation & bits != bits || number == 0 {
            return Ok(());
        }
        self.implied |= bits;
        // A count does not reserve memory: there may be fewer.
        let mut items = Vec::new();
        for _ in 0..number {
            items.push(self.structure(item)?);
        }
        self.description.add(name, Value::List(items));
        Ok(())
    }

    fn byte_string(&mut self, part: &ByteString) -> Result<(), DecodeError> {
        let left = self.bytes.len() - self.cursor;
        let len = part.len.map_or(left as u64, |len| len.get(self.bytes).unwrap_or(0));
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX), part.what)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let (bit, invalid) = part.valid.map_or((0, ""), |(bit, invalid)| (1_u64 << bit, invalid));
        if self.validation & bit != bit {
            self.description.add(invalid, Value::Number(len));
            return Ok(());
        }
        self.implied |= bit;
        let structure = part.view.and_then(|view| {
            let layout = view.chosen(self.bytes).filter(|layout| layout.len == bytes.len())?;
            Some((view.name, describe(layout, bytes, 0).ok()?))
        });
        match structure {
            Some((name, structure)) => self.description.add(name, Value::Group(structure.description)),
            None => self.description.add(part.name, Value::Bytes(bytes.to_vec())),
        }
        Ok(())
    }

    /// The structure at the cursor.
    fn structure(&mut self, layout: &Layout) -> Result<Description, DecodeError> {
        let bytes = self.bytes.get(self.cursor..).unwrap_or_default();
        let structure = describe(layout, bytes, self.offset + self.cursor)?;
        self.cursor += structure.len;
        Ok(structure.description)
    }

    /// Checks that the offset in `member` is that of the cursor.
    fn at(&self, what: &'static str, member: Bits) -> Result<(), DecodeError> {
        let found = member.get(self.bytes).unwrap_or(0);
        let expected = Expected::Exactly(self.cursor as u64);
        if found == self.cursor as u64 {
            return Ok(());
        }
        Err(DecodeError { offset: self.offset + member.offset(), what, found, expected })
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let left = self.bytes.get(self.cursor..).unwrap_or_default();
        let taken = left.get(..len).ok_or(DecodeError {
            offset: self.offset + self.cursor,
            what,
            found: left.len() as u64,
            expected: Expected::AtLeast(len as u64),
        })?;
        self.cursor += len;
        Ok(taken)
    }
}

/// Adds a field, if it is shown.
fn show(field: &Field, bytes: &[u8], validation: u64, description: &mut Description) -> bool {
    let Some(own) = bytes.get(field.bits.offset()..field.bits.end()) else { return false };
    let number = field.bits.get(bytes);
    let is_zero = number.map_or_else(|| own.iter().all(|byte| *byte == 0), |number| number == 0);
    if field.hidden_if_zero && is_zero {
        return false;
    }
    let value = match field.kind {
        Kind::Validation | Kind::Computed | Kind::Constant(_) | Kind::Parts => None,
        Kind::Reserved if is_zero => None,
        Kind::Number => number.map(Value::Number),
        Kind::Hex | Kind::Default(_) => number.map(Value::Hex),
        Kind::Reserved => number.map_or_else(|| Some(Value::Bytes(own.to_vec())), |n| Some(Value::Hex(n))),
        Kind::Named(names) => number.map(|number| {
            let name = usize::try_from(number).ok().and_then(|number| names.get(number));
            name.filter(|name| !name.is_empty())
                .map_or(Value::Number(number), |name| Value::Text((*name).to_owned()))
        }),
        Kind::Flags(flags) => {
            number.and_then(|number| flags.show(number, field.valid.is_some() && !field.hidden_if_zero))
        }
        Kind::Guid => Guid::read_from_bytes(own).ok().map(|guid| Value::Text(guid.to_string())),
        Kind::NamedGuid(names) => Guid::read_from_bytes(own).ok().map(|guid| {
            let name = names.iter().find(|(named, _)| *named == guid).map(|(_, name)| (*name).to_owned());
            Value::Text(name.unwrap_or_else(|| guid.to_string()))
        }),
        Kind::Text => Some(text(own).map_or_else(|| Value::Bytes(own.to_vec()), Value::Text)),
        Kind::Bytes => Some(Value::Bytes(own.to_vec())),
        Kind::Time(encoding) => {
            let Ok(time) = Timestamp::ref_from_bytes(own) else { return false };
            description.add_time(time, encoding(bytes));
            return true;
        }
        Kind::Group(layout) => group(layout, own),
        Kind::Choice { if_valid: Some(bit), .. } if validation >> bit & 1 == 0 => None,
        Kind::Choice { by, of, .. } => {
            of.iter().find(|(selector, _)| selector.is(by, bytes)).and_then(|(_, layout)| group(layout, own))
        }
    };
    let is_shown = value.is_some();
    if let Some(value) = value {
        description.add(field.name, value);
    }
    is_shown
}

fn group(layout: &Layout, bytes: &[u8]) -> Option<Value> {
    describe(layout, bytes, 0).ok().map(|structure| Value::Group(structure.description))
}

/// Text that is padded with zeros, if it is UTF-8: otherwise its bytes say more.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, padding) = bytes.split_at_checked(end)?;
    let is_text = padding.iter().all(|byte| *byte == 0);
    core::str::from_utf8(text).ok().filter(|_| is_text).map(ToOwned::to_owned)
}

impl Selector {
    /// Whether `bits` of `bytes` have this value.
    pub(super) fn is(&self, bits: Bits, bytes: &[u8]) -> bool {
        match self {
            Selector::Number(number) => bits.get(bytes) == Some(*number),
            Selector::Guid(guid) => bits.bytes(bytes) == Some(guid.bytes()),
            Selector::Any => true,
        }
    }
}

impl Flags {
    fn show(&self, number: u64, is_validated: bool) -> Option<Value> {
        let names = super::flag_names(number & !self.except, self.names);
        (self.always || is_validated || !names.is_empty()).then_some(Value::Flags(names))
    }
}
