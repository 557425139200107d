//! Sections: the bodies of error records (UEFI 2.10, appendix N.2).
//!
//! Each type is in the list of [`section_name`], and has its wire structure, in which the meaning of each member is declared. What
//! [`Description`](crate::Description) says of its bytes, and the bytes that it makes of a description, follow from that. A [`Section`]
//! writes one without a heap; the public structures can be read from a payload by `zerocopy::FromBytes`.

pub mod arm_processor;
mod arm_ras;
mod arm_registers;
mod ccix;
mod cxl_events;
mod cxl_protocol;
mod dmar;
mod error_status;
mod firmware_record;
pub mod generic_processor;
pub mod memory;
mod pci;
mod pcie;
pub mod record;
mod section_types;
pub mod x86_processor;
mod x86_registers;

use crate::guid::Guid;

pub use section_types::section_name;
pub(crate) use section_types::{SECTION_TYPES, SectionType, section_type};

/// The payload of an entry.
pub trait Section {
    /// Its type.
    fn kind(&self) -> Guid;

    /// Passes its bytes to `sink`, in order and in any number of parts. Every call passes the same bytes.
    fn parts(&self, sink: &mut dyn FnMut(&[u8]));
}

/// A section of any type, as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSection<'a> {
    /// Its type.
    pub kind: Guid,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Section for RawSection<'_> {
    fn kind(&self) -> Guid {
        self.kind
    }

    fn parts(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.bytes);
    }
}

/// A section has more parts than it can count, or no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a section has parts that it cannot count")]
pub struct Uncountable;
