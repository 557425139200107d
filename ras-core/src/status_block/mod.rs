//! Generic error status blocks: what a guest finds at the address that an error source names.

mod reader;
mod wire;
mod writer;

pub use reader::{Entry, StatusBlock};
pub use wire::{DataEntryHeader, StatusBlockHeader, block_status, section_flags, valid};
pub use writer::{BlockWriter, BufferTooSmall, Heading};
