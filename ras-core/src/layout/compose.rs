//! From a description to bytes.

use super::describe::{LENGTH, MISSING_VALIDATION_BITS, RESERVED_VALIDATION_BITS};
use super::keys::Keys;
use super::values::{byte_string, bytes, flag_set, guid, named, number, text};
use super::{Bits, ByteString, Draft, Field, Kind, Layout, Part};
use crate::description::{Description, Value};
use crate::encode_error::{EncodeError, EncodeProblem, MAX_LEN};
use crate::timestamp::{TimeEncoding, Timestamp};

/// Adds the structure that `keys` describe to `draft`. What they do not mention is zero or follows from the rest. Keys that it does not
/// know are left to the caller.
///
/// # Errors
/// Returns an error if a value is not one of its field, or contradicts another.
pub(crate) fn compose(layout: &Layout, keys: &Keys<'_>, draft: &mut Draft) -> Result<(), EncodeError> {
    let mut structure = Structure { keys, draft, base: 0, validation: layout.validation() };
    structure.base = structure.draft.len();
    let len = structure.len(layout)?;
    structure.draft.grow(len);
    structure.fields(layout, structure.base)?;
    if structure.validation.is_some() {
        for name in [RESERVED_VALIDATION_BITS, MISSING_VALIDATION_BITS] {
            if let Some(value) = keys.take(name)? {
                let max = structure.validation.map_or(0, Bits::max);
                let set = number(value, max).map_err(|problem| keys.error(name, problem))?;
                (0..64_u8)
                    .filter(|bit| set >> bit & 1 != 0)
                    .try_for_each(|bit| structure.validate(name, bit))?;
            }
        }
    }
    layout.parts.iter().try_for_each(|part| structure.part(part))?;
    if let Some(total) = layout.total {
        let len = structure.draft.len() - structure.base;
        structure.set(layout.what, total, len as u64)?;
    }
    Ok(())
}

/// A structure that is being written.
struct Structure<'a> {
    keys: &'a Keys<'a>,
    draft: &'a mut Draft,
    /// Offset of its members.
    base: usize,
    validation: Option<Bits>,
}

impl Structure<'_> {
    /// The length of its members.
    fn len(&self, layout: &Layout) -> Result<usize, EncodeError> {
        if layout.min_len == layout.len {
            return Ok(layout.len);
        }
        let Some(value) = self.keys.take(LENGTH)? else { return Ok(layout.len) };
        let len = number(value, layout.len as u64).ok().and_then(|len| usize::try_from(len).ok());
        len.filter(|len| [layout.min_len, layout.len].contains(len)).ok_or_else(|| {
            let expected = alloc::format!("{} or {}", layout.min_len, layout.len);
            self.keys.error(LENGTH, EncodeProblem::expected(value, expected))
        })
    }

    /// The members at `base`, as far as the draft reaches.
    fn fields(&mut self, layout: &Layout, base: usize) -> Result<(), EncodeError> {
        let len = self.draft.len() - base;
        for field in layout.fields().filter(|field| field.bits.end() <= len) {
            let is_given = self.field(&field, base)?;
            if let (true, Some(bit)) = (is_given, field.valid) {
                self.validate(field.name, bit)?;
            }
        }
        Ok(())
    }

    /// Writes a field. Whether its key is there.
    fn field(&mut self, field: &Field, base: usize) -> Result<bool, EncodeError> {
        match field.kind {
            Kind::Validation | Kind::Computed | Kind::Parts => return Ok(false),
            Kind::Constant(constant) => {
                self.write(field.name, base, field.bits, constant)?;
                return Ok(false);
            }
            Kind::Time(_) => return self.time(field, base),
            _ => {}
        }
        let Some(value) = self.keys.take(field.name)? else {
            if let Kind::Default(default) = field.kind {
                self.write(field.name, base, field.bits, default)?;
            }
            return Ok(false);
        };
        let max = field.bits.max();
        let len = field.bits.count / 8;
        let wrong = |problem| self.keys.error(field.name, problem);
        match field.kind {
            Kind::Number | Kind::Hex | Kind::Default(_) => {
                let number = number(value, max).map_err(wrong)?;
                self.write(field.name, base, field.bits, number)?;
            }
            Kind::Named(names) => {
                let number = named(value, names, max).map_err(wrong)?;
                self.write(field.name, base, field.bits, number)?;
            }
            Kind::Flags(of) => {
                let set = flag_set(value, of.names, max & !of.except).map_err(wrong)?;
                self.write_flags(field, base, set, of.except)?;
            }
            Kind::Reserved if field.bits.count <= 64 => {
                let number = number(value, max).map_err(wrong)?;
                self.write(field.name, base, field.bits, number)?;
            }
            Kind::Reserved | Kind::Bytes => {
                let bytes = bytes(value, len).map_err(wrong)?;
                self.write_bytes(field, base, &bytes)?;
            }
            Kind::Text => {
                let bytes = text(value, len).map_err(wrong)?;
                self.write_bytes(field, base, &bytes)?;
            }
            Kind::Guid => {
                let guid = guid(value, &[]).map_err(wrong)?;
                self.write_bytes(field, base, guid.bytes())?;
            }
            Kind::NamedGuid(names) => {
                let guid = guid(value, names).map_err(wrong)?;
                self.write_bytes(field, base, guid.bytes())?;
            }
            Kind::Group(layout) => self.group(field, base, layout, value)?,
            Kind::Choice { by, if_valid, of } => {
                let is_valid = if_valid.is_none_or(|bit| self.is_valid(bit));
                let mut forms = of.iter().filter(|_| is_valid);
                let chosen = forms.find(|(selector, _)| selector.is(by, self.draft.behind(base)));
                let (_, layout) = chosen.ok_or_else(|| wrong(EncodeProblem::NoSuchForm))?;
                self.group(field, base, layout, value)?;
            }
            Kind::Validation | Kind::Computed | Kind::Constant(_) | Kind::Parts | Kind::Time(_) => {}
        }
        Ok(true)
    }

    /// A structure in place of a member. Only what it says is written: another name may say more of the same bytes.
    fn group(
        &mut self,
        field: &Field,
        base: usize,
        layout: &Layout,
        value: &Value,
    ) -> Result<(), EncodeError> {
        let mut group = Draft::default();
        self.keys.group(field.name, value, |keys| compose(layout, keys, &mut group))?;
        let merged = self.draft.merge(base + field.bits.offset(), &group);
        merged.map_err(|_| self.keys.error(field.name, EncodeProblem::ContradictingBytes))
    }

    /// Binary-coded decimals, unless its encoding is there.
    fn time(&mut self, field: &Field, base: usize) -> Result<bool, EncodeError> {
        let keys = self.keys;
        let Some(time) = keys.take(Description::TIME)? else { return Ok(false) };
        let encoding = match keys.take(Description::TIME_ENCODING)? {
            Some(value) => named(value, &["bcd", "binary"], 0)
                .map_err(|problem| keys.error(Description::TIME_ENCODING, problem))?,
            None => 0,
        };
        let encoding = if encoding == 1 { TimeEncoding::Binary } else { TimeEncoding::Bcd };
        let precise = match keys.take(Description::TIME_PRECISION)? {
            Some(value) => named(value, &["not precise", "precise"], 1)
                .map_err(|problem| keys.error(Description::TIME_PRECISION, problem))?,
            None => 0,
        };
        let reserved = match keys.take(Description::TIME_RESERVED_FLAGS)? {
            Some(value) => number(value, 0xfe)
                .map_err(|problem| keys.error(Description::TIME_RESERVED_FLAGS, problem))?,
            None => 0,
        };
        let parsed = match time {
            Value::Text(text) => Timestamp::parse(text, encoding, (precise | reserved) as u8),
            _ => None,
        };
        let parsed = parsed.ok_or_else(|| {
            keys.error(
                Description::TIME,
                EncodeProblem::expected(time, "a time, for example `2026-08-09T10:11:12`"),
            )
        })?;
        self.write_bytes(field, base, zerocopy::IntoBytes::as_bytes(&parsed))?;
        Ok(true)
    }

    fn part(&mut self, part: &Part) -> Result<(), EncodeError> {
        match part {
            Part::List { name, count, valid, item } => self.list(name, *count, valid, item),
            Part::Bytes(bytes) => self.byte_string(bytes),
            Part::If { number, permits, layout } => {
                let base = self.draft.len();
                if number.get(self.draft.behind(self.base)).is_some_and(permits) {
                    self.draft.grow(layout.len);
                    self.fields(layout, base)?;
                }
                Ok(())
            }
            Part::Group { name, at, layout } => {
                let Some(value) = self.keys.take(name)? else { return Ok(()) };
                self.at(name, *at)?;
                self.keys.group(name, value, |keys| compose(layout, keys, self.draft))
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
    ) -> Result<(), EncodeError> {
        let items = self.keys.list(name)?;
        for (index, description) in items.iter().enumerate() {
            self.keys.item(name, index, description, |keys| compose(item, keys, self.draft))?;
        }
        let number = items.len() as u64;
        if number > count.max() {
            return Err(self.keys.error(name, EncodeProblem::TooMany { number, max: count.max() }));
        }
        if number > 0 {
            valid.iter().try_for_each(|bit| self.validate(name, *bit))?;
            self.set(name, count, number)?;
        }
        Ok(())
    }

    fn byte_string(&mut self, part: &ByteString) -> Result<(), EncodeError> {
        let start = self.draft.len();
        if let Some(value) = self.keys.take(part.name)? {
            let bytes = byte_string(value).map_err(|problem| self.keys.error(part.name, problem))?;
            self.draft.push(&bytes);
        } else if let Some(view) = part.view
            && let Some(value) = self.keys.take(view.name)?
        {
            let layout = view.chosen(self.draft.behind(self.base));
            let layout = layout.ok_or_else(|| self.keys.error(view.name, EncodeProblem::NoSuchForm))?;
            self.keys.group(view.name, value, |keys| compose(layout, keys, self.draft))?;
        } else if let Some((_, name)) = part.valid
            && let Some(value) = self.keys.take(name)?
        {
            let len = number(value, MAX_LEN as u64).map_err(|problem| self.keys.error(name, problem))?;
            self.draft.grow(len as usize);
            return self.byte_string_len(part, start);
        }
        if let (true, Some((bit, _))) = (self.draft.len() > start, part.valid) {
            self.validate(part.name, bit)?;
        }
        self.byte_string_len(part, start)
    }

    fn byte_string_len(&mut self, part: &ByteString, start: usize) -> Result<(), EncodeError> {
        let len = (self.draft.len() - start) as u64;
        let Some(bits) = part.len else { return Ok(()) };
        if len > bits.max() {
            return Err(self.keys.error(part.name, EncodeProblem::TooMany { number: len, max: bits.max() }));
        }
        self.set(part.name, bits, len)
    }

    /// Writes the offset of what follows into `member`.
    fn at(&mut self, name: &'static str, member: Bits) -> Result<(), EncodeError> {
        let offset = (self.draft.len() - self.base) as u64;
        if offset > member.max() {
            return Err(self.keys.error(name, EncodeProblem::TooMany { number: offset, max: member.max() }));
        }
        self.set(name, member, offset)
    }

    /// Whether a validation bit is set.
    fn is_valid(&self, bit: u8) -> bool {
        let validation = self.validation.and_then(|bits| bits.get(self.draft.behind(self.base)));
        validation.is_some_and(|validation| validation >> bit & 1 != 0)
    }

    /// Sets a validation bit.
    fn validate(&mut self, name: &'static str, bit: u8) -> Result<(), EncodeError> {
        let Some(validation) = self.validation else { return Ok(()) };
        let bit = usize::from(bit);
        self.write(name, self.base, validation.range(bit, bit + 1), 1)
    }

    /// Sets a number among its members.
    fn set(&mut self, name: &'static str, bits: Bits, number: u64) -> Result<(), EncodeError> {
        self.write(name, self.base, bits, number)
    }

    fn write(&mut self, name: &'static str, base: usize, bits: Bits, number: u64) -> Result<(), EncodeError> {
        self.draft.set(base, bits, number).map_err(|_| {
            let other = bits.get(self.draft.behind(base)).unwrap_or(0);
            self.keys.error(name, EncodeProblem::Contradiction { number, other })
        })
    }

    fn write_flags(&mut self, field: &Field, base: usize, set: u64, except: u64) -> Result<(), EncodeError> {
        let flags = (0..field.bits.count).filter(|bit| except >> bit & 1 == 0);
        flags
            .into_iter()
            .try_for_each(|bit| self.write(field.name, base, field.bits.range(bit, bit + 1), set >> bit & 1))
    }

    fn write_bytes(&mut self, field: &Field, base: usize, bytes: &[u8]) -> Result<(), EncodeError> {
        let written = self.draft.set_bytes(base, field.bits, bytes);
        written.map_err(|_| self.keys.error(field.name, EncodeProblem::ContradictingBytes))
    }
}
