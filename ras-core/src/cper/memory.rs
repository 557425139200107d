//! Memory errors.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Section;
use crate::guid::Guid;

/// Memory Error Section (UEFI 2.10, N.2.5, table N.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MemorySection {
    /// The fields that the section has had from the start.
    pub first: MemoryFields,
    /// Those that UEFI 2.3 added: older sections end before them.
    pub added: AddedMemoryFields,
}

const _: () = assert!(size_of::<MemorySection>() == 80);
