//! Status blocks and their entries.

use zerocopy::IntoBytes;

use super::{Description, Value};
use crate::layout::{Described, describe};
use crate::status_block::{DataEntryHeader, Entry, StatusBlock, StatusBlockHeader};

impl Description {
    /// A status block.
    #[must_use]
    pub fn of_block(block: &StatusBlock<'_>) -> Self {
        let mut description = of_header(describe(StatusBlockHeader::LAYOUT, block.header.as_bytes(), 0));
        description.add_list("entry", block.entries().map(|entry| Description::of_entry(&entry)));
        description.add_bytes("bytes_before_raw_data", "zero_bytes_before_raw_data", block.gap());
        if !block.raw_data.is_empty() {
            description.add("raw_data", Value::Bytes(block.raw_data.to_vec()));
        }
        description
    }

    fn of_entry(entry: &Entry<'_>) -> Self {
        let mut description = of_header(describe(DataEntryHeader::LAYOUT, entry.head(), 0));
        description.add_section(&entry.section(), entry.offset + entry.head().len());
        description
    }
}

/// The description of a header that was read before: it has all of its bytes.
pub(super) fn of_header<E>(described: Result<Described, E>) -> Description {
    described.map_or_else(|_| Description::default(), |described| described.description)
}
