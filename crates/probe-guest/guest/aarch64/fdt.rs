//! A walk through a flattened devicetree (Devicetree Specification 0.4, chapter 5).
//!
//! All lengths and offsets are validated. Data that violates the specification ends the walk with an error.

use crate::failure::Failure;
use crate::wire::{Field, read_at, wire};

/// Maximum length in bytes, the same as for Linux (Documentation/arch/arm64/booting.rst, 2).
pub(crate) const MAX_LEN: u32 = 2 << 20;

const MAGIC: u32 = 0xd00d_feed;
/// The supported version of the format.
const VERSION: u32 = 17;

/// A 32-bit number, most significant byte first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell(pub(crate) u32);

impl Field for Cell {
    const SIZE: usize = 4;

    fn split_off(rest: &mut &[u8]) -> Option<Self> {
        <[u8; 4]>::split_off(rest).map(u32::from_be_bytes).map(Cell)
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

/// A devicetree with a valid header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fdt<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Fdt<'a> {
    /// Bytes of a header.
    pub(crate) const HEADER_LEN: usize = Header::SIZE;

    /// Length of the devicetree, from its header.
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
                .ok_or(Failure::new("devicetree: the structure block exceeds it"))?,
            strings: block(header.strings_offset, header.strings_len)
                .ok_or(Failure::new("devicetree: the strings block exceeds it"))?,
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

/// An item of a devicetree, in order. The properties of a node precede its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// Start of a node, with its name and unit address; the root's name is empty.
    Node(&'a [u8]),
    /// End of the innermost node.
    EndOfNode,
    /// A property of the innermost node.
    Property(&'a [u8], &'a [u8]),
}

/// The walk reached malformed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    /// Offset in the structure block.
    pub(crate) at: usize,
}

pub(crate) struct Items<'a> {
    fdt: Fdt<'a>,
    at: usize,
    /// Number of open nodes.
    depth: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the root.
    Before,
    /// Inside or after the root.
    Inside,
    /// After the end or an error.
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

    /// Skips `len` bytes and the padding of the last cell.
    fn skip(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let skipped = self.fdt.structure.get(self.at..end)?;
        self.at = end.checked_next_multiple_of(Cell::SIZE)?;
        Some(skipped)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, ParseError>;

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
                Some(Err(ParseError { at }))
            }
        }
    }
}

fn up_to_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}
