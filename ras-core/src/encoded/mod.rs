//! Encoding of descriptions: the inverse of decoding.

mod block;
mod record;
mod section;

use alloc::string::String;
use alloc::vec::Vec;

use crate::description::{Description, Value};
use crate::encode_error::{EncodeError, EncodeProblem, MAX_LEN};
use crate::layout::{Keys, byte_string, number};

impl Description {
    /// The bytes that it describes: a status block, a CPER record, a section behind its descriptor, or a file of them.
    ///
    /// Counts and lengths follow from the rest, and so do a status and a severity that are omitted; fields that are omitted are zero
    /// and not valid. What was decoded is encoded as the same bytes, except those of fields that are not valid, and sections of a record
    /// that overlap.
    ///
    /// ```
    /// use ras_core::{Decoded, Kind, MemoryBlocks, MemoryReport, Span};
    ///
    /// let mut block = [0; 0x1000];
    /// let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_543_622_400, 17);
    /// MemoryBlocks::new(Span::around(0x4020_0000, 12), report).write_next(&mut block)?;
    ///
    /// assert_eq!(Decoded::read(&block)?.describe().encode()?, block);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if a key is unknown, or its value is not one of its field or contradicts another.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        Keys::new(self, String::new()).all(|keys| if is_file(self) { file(keys) } else { single(self, keys) })
    }
}

/// Whether it has a list of blocks, records or sections, each with its offset.
fn is_file(description: &Description) -> bool {
    let is_list = |name: &str| match description.get(name) {
        Some(Value::List(items)) => items.iter().all(|item| item.get(Description::OFFSET).is_some()),
        _ => false,
    };
    ["block", "record", Description::SECTION].into_iter().any(is_list)
}

/// A single block, record or section, and what is around it.
fn single(description: &Description, keys: &Keys<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut parts = undecoded(keys)?;
    let start = offset(keys)?.unwrap_or(0);
    let bytes = part(description, keys)?;
    parts.push((start, Description::OFFSET, bytes));
    join(keys, parts)
}

fn part(description: &Description, keys: &Keys<'_>) -> Result<Vec<u8>, EncodeError> {
    if description.get("entry").is_some() || description.get("block_status").is_some() {
        block::block(keys)
    } else if record::is_record(description) {
        record::record(keys)
    } else {
        record::bare_section(keys)
    }
}

/// Blocks, records and sections, each at its offset.
fn file(keys: &Keys<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut parts = undecoded(keys)?;
    for name in ["block", "record", Description::SECTION] {
        for (index, description) in keys.list(name)?.iter().enumerate() {
            parts.push(keys.item(name, index, description, |keys| {
                let start = offset(keys)?.unwrap_or(0);
                let bytes = match name {
                    "block" => block::block(keys),
                    "record" => record::record(keys),
                    _ => record::bare_section(keys),
                }?;
                Ok((start, name, bytes))
            })?);
        }
    }
    join(keys, parts)
}

/// The offset of a part.
fn offset(keys: &Keys<'_>) -> Result<Option<u64>, EncodeError> {
    let name = Description::OFFSET;
    let Some(value) = keys.take(name)? else { return Ok(None) };
    match number(value, u64::MAX) {
        Ok(offset) if offset <= MAX_LEN as u64 => Ok(Some(offset)),
        Ok(_) => Err(keys.error(name, EncodeProblem::TooLong { max: MAX_LEN })),
        Err(problem) => Err(keys.error(name, problem)),
    }
}

/// A part of a file: its offset, its key and its bytes.
type Part = (u64, &'static str, Vec<u8>);

/// The parts that are no block, record or section.
fn undecoded(keys: &Keys<'_>) -> Result<Vec<Part>, EncodeError> {
    const NAME: &str = "undecoded";
    let parts = keys.list(NAME)?.iter().enumerate().map(|(index, description)| {
        keys.item(NAME, index, description, |keys| {
            keys.take(Description::BROKEN)?;
            let start = offset(keys)?.unwrap_or(0);
            let bytes = keys.take("bytes")?.map_or(Ok(Vec::new()), byte_string);
            let bytes = bytes.map_err(|problem| keys.error("bytes", problem))?;
            let len = keys.take("length")?.map_or(Ok(bytes.len() as u64), |len| number(len, u64::MAX));
            let len = len.map_err(|problem| keys.error("length", problem))?;
            if len != bytes.len() as u64 {
                return Err(keys.error("bytes", EncodeProblem::Incomplete { found: bytes.len(), len }));
            }
            Ok((start, NAME, bytes))
        })
    });
    parts.collect()
}

/// The parts in their order, with zeros between them; and the rest of the zeros behind them.
fn join(keys: &Keys<'_>, mut parts: Vec<Part>) -> Result<Vec<u8>, EncodeError> {
    parts.sort_by_key(|(offset, ..)| *offset);
    let mut file = Vec::new();
    let mut zeros = 0;
    for (offset, name, bytes) in parts {
        let end = file.len() as u64;
        if offset < end {
            return Err(keys.error(name, EncodeProblem::Overlap { offset, end }));
        }
        zeros += offset - end;
        file.resize(offset as usize, 0);
        file.extend(bytes);
        if file.len() > MAX_LEN {
            return Err(keys.error(name, EncodeProblem::TooLong { max: MAX_LEN }));
        }
    }
    let Some(value) = keys.take(Description::ZERO_BYTES)? else { return Ok(file) };
    let name = Description::ZERO_BYTES;
    let all = number(value, u64::MAX).map_err(|problem| keys.error(name, problem))?;
    let Some(behind) = all.checked_sub(zeros) else {
        return Err(keys.error(name, EncodeProblem::Contradiction { number: all, other: zeros }));
    };
    if behind > (MAX_LEN - file.len()) as u64 {
        return Err(keys.error(name, EncodeProblem::TooLong { max: MAX_LEN }));
    }
    file.resize(file.len() + behind as usize, 0);
    Ok(file)
}
