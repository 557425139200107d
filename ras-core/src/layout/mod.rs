//! Layouts: what the bytes of a structure mean.
//!
//! [`wire!`](macro@wire) declares a wire structure together with the meaning of its members. Descriptions ([`describe()`]) and bytes
//! ([`compose()`]) follow from that one declaration, so each is the inverse of the other.

mod compose;
mod describe;
mod draft;
mod keys;
mod values;
mod wire;

use crate::guid::Guid;
use crate::timestamp::TimeEncoding;

pub(crate) use compose::compose;
pub(crate) use describe::{Described, describe};
pub(crate) use draft::Draft;
pub(crate) use keys::Keys;
pub(crate) use values::{byte_string, flag_names, flag_set, number};
pub(crate) use wire::{bits, size_of_member, wire};

/// A range of bits of a structure. Bit 0 is the lowest one of its first byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Bits {
    pub(crate) const fn of_bytes(offset: usize, len: usize) -> Self {
        Bits { first: 8 * offset, count: 8 * len }
    }

    /// The bits `from` to `to` of these, without the last.
    pub(crate) const fn range(self, from: usize, to: usize) -> Self {
        Bits { first: self.first + from, count: to - from }
    }

    /// Offset of the byte with the first of them.
    pub(crate) const fn offset(self) -> usize {
        self.first / 8
    }

    /// Offset of the byte behind the last of them.
    pub(crate) const fn end(self) -> usize {
        (self.first + self.count).div_ceil(8)
    }

    /// Their number, little endian. `None` if `bytes` end before them, or if there are more than 64.
    pub(crate) fn get(self, bytes: &[u8]) -> Option<u64> {
        let bytes = bytes.get(self.offset()..self.end()).filter(|_| self.count <= 64)?;
        let wide = bytes.iter().rev().fold(0_u128, |wide, byte| wide << 8 | u128::from(*byte));
        Some((wide >> (self.first % 8)) as u64 & self.max())
    }

    /// The largest number that they can hold.
    pub(crate) const fn max(self) -> u64 {
        if self.count >= 64 { u64::MAX } else { (1 << self.count) - 1 }
    }

    /// Their bytes, if they are whole ones.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes
            .get(self.offset()..self.end())
            .filter(|_| self.first.is_multiple_of(8) && self.count.is_multiple_of(8))
    }
}

/// A structure on the wire.
#[derive(Debug)]
pub(crate) struct Layout {
    /// What is said of one that is too short.
    pub(crate) what: &'static str,
    /// Length of its members in bytes.
    pub(crate) len: usize,
    /// That of its shortest form.
    pub(crate) min_len: usize,
    pub(crate) members: &'static [Member],
    /// What follows its members.
    pub(crate) parts: &'static [Part],
    /// The member with the length of members and parts together.
    pub(crate) total: Option<Bits>,
}

/// A member of a structure, and further names for its bits.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) field: Field,
    /// Their bits are relative to those of the member.
    pub(crate) views: &'static [Field],
}

/// A name for some bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) bits: Bits,
    /// The validation bit.
    pub(crate) valid: Option<u8>,
    pub(crate) kind: Kind,
    /// Not shown if it is zero, as another name has the same bits.
    pub(crate) hidden_if_zero: bool,
}

/// How the bits of a field are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A decimal number.
    Number,
    /// A hexadecimal number.
    Hex,
    /// A hexadecimal number; if a description has none, this one.
    Default(u64),
    /// The name of a number, if that is not empty.
    Named(&'static [&'static str]),
    /// Flags.
    Flags(Flags),
    Guid,
    /// A GUID by its name.
    NamedGuid(&'static [(Guid, &'static str)]),
    /// Text, padded with zeros.
    Text,
    Bytes,
    /// A timestamp, and how it is encoded in this structure.
    Time(fn(&[u8]) -> TimeEncoding),
    /// A structure of its own.
    Group(&'static Layout),
    /// A structure that depends on the value of other bits, which have a validation bit or none.
    Choice {
        by: Bits,
        if_valid: Option<u8>,
        of: &'static [(Selector, &'static Layout)],
    },
    /// Shown if it is not zero, as it should be.
    Reserved,
    /// The validation bits of this structure.
    Validation,
    /// Not shown: it follows from other values.
    Computed,
    /// Not shown: always this number.
    Constant(u64),
    /// Not shown: the names of its parts are.
    Parts,
}

/// The value of the bits that choose a structure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Selector {
    Number(u64),
    Guid(Guid),
    /// Any value.
    Any,
}

/// Flags of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// The names of the bits, lowest first. Those without a name are hexadecimal numbers.
    pub(crate) names: &'static [&'static str],
    /// Bits that are not flags.
    pub(crate) except: u64,
    /// Shown also if none is set.
    pub(crate) always: bool,
}

/// Flags that are all bits of a field.
pub(crate) const fn flags(names: &'static [&'static str]) -> Kind {
    Kind::Flags(Flags { names, except: 0, always: false })
}

/// What follows the members of a structure.
#[derive(Debug)]
pub(crate) enum Part {
    /// That number of structures, if all those validation bits are set.
    List {
        name: &'static str,
        count: Bits,
        valid: &'static [u8],
        item: &'static Layout,
    },
    Bytes(ByteString),
    /// Further members, if a number permits them.
    If {
        number: Bits,
        permits: fn(u64) -> bool,
        layout: &'static Layout,
    },
    /// A structure of its own, unless the member with its offset is zero.
    Group {
        name: &'static str,
        at: Bits,
        layout: &'static Layout,
    },
    /// What follows has its offset in that member: it must be this one.
    At {
        what: &'static str,
        member: Bits,
    },
}

/// Bytes behind the members of a structure.
#[derive(Debug)]
pub(crate) struct ByteString {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The member with their number. None: all that there are.
    pub(crate) len: Option<Bits>,
    /// Their validation bit, and the name of their number if it is not set.
    pub(crate) valid: Option<(u8, &'static str)>,
    /// A structure that they may be.
    pub(crate) view: Option<View>,
}

/// The structure that bytes are, if they have its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) name: &'static str,
    /// The bits of the structure before them that choose it.
    pub(crate) by: Bits,
    pub(crate) of: &'static [(Selector, &'static Layout)],
}

impl View {
    /// The structure that the members of the structure before them choose.
    pub(crate) fn chosen(&self, members: &[u8]) -> Option<&'static Layout> {
        self.of.iter().find(|(selector, _)| selector.is(self.by, members)).map(|(_, layout)| *layout)
    }
}

impl Layout {
    /// Its fields: each member, then the further names of its bits.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field> + use<> {
        self.members.iter().flat_map(|member| {
            let parent = member.field;
            let views = member.views.iter().map(move |view| Field {
                bits: Bits { first: parent.bits.first + view.bits.first, count: view.bits.count },
                valid: view.valid.or(parent.valid),
                hidden_if_zero: view.valid.is_none() && !matches!(parent.kind, Kind::Parts),
                ..*view
            });
            core::iter::once(parent).chain(views)
        })
    }

    /// The member with its validation bits.
    pub(crate) fn validation(&self) -> Option<Bits> {
        let mut members = self.members.iter();
        members.find(|member| matches!(member.field.kind, Kind::Validation)).map(|member| member.field.bits)
    }

    /// The validation bits that have a meaning.
    pub(crate) fn known_validation_bits(&self) -> u64 {
        let of_fields = self.fields().filter_map(|field| field.valid).fold(0, |known, bit| known | 1 << bit);
        self.parts.iter().fold(of_fields | self.other_validation_bits(), |known, part| match part {
            Part::List { valid, .. } => valid.iter().fold(known, |known, bit| known | 1 << bit),
            Part::Bytes(bytes) => known | bytes.valid.map_or(0, |(bit, _)| 1 << bit),
            Part::If { layout, .. } => known | layout.known_validation_bits(),
            Part::Group { .. } | Part::At { .. } => known,
        })
    }

    /// The validation bits that are no validation: they count structures, or have names.
    pub(crate) fn other_validation_bits(&self) -> u64 {
        let Some(validation) = self.validation() else { return 0 };
        let members = self.members.iter();
        let views = members
            .filter(|member| matches!(member.field.kind, Kind::Validation))
            .flat_map(|member| member.views)
            .fold(0, |bits, view| bits | view.bits.max() << view.bits.first);
        let counts = self.parts.iter().filter_map(|part| match part {
            Part::List { count, .. } => Some(count),
            _ => None,
        });
        let end = validation.first + validation.count;
        let inside = counts.filter(|count| (validation.first..end).contains(&count.first));
        inside.fold(views, |bits, count| bits | count.max() << (count.first - validation.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cper::SECTION_TYPES;

    /// Every bit of every structure has a name: none is dropped, and none is written by nobody.
    fn check(layout: &Layout) {
        let mut covered = vec![false; 8 * layout.len];
        let mut names = Vec::new();
        for field in layout.fields() {
            assert!(field.bits.end() <= layout.len, "{}: {}", layout.what, field.name);
            match field.kind {
                Kind::Parts => continue,
                Kind::Choice { of, .. } => of.iter().for_each(|(_, of)| {
                    assert_eq!(8 * of.len, field.bits.count, "{}: {}", layout.what, field.name);
                    check(of);
                }),
                Kind::Group(of) => {
                    assert_eq!(8 * of.len, field.bits.count, "{}: {}", layout.what, field.name);
                    check(of);
                }
                _ => {}
            }
            let is_shown = !matches!(field.kind, Kind::Validation | Kind::Computed | Kind::Constant(_));
            assert!(!is_shown || !names.contains(&field.name), "{}: {} twice", layout.what, field.name);
            names.push(field.name);
            let except = match field.kind {
                Kind::Flags(flags) => flags.except,
                _ => 0,
            };
            for bit in 0..field.bits.count {
                covered[field.bits.first + bit] |= bit >= 64 || except >> bit & 1 == 0;
            }
        }
        let missing: Vec<_> = (0..covered.len()).filter(|bit| !covered[*bit]).collect();
        assert!(missing.is_empty(), "{}: bits {missing:?}", layout.what);
        for part in layout.parts {
            match part {
                Part::List { item, .. } => check(item),
                Part::If { layout, .. } | Part::Group { layout, .. } => check(layout),
                Part::Bytes(bytes) => {
                    bytes.view.iter().flat_map(|view| view.of).for_each(|(_, of)| check(of));
                }
                Part::At { .. } => {}
            }
        }
    }

    extern crate std;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn every_bit_has_a_name() {
        for section_type in SECTION_TYPES {
            section_type.body.iter().for_each(|(_, layout)| check(layout));
        }
        check(crate::status_block::StatusBlockHeader::LAYOUT);
        check(crate::status_block::DataEntryHeader::LAYOUT);
        check(crate::cper::record::RecordHeader::LAYOUT);
        check(crate::cper::record::SectionDescriptor::LAYOUT);
    }

    #[test]
    fn bits_are_numbers() {
        let bytes = [0x21, 0x43, 0x65, 0x87, 0xa9, 0xcb, 0xed, 0x0f, 0xff];
        assert_eq!(Bits::of_bytes(0, 8).get(&bytes), Some(0x0fed_cba9_8765_4321));
        assert_eq!(Bits::of_bytes(1, 2).range(4, 12).get(&bytes), Some(0x54));
        assert_eq!(Bits { first: 4, count: 64 }.get(&bytes), Some(0xf0fe_dcba_9876_5432));
        assert_eq!(Bits::of_bytes(0, 16).get(&bytes), None);
        assert_eq!(Bits::of_bytes(8, 2).get(&bytes), None);
    }
}
