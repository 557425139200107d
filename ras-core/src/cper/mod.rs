//! Sections: the bodies of error records (UEFI 2.10, appendix N).

mod memory;

pub use memory::{MemoryErrorType, MemorySection};

use crate::guid::Guid;

/// What can be an entry's payload.
pub trait Section {
    /// Its type.
    fn kind(&self) -> Guid;

    /// Hands its bytes to `sink`, in their order and in as many parts as suits. Two calls give the same bytes.
    fn parts(&self, sink: &mut dyn FnMut(&[u8]));
}
