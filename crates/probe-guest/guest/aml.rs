//! A walk through the objects of a definition block (ACPI 6.5, 20.2).
//!
//! It reads declarations and executes nothing: bodies of methods, conditions and field lists are skipped by their length. An
//! object of unknown length ends the walk with an error.

/// Maximum nesting depth of scopes.
pub(crate) const MAX_DEPTH: usize = 16;

/// A name segment (ACPI 6.5, 20.2.2).
pub(crate) type Segment = [u8; 4];

/// A declaration. A path is reduced to its last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object<'a> {
    /// Start of a device. Objects up to its end are inside it.
    Device(Segment),
    /// End of the innermost device.
    EndOfDevice,
    /// A name and its value.
    Name(Segment, Value<'a>),
    /// An operation region of `len` bytes at `offset` of an address space (0: memory, 1: I/O ports).
    Region { space: u8, offset: u64, len: u64 },
}

/// A data object (ACPI 6.5, 20.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Integer(u64),
    Text(&'a [u8]),
    /// The initialised bytes.
    Buffer(&'a [u8]),
    /// The encoded elements; see [`elements`].
    Package(&'a [u8]),
}

/// The walk reached bytes that it cannot decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    /// Offset in the block.
    pub(crate) at: usize,
}

/// The objects of a block, which starts after the table's header.
pub(crate) struct Objects<'a> {
    cursor: Cursor<'a>,
    scopes: [Scope; MAX_DEPTH],
    depth: usize,
    has_failed: bool,
}

#[derive(Clone, Copy)]
struct Scope {
    /// End of the scope: offset in the block.
    end: usize,
    is_device: bool,
}

impl<'a> Objects<'a> {
    pub(crate) fn of(block: &'a [u8]) -> Self {
        Objects {
            cursor: Cursor { bytes: block, at: 0 },
            scopes: [Scope { end: block.len(), is_device: false }; MAX_DEPTH],
            depth: 0,
            has_failed: false,
        }
    }

    /// The end of the innermost scope.
    fn end(&self) -> usize {
        match self.depth.checked_sub(1).and_then(|index| self.scopes.get(index)) {
            Some(scope) => scope.end,
            None => self.cursor.bytes.len(),
        }
    }

    /// Decodes one object. `Some(None)` if it is of no interest to the caller, `None` if it cannot be decoded.
    fn step(&mut self) -> Option<Option<Object<'a>>> {
        let limit = self.end();
        let cursor = &mut self.cursor;
        let opcode = match cursor.byte()? {
            0x5b => 0x5b00 | u16::from(cursor.byte()?),
            byte => u16::from(byte),
        };
        match opcode {
            op::ALIAS => {
                cursor.name()?;
                cursor.name()?;
            }
            op::NAME => {
                let name = cursor.name()?;
                let value = cursor.value(limit)?;
                return Some(Some(Object::Name(name, value)));
            }
            op::EXTERNAL => {
                cursor.name()?;
                cursor.skip(2)?;
            }
            op::MUTEX => {
                cursor.name()?;
                cursor.skip(1)?;
            }
            op::EVENT => {
                cursor.name()?;
            }
            op::REGION => {
                cursor.name()?;
                let space = cursor.byte()?;
                let offset = cursor.integer()?;
                let len = cursor.integer()?;
                return Some(Some(Object::Region { space, offset, len }));
            }
            op::SCOPE => self.enter(limit, 0, false)?,
            op::DEVICE => return Some(Some(Object::Device(self.enter_named(limit, 0, true)?))),
            // After the name: processor id, register block and its length.
            op::PROCESSOR => self.enter(limit, 6, false)?,
            // After the name: system level and resource order.
            op::POWER_RESOURCE => self.enter(limit, 3, false)?,
            op::THERMAL_ZONE => self.enter(limit, 0, false)?,
            op::METHOD | op::FIELD | op::INDEX_FIELD | op::BANK_FIELD | op::IF | op::ELSE | op::WHILE => {
                cursor.at = cursor.package_end(limit)?
            }
            op::NOOP => {}
            _ => return None,
        }
        Some(None)
    }

    fn enter(&mut self, limit: usize, fixed: usize, is_device: bool) -> Option<()> {
        self.enter_named(limit, fixed, is_device).map(|_| ())
    }

    /// Enters a package with a name and `fixed` bytes in front of its objects.
    fn enter_named(&mut self, limit: usize, fixed: usize, is_device: bool) -> Option<Segment> {
        let end = self.cursor.package_end(limit)?;
        let name = self.cursor.name()?;
        self.cursor.skip(fixed)?;
        if self.cursor.at > end {
            return None;
        }
        *self.scopes.get_mut(self.depth)? = Scope { end, is_device };
        self.depth += 1;
        Some(name)
    }

    /// Leaves the innermost scope. `None` if the walk is not at its end.
    fn leave(&mut self) -> Option<Scope> {
        let index = self.depth.checked_sub(1)?;
        let scope = *self.scopes.get(index)?;
        if self.cursor.at != scope.end {
            return None;
        }
        self.depth = index;
        Some(scope)
    }
}

impl<'a> Iterator for Objects<'a> {
    type Item = Result<Object<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Every round consumes a byte or leaves a scope, so the walk ends.
        while !self.has_failed {
            if let Some(scope) = self.leave() {
                if scope.is_device {
                    return Some(Ok(Object::EndOfDevice));
                }
                continue;
            }
            let at = self.cursor.at;
            if at == self.end() {
                return None;
            }
            match self.step() {
                Some(object) if self.cursor.at <= self.end() => {
                    if let Some(object) = object {
                        return Some(Ok(object));
                    }
                }
                _ => {
                    self.has_failed = true;
                    return Some(Err(ParseError { at }));
                }
            }
        }
        None
    }
}

/// The elements of a package, up to the first that is not plain data.
pub(crate) fn elements(package: &[u8]) -> impl Iterator<Item = Value<'_>> {
    let mut cursor = Cursor { bytes: package, at: 0 };
    core::iter::from_fn(move || cursor.value(package.len()))
}

/// The number that `_HID` holds for an EISA identifier such as `PNP0B00` (ACPI 6.5, 19.3.4).
pub(crate) const fn eisa_id(id: &[u8; 7]) -> u64 {
    let [a, b, c, w, x, y, z] = *id;
    let vendor = letter(a) << 10 | letter(b) << 5 | letter(c);
    (vendor << 16 | digit(w) << 12 | digit(x) << 8 | digit(y) << 4 | digit(z)).swap_bytes() as u64
}

const fn letter(byte: u8) -> u32 {
    (byte - b'@') as u32
}

const fn digit(byte: u8) -> u32 {
    (if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' + 10 }) as u32
}

#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let skipped = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(skipped)
    }

    fn little_endian(&mut self, count: usize) -> Option<u64> {
        let bytes = self.skip(count)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The last segment of a name string (ACPI 6.5, 20.2.2); four underscores for the null name.
    fn name(&mut self) -> Option<Segment> {
        let mut first = self.byte()?;
        while matches!(first, b'\\' | b'^') {
            first = self.byte()?;
        }
        let before_last = match first {
            0x00 => return Some(*b"____"),
            0x2e => 1,
            0x2f => usize::from(self.byte()?).checked_sub(1)?,
            b'A'..=b'Z' | b'_' => {
                self.at -= 1;
                0
            }
            _ => return None,
        };
        self.skip(4 * before_last)?;
        self.skip(4)?.first_chunk::<4>().copied()
    }

    /// Reads a package length (ACPI 6.5, 20.2.4). Returns the end of the package, at most `limit`.
    fn package_end(&mut self, limit: usize) -> Option<usize> {
        let start = self.at;
        let lead = self.byte()?;
        let more = usize::from(lead >> 6);
        let len = match more {
            0 => u64::from(lead & 0x3f),
            _ => u64::from(lead & 0x0f) | self.little_endian(more)? << 4,
        };
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (self.at <= end && end <= limit).then_some(end)
    }

    fn integer(&mut self) -> Option<u64> {
        match self.byte()? {
            0x00 => Some(0),
            0x01 => Some(1),
            0xff => Some(u64::MAX),
            0x0a => self.little_endian(1),
            0x0b => self.little_endian(2),
            0x0c => self.little_endian(4),
            0x0e => self.little_endian(8),
            _ => None,
        }
    }

    fn value(&mut self, limit: usize) -> Option<Value<'a>> {
        let start = self.at;
        match self.byte()? {
            0x0d => {
                let rest = self.bytes.get(self.at..limit)?;
                let len = rest.iter().position(|byte| *byte == 0)?;
                self.at += len + 1;
                rest.get(..len).map(Value::Text)
            }
            0x11 => {
                let end = self.package_end(limit)?;
                self.integer()?;
                let bytes = self.bytes.get(self.at..end)?;
                self.at = end;
                Some(Value::Buffer(bytes))
            }
            0x12 => {
                let end = self.package_end(limit)?;
                self.skip(1)?;
                let encoded = self.bytes.get(self.at..end)?;
                self.at = end;
                Some(Value::Package(encoded))
            }
            _ => {
                self.at = start;
                self.integer().map(Value::Integer)
            }
        }
    }
}

/// Opcodes (ACPI 6.5, 20.3, table 20.5); two-byte opcodes start with 0x5b.
mod op {
    pub(super) const ALIAS: u16 = 0x06;
    pub(super) const NAME: u16 = 0x08;
    pub(super) const SCOPE: u16 = 0x10;
    pub(super) const METHOD: u16 = 0x14;
    pub(super) const EXTERNAL: u16 = 0x15;
    pub(super) const IF: u16 = 0xa0;
    pub(super) const ELSE: u16 = 0xa1;
    pub(super) const WHILE: u16 = 0xa2;
    pub(super) const NOOP: u16 = 0xa3;
    pub(super) const MUTEX: u16 = 0x5b01;
    pub(super) const EVENT: u16 = 0x5b02;
    pub(super) const REGION: u16 = 0x5b80;
    pub(super) const FIELD: u16 = 0x5b81;
    pub(super) const DEVICE: u16 = 0x5b82;
    pub(super) const PROCESSOR: u16 = 0x5b83;
    pub(super) const POWER_RESOURCE: u16 = 0x5b84;
    pub(super) const THERMAL_ZONE: u16 = 0x5b85;
    pub(super) const INDEX_FIELD: u16 = 0x5b86;
    pub(super) const BANK_FIELD: u16 = 0x5b87;
}
