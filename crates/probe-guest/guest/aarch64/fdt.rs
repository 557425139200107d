//! A walk through a flattened devicetree (Devicetree Specification 0.4, chapter 5).
//!
//! It trusts no length and no offset. Something that is not as the specification has it ends the walk with an error.

use crate::failure::Failure;
use crate::wire::{Field, read_at, wire};

/// The longest devicetree that is believed: Linux takes no longer one (Documentation/arch/arm64/booting.rst, 2).
pub(crate) const MAX_LEN: u32 = 2 << 20;

const MAGIC: u32 = 0xd00d_feed;
/// The version of the format that the walk understands.
const VERSION: u32 = 17;

/// A 32-bit number, most significant byte first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell(pub(crate) u32);

impl Field for Cell {
    const SIZE: usize = 4;

    fn take(rest: &mut &[u8]) -> Option<Self> {
        <[u8; 4]>::take(rest).map(u32::from_be_bytes).map(Cell)
    }
}

wire! {
    /// The header (5.2).
    struct Header: 40 {
        magic: Cell,
        total_size: Cell,
        structure_offset: Cell,
        strings_offset: Cell,
        _reservations_offset: Cell,
        version: Cell,
        last_compatible_version: Cell,
        _boot_processor: Cell,
        strings_len: Cell,
        structure_len: Cell,
    }
}

/// A devicetree of which the header was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fdt<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Fdt<'a> {
    /// Bytes that a header takes.
    pub(crate) const HEADER_LEN: usize = Header::SIZE;

    /// Bytes of the devicetree, by its header.
    pub(crate) fn total_len(header: &[u8]) -> Result<u32, Failure> {
        let header = read_at::<Header>(header, 0).ok_or(Failure::new("devicetree: too short"))?;
        if header.magic.0 != MAGIC {
            return Err(Failure::with("devicetree: wrong magic", u64::from(header.magic.0)));
        }
        let len = header.total_size.0;
        if len < Header::SIZE as u32 || len > MAX_LEN {
            return Err(Failure::with("devicetree: length", u64::from(len)));
        }
        Ok(len)
    }

    /// Reads a devicetree from all its bytes.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        Self::total_len(bytes)?;
        let header = read_at::<Header>(bytes, 0).ok_or(Failure::new("devicetree: too short"))?;
        if header.version.0 < VERSION || header.last_compatible_version.0 > VERSION {
            return Err(Failure::with("devicetree: version", u64::from(header.version.0)));
        }
        let block = |offset: Cell, len: Cell| {
            let start = offset.0 as usize;
            bytes.get(start..start.checked_add(len.0 as usize)?)
        };
        Ok(Fdt {
            structure: block(header.structure_offset, header.structure_len)
                .ok_or(Failure::new("devicetree: the structure block is not inside"))?,
            strings: block(header.strings_offset, header.strings_len)
                .ok_or(Failure::new("devicetree: the strings block is not inside"))?,
        })
    }

    pub(crate) fn items(&self) -> Items<'a> {
        Items { fdt: *self, at: 0, depth: 0, state: State::Before }
    }

    /// The string at `offset` of the strings block, without its NUL.
    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        up_to_nul(self.strings.get(offset as usize..)?)
    }
}

/// What a devicetree holds, in its order. The properties of a node come before its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A node of this name, unit address included, begins; that of the root is empty.
    Node(&'a [u8]),
    /// The innermost node that has begun and not ended ends.
    EndOfNode,
    /// A property of the innermost node.
    Property(&'a [u8], &'a [u8]),
}

/// Where the walk did not know how to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Offset in the structure block.
    pub(crate) at: usize,
}

pub(crate) struct Items<'a> {
    fdt: Fdt<'a>,
    at: usize,
    /// Nodes that have begun and not ended.
    depth: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The root has not begun.
    Before,
    /// The root has begun.
    Inside,
    /// Nothing more comes.
    Over,
}

/// Tokens of the structure block (5.4.1).
mod token {
    pub(super) const BEGIN_NODE: u32 = 1;
    pub(super) const END_NODE: u32 = 2;
    pub(super) const PROPERTY: u32 = 3;
    pub(super) const NOP: u32 = 4;
    pub(super) const END: u32 = 9;
}

impl<'a> Items<'a> {
    /// The next item; `Some(None)` at the end.
    fn step(&mut self) -> Option<Option<Item<'a>>> {
        loop {
            match self.cell()? {
                token::NOP => {}
                token::BEGIN_NODE if self.depth > 0 || self.state == State::Before => {
                    self.state = State::Inside;
                    self.depth += 1;
                    let name = up_to_nul(self.fdt.structure.get(self.at..)?)?;
                    self.skip(name.len() + 1)?;
                    return Some(Some(Item::Node(name)));
                }
                token::END_NODE => {
                    self.depth = self.depth.checked_sub(1)?;
                    return Some(Some(Item::EndOfNode));
                }
                token::PROPERTY if self.depth > 0 => {
                    let len = self.cell()?;
                    let name = self.cell()?;
                    return Some(Some(Item::Property(self.fdt.string(name)?, self.skip(len as usize)?)));
                }
                token::END if self.depth == 0 && self.state == State::Inside => return Some(None),
                _ => return None,
            }
        }
    }

    fn cell(&mut self) -> Option<u32> {
        let cell = read_at::<Cell>(self.fdt.structure, self.at)?;
        self.at += Cell::SIZE;
        Some(cell.0)
    }

    /// Goes over `len` bytes, and what fills the last cell.
    fn skip(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let skipped = self.fdt.structure.get(self.at..end)?;
        self.at = end.checked_next_multiple_of(Cell::SIZE)?;
        Some(skipped)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Over {
            return None;
        }
        // Every step consumes a cell, so the walk ends.
        let at = self.at;
        match self.step() {
            Some(Some(item)) => Some(Ok(item)),
            Some(None) => {
                self.state = State::Over;
                None
            }
            None => {
                self.state = State::Over;
                Some(Err(Lost { at }))
            }
        }
    }
}

fn up_to_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}
