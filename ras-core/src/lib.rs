//! What happens to a memory error: plan, records, ledger, reporters. No KVM, no I/O.
#![no_std]

extern crate alloc;

mod memory_error;

pub use memory_error::{Kind, MemoryError, Origin, Span};
