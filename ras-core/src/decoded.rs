//! Decoding of bytes of an unknown kind.

use crate::cper::record::{Record, RecordHeader};
use crate::decode_error::DecodeError;
use crate::description::Description;
use crate::status_block::StatusBlock;

/// A status block or a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A generic error status block.
    Block(StatusBlock<'a>),
    /// A CPER record.
    Record(Record<'a>),
}

impl<'a> Decoded<'a> {
    /// Decodes the start of `bytes`: a record if they start with its signature, otherwise a status block.
    ///
    /// # Errors
    /// Returns an error if it is not valid.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.starts_with(&RecordHeader::SIGNATURE) {
            Record::read(bytes).map(Decoded::Record)
        } else {
            StatusBlock::read(bytes).map(Decoded::Block)
        }
    }

    /// A description for users and for programs.
    #[must_use]
    pub fn describe(&self) -> Description {
        match self {
            Decoded::Block(block) => Description::of_block(block),
            Decoded::Record(record) => Description::of_record(record),
        }
    }
}
