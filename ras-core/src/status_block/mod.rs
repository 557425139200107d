//! Generic error status blocks (ACPI 6.5, 18.3.2.7.1): the records at the address of an error source.

mod reader;
mod wire;
mod writer;

pub use reader::{Entry, StatusBlock};
pub use wire::{DataEntryHeader, StatusBlockHeader, block_status, section_flags, valid};
pub use writer::{BlockWriter, BufferTooSmall, Heading};
