//! Decoding of files with error records.

mod hex_text;
mod part;
mod to_block;

use alloc::vec;
use alloc::vec::Vec;

use crate::decode_error::DecodeError;
use crate::description::Description;
use crate::status_block::StatusBlock;

pub use hex_text::{HexTextError, HexTextProblem, bytes_of_hex_text};
pub(crate) use part::{Content, Part};
pub use to_block::NotOneBlock;

/// What a file of error records contains, in its order: status blocks, as in the region of BERT; CPER records, as in ERST and in EFI
/// variables; and sections that follow their descriptor without a record's header.
///
/// What lies between them belongs to it too: no byte of the file is dropped silently.
///
/// ```
/// use ras_core::{Decoded, Kind, MemoryBlocks, MemoryReport, Span};
///
/// let mut region = [0; 0x2000];
/// for block in region.chunks_mut(0x1000) {
///     let report = MemoryReport::uncorrected(Kind::ActionRequired, 1_543_622_400, 17);
///     MemoryBlocks::new(Span::around(0x4020_0000, 12), report).write_next(block)?;
/// }
/// let text = Decoded::read(&region)?.describe().to_string();
/// assert!(text.contains("block 1:") && text.contains("block 2:"), "{text}");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    parts: Vec<Part<'a>>,
}

impl<'a> Decoded<'a> {
    /// Decodes the blocks, records and sections in `bytes`. Lengths that are inconsistent are part of the result, with as much as can be
    /// decoded nevertheless.
    ///
    /// # Errors
    /// Returns an error if `bytes` contain no block, record or section: why their start is not one.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        let mut offset = 0;
        let mut any_record = false;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            let part = Part { offset, content: Content::at_start_of(rest, offset, !any_record) };
            any_record |= part.is_record();
            offset += part.content.len();
            parts.push(part);
        }
        if any_record {
            return Ok(Decoded { parts });
        }
        let unknown = parts.iter().find_map(|part| match &part.content {
            Content::Unknown(_, error) => Some(DecodeError { offset: part.offset + error.offset, ..*error }),
            _ => None,
        });
        match (unknown, StatusBlock::read(bytes)) {
            (Some(error), _) | (None, Err(error)) => Err(error),
            // Nothing but zeros: the status block of a source that has reported no error.
            (None, Ok(empty)) => {
                let behind = bytes.len() - empty.len();
                let mut parts = vec![Part { offset: 0, content: Content::Block(empty, None) }];
                if behind > 0 {
                    parts.push(Part { offset: empty.len(), content: Content::Zeros(behind) });
                }
                Ok(Decoded { parts })
            }
        }
    }

    /// A description for users and for programs. That of a single block, record or section has its fields; that of several has a list of
    /// each kind.
    #[must_use]
    pub fn describe(&self) -> Description {
        Description::of_parts(&self.parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cper::Section;
    use crate::cper::memory::MemorySection;
    use crate::cper::record::RecordHeader;

    /// Pieces of files, and bytes that are often lengths and counts.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let mut descriptor = vec![0; 72];
        MemorySection::of_page(0).kind().bytes().iter().zip(&mut descriptor[16..]).for_each(|(b, d)| *d = *b);
        prop_oneof![
            Just([&RecordHeader::SIGNATURE[..], &[1, 1, 0xff, 0xff, 0xff, 0xff, 1, 0]].concat()),
            Just(descriptor),
            (0..200_usize).prop_map(|len| vec![0; len]),
            prop::collection::vec(0..100_u8, 0..100),
            prop::collection::vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        /// Nothing is dropped: parts follow one another, up to the end.
        #[test]
        fn every_byte_belongs_to_a_part(pieces in prop::collection::vec(piece(), 0..12)) {
            let bytes = pieces.concat();
            if let Ok(decoded) = Decoded::read(&bytes) {
                let mut end = 0;
                for part in &decoded.parts {
                    prop_assert_eq!(part.offset, end);
                    prop_assert!(part.content.len() > 0);
                    end += part.content.len();
                }
                prop_assert_eq!(end, bytes.len());
            }
        }
    }
}
