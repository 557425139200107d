//! What happens to a memory error: plan, records, ledger, reporters. No KVM, no I/O.
#![no_std]

extern crate alloc;

pub mod acceptance;
pub mod cper;
mod decode_error;
mod decoded;
mod description;
mod error_source;
mod fru_text;
mod generic_address;
mod guid;
mod memory_blocks;
mod memory_error;
mod notification;
mod record_area;
mod severity;
pub mod status_block;
mod timestamp;

pub use decode_error::{DecodeError, Wanted};
pub use decoded::Decoded;
pub use description::{Description, Value};
pub use error_source::{ErrorSource, GenericErrorSourceV2};
pub use fru_text::FruText;
pub use generic_address::GenericAddress;
pub use guid::Guid;
pub use memory_blocks::{MAX_MEMORY_ENTRIES, MemoryBlocks, MemoryReport, blocks_needed};
pub use memory_error::{Kind, MemoryError, Origin, Span};
pub use notification::{Notification, NotificationStructure};
pub use record_area::{LayoutError, RecordArea, Slot};
pub use severity::Severity;
pub use status_block::{BlockWriter, Heading, NoRoom, StatusBlock};
pub use timestamp::Timestamp;

pub mod abilities;
pub mod actions;
pub mod handover;
pub mod ledger;
pub mod plan;
mod progress;
mod queue;
pub mod reporters;
pub mod request;
pub mod responder;
mod response;
pub mod vcpu_state;

pub use response::Response;
