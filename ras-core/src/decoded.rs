//! Bytes of which it is not known what they are.

use crate::cper::record::{Record, RecordHeader};
use crate::decode_error::DecodeError;
use crate::description::Description;
use crate::status_block::StatusBlock;

/// A status block or a record, whichever it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A generic error status block.
    Block(StatusBlock<'a>),
    /// A whole CPER record.
    Record(Record<'a>),
}

impl<'a> Decoded<'a> {
    /// Reads what is at the start of `bytes`: a record where they bear its signature, else a status block.
    ///
    /// # Errors
    /// When it is broken.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.starts_with(&RecordHeader::SIGNATURE) {
            Record::read(bytes).map(Decoded::Record)
        } else {
            StatusBlock::read(bytes).map(Decoded::Block)
        }
    }

    /// For people and for programs.
    #[must_use]
    pub fn describe(&self) -> Description {
        match self {
            Decoded::Block(block) => Description::of_block(block),
            Decoded::Record(record) => Description::of_record(record),
        }
    }
}
